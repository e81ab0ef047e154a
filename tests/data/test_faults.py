"""Bad files are skipped and counted, good ones unaffected; hostile archives write nothing; bombs cost no memory."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from selfsup.data import BadDataError, open_data


@pytest.mark.parametrize("cache", [True, False])
def test_every_bad_file_is_skipped_with_a_reason(tmp_path: Path, corpus, cache: bool) -> None:
    folder = tmp_path / "mixed"
    bad = corpus.make_bad_corpus(folder)
    assert len(bad) >= 40
    for i in range(4):
        corpus.picture(i).save(folder / f"good-{i}.png")
    items = open_data(folder, max_bad=1.0, cache=cache)
    assert {skipped.name for skipped in items.skipped} == set(bad)
    assert items.refused == len(bad)
    assert all(skipped.reason and "\n" not in skipped.reason for skipped in items.skipped)
    assert list(items.names) == [f"good-{i}.png" for i in range(4)]
    images = items.batch(np.arange(4))["image"].numpy()
    for i in range(4):
        np.testing.assert_array_equal(images[i], np.asarray(corpus.picture(i)).transpose(2, 0, 1))


def test_too_many_bad_files_stop_the_run(photos: Callable[..., Path]) -> None:
    folder = photos(per_class=5)
    (folder / "cat" / "broken.jpg").write_bytes(b"text")
    with pytest.raises(BadDataError, match=r"1 of 11 items .* \(9\.1%, allowed 1\.0%\): cat/broken\.jpg: not an image.* --max-bad"):
        open_data(folder)
    assert len(open_data(folder, max_bad=0.1)) == 10
    cut = folder / "dog" / "0.png"
    cut.write_bytes(cut.read_bytes()[:-200])  # its header is whole: only decoding can tell
    with pytest.raises(BadDataError, match=r"2 of 11 items .*dog/0.png"):
        open_data(folder, max_bad=0.1)


def test_nothing_to_use_is_an_error(tmp_path: Path, photos: Callable[..., Path]) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadDataError, match=r"nothing in .*empty can be used: no images"):
        open_data(tmp_path / "empty")
    (tmp_path / "empty" / "notes.txt").write_text("x")
    with pytest.raises(BadDataError, match=r"notes.txt: not an image: .txt"):
        open_data(tmp_path / "empty")
    (tmp_path / "empty" / "x.jpg").write_text("x")
    with pytest.raises(BadDataError, match=r"1 items found: .*x.jpg"):
        open_data(tmp_path / "empty", max_bad=1.0)
    with pytest.raises(BadDataError, match="nothing in array can be used"):
        open_data(np.zeros((0, 8, 8, 3), np.uint8))
    assert len(open_data(photos(("one",), 1))) == 1


def test_a_class_whose_files_are_all_bad_keeps_its_place(photos: Callable[..., Path]) -> None:
    folder = photos(("ant", "bee", "cow"), 1)
    (folder / "bee" / "0.png").write_bytes(b"")
    items = open_data(folder, max_bad=0.5)
    assert items.labels is not None
    assert [items.classes[label] for label in items.labels] == ["ant", "cow"]


WHY = {  # kind of archive -> why its bad member was refused
    "parent": "path leaves the archive",
    "deep-parent": "path leaves the archive",
    "backslash": "path leaves the archive",
    "absolute": "absolute path inside",
    "drive": "absolute path inside",
    "nul": "NUL byte",
    "link": "a link or device",
    "symlink": "a link or device",
    "hardlink": "a link or device",
    "device": "a link or device",
    "fifo": "a link or device",
    "bomb": "not an image",
    "liar": "length or checksum is wrong",
    "changed": "length or checksum is wrong",
}


def test_hostile_archives_write_nothing_and_run_nothing(tmp_path: Path, corpus) -> None:
    archives = [*corpus.make_hostile_zips(tmp_path), *corpus.make_hostile_tars(tmp_path)]
    assert len(archives) >= 15
    seen: list[tuple[str, object]] = []
    watching = True

    def watch(event: str, arguments: tuple) -> None:
        if watching and event in ("open", "os.symlink", "os.link", "os.mkdir", "os.rename", "subprocess.Popen", "os.exec", "os.system"):
            seen.append((event, arguments))

    sys.addaudithook(watch)  # can never be removed, hence the switch
    try:
        opened = [open_data(path, max_bad=1.0, cache=False) for path in archives]
    finally:
        watching = False
    for path, items in zip(archives, opened, strict=True):
        assert list(items.names) == ["good/0.png"], path.name
        assert [WHY[path.stem] in skipped.reason for skipped in items.skipped] == [True], (path.name, items.skipped)
        assert items.refused == 1
    for event, arguments in seen:
        assert event == "open", (event, arguments)
        name, mode, _ = arguments  # type: ignore[misc]
        assert mode in ("r", "rb", None), arguments
        assert isinstance(name, int) or "passwd" not in str(name), arguments


def test_a_tar_that_expands_without_reason_is_refused(tmp_path: Path) -> None:
    import gzip
    import tarfile

    header = tarfile.TarInfo("zeros.png")
    header.size = 1 << 40
    with gzip.open(tmp_path / "bomb.tar.gz", "wb") as file:
        file.write(header.tobuf())
    with pytest.raises(BadDataError, match="beyond what an archive of this size can hold"):
        open_data(tmp_path / "bomb.tar.gz")


def test_a_tar_damaged_in_the_middle_is_not_half_read_in_silence(tmp_path: Path, photos: Callable[..., Path]) -> None:
    import tarfile

    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(photos(), "photos")
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        at = archive.getmembers()[4].offset
    data[at : at + 512] = bytes([255]) * 512
    path.write_bytes(bytes(data))
    with pytest.raises(BadDataError, match=r"no header at byte|damaged after"):
        open_data(path)
    path.write_bytes(bytes(data[: at - 700]))  # cut within a member
    with pytest.raises(BadDataError, match="damaged after 2 images"):
        open_data(path)


def test_a_compressed_tar_cannot_be_streamed(tmp_path: Path, photos: Callable[..., Path]) -> None:
    import tarfile

    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        archive.add(photos(), "photos")
    with pytest.raises(ValueError, match="cannot be streamed: drop --no-cache"):
        open_data(tmp_path / "a.tgz", cache=False)
    assert len(open_data(tmp_path / "a.tgz")) == 6


def test_files_that_vanish_while_streaming_are_named(photos: Callable[..., Path]) -> None:
    folder = photos()
    cached, streamed = open_data(folder), open_data(folder, cache=False)
    (folder / "dog" / "1.png").unlink()
    assert cached.batch(np.arange(6))["image"].shape[0] == 6
    with pytest.raises(BadDataError, match=r"dog/1.png could be read when .* No such file"):
        streamed.batch(np.arange(6))
