"""Every form of data gives the same items, classes and names; nothing is extracted, nothing is pickled."""

import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from selfsup.data import BadDataError, Items, open_data
from selfsup.data.images.sources import open_source


def pixels(items: Items) -> np.ndarray:
    return items.batch(np.arange(len(items)))["image"].numpy()


def zipped(folder: Path, path: Path, *, method: int = zipfile.ZIP_STORED, top: str = "") -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, top + file.relative_to(folder).as_posix())
    return path


def tarred(folder: Path, path: Path, mode: str) -> Path:
    with tarfile.open(path, mode) as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.add(file, file.relative_to(folder).as_posix())
    return path


def test_archives_equal_the_folder(photos: Callable[..., Path], tmp_path: Path) -> None:
    folder = photos()
    truth = open_data(folder)
    assert truth.classes == ("cat", "dog")
    assert truth.labels is not None
    assert truth.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert list(truth.names) == [f"{label}/{i}.png" for label in ("cat", "dog") for i in range(3)]
    expected = np.stack([np.asarray(Image.open(folder / name)).transpose(2, 0, 1) for name in truth.names])
    np.testing.assert_array_equal(pixels(truth), expected)
    others = [
        zipped(folder, tmp_path / "stored.zip"),
        zipped(folder, tmp_path / "deflated.zip", method=zipfile.ZIP_DEFLATED),
        tarred(folder, tmp_path / "plain.tar", "w"),
        tarred(folder, tmp_path / "a.tar.gz", "w:gz"),
        tarred(folder, tmp_path / "a.tar.bz2", "w:bz2"),
        tarred(folder, tmp_path / "a.tar.xz", "w:xz"),
    ]
    for path in others:
        items = open_data(path)
        np.testing.assert_array_equal(pixels(items), expected, str(path))
        assert (items.classes, list(items.names)) == (truth.classes, list(truth.names))
        np.testing.assert_array_equal(items.labels, truth.labels)
    listed = open_data([folder / "dog" / "1.png", str(folder / "cat" / "0.png")])
    np.testing.assert_array_equal(pixels(listed), expected[[4, 0]])
    assert listed.labels is not None
    assert listed.labels.tolist() == [1, 0]


def test_nesting_of_any_depth(photos: Callable[..., Path], tmp_path: Path) -> None:
    photos(("b/x/cat", "a/dog", "a/z/y/cat"), 1, "deep")
    items = open_data(tmp_path / "deep")
    assert items.classes == ("cat", "dog")
    assert list(items.names) == ["a/dog/0.png", "a/z/y/cat/0.png", "b/x/cat/0.png"]
    assert items.labels is not None
    assert items.labels.tolist() == [1, 0, 0]
    (tmp_path / "deep" / "loose.png").write_bytes((tmp_path / "deep" / "a" / "dog" / "0.png").read_bytes())
    again = open_data(tmp_path / "deep")
    assert again.labels is not None
    assert (again.names[0], again.labels[0]) == ("loose.png", -1)
    flat = open_data(tmp_path / "deep" / "a" / "dog")
    assert (flat.classes, flat.labels) == ((), None)
    assert "label" not in flat.batch(np.array([0]))


def test_a_folder_inside_an_archive(photos: Callable[..., Path], tmp_path: Path) -> None:
    folder = photos(("train/cat", "train/dog", "test/cat"), 2)
    for path in (zipped(folder, tmp_path / "all.zip", top="top/"), tarred(folder, tmp_path / "all.tar", "w")):
        train, test = open_data(path / "train"), open_data(f"{path}/test")
        assert (len(train), len(test)) == (4, 2)
        assert train.classes == ("cat", "dog")
        assert train.names[0] == "cat/0.png"
        assert train.fingerprint != test.fingerprint
        np.testing.assert_array_equal(pixels(test), pixels(open_data(folder / "test")))
        with pytest.raises(ValueError, match=r"no folder valid with images in .*there are: .*t"):
            open_data(path / "valid")
    with pytest.raises(ValueError, match=r"several folders .* end in cat"):
        open_data(tmp_path / "all.zip" / "cat")


def test_duplicate_names_are_two_items(tmp_path: Path, corpus) -> None:
    with tarfile.open(tmp_path / "twice.tar", "w") as archive:
        for seed in (0, 1):
            data = corpus.encoded(corpus.picture(seed), "PNG")
            info = tarfile.TarInfo("a.png")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    items = open_data(tmp_path / "twice.tar")
    assert list(items.names) == ["a.png", "a.png"]
    images = items.batch(np.arange(2))["image"]
    assert (images[0] != images[1]).any()


def test_parquet(photos: Callable[..., Path], tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    folder = photos()
    truth = open_data(folder)
    encoded = [(folder / name).read_bytes() for name in truth.names]
    structs = pa.array([{"bytes": data, "path": "x.png"} for data in encoded])
    for k, (images, labels) in enumerate([(pa.array(encoded), ["cat"] * 3 + ["dog"] * 3), (structs, [0, 0, 0, 1, 1, 1])]):
        table = pa.table({"image": images, "label": labels})
        info = b'{"info": {"features": {"label": {"names": ["cat", "dog"]}}}}'
        if k:
            table = table.replace_schema_metadata({b"huggingface": info})
        path = tmp_path / f"{k}.parquet"
        parquet.write_table(table, path, row_group_size=2)
        items = open_data(path)
        np.testing.assert_array_equal(pixels(items), pixels(truth))
        assert items.classes == ("cat", "dog")
        np.testing.assert_array_equal(items.labels, truth.labels)
        source = open_source(path)
        assert [source.read(i) for i in (5, 0, 3, 2, 4)] == [encoded[i] for i in (5, 0, 3, 2, 4)]
    shards = tmp_path / "shards"
    shards.mkdir()
    for k in range(2):
        parquet.write_table(pa.table({"image": encoded[3 * k : 3 * k + 3]}), shards / f"{k}.parquet")
    np.testing.assert_array_equal(pixels(open_data(shards)), pixels(truth))


def test_names_of_every_kind(photos: Callable[..., Path], tmp_path: Path) -> None:
    folder = os.fsencode(photos(("a",), 1) / "a")
    contents = Path(os.fsdecode(folder + b"/0.png")).read_bytes()
    names = [
        b"with space.png",
        b"new\nline.png",
        "\N{ROCKET}.png".encode(),
        b"\xff\xfe.png",
        b"n" * 251 + b".png",
        b"<b>&.png",
        b"$(id).png",
    ]
    for name in names:
        with open(folder + b"/" + name, "wb") as file:  # noqa: PTH123 bytes path
            file.write(contents)
    items = open_data(os.fsdecode(folder))
    assert len(items) == 8
    for name in items.names:
        name.encode()  # every name can be shown
    assert r"\xff\xfe.png" in list(items.names)
    with tarfile.open(tmp_path / "names.tar", "w") as archive:
        archive.add(os.fsdecode(folder), "a")
    assert sorted(name.removeprefix("a/") for name in open_data(tmp_path / "names.tar").names) == sorted(items.names)


def test_zip_names_in_old_and_wrong_encodings(tmp_path: Path, corpus) -> None:
    path = tmp_path / "old.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("AAAA.png", "BBBB.png", "CCCC.png"):
            archive.writestr(name, corpus.encoded(corpus.picture(), "PNG"))
    data = path.read_bytes().replace(b"AAAA", b"\x81\x82xx").replace(b"BBBB", "äé".encode())  # code page 437; UTF-8 that does not say so
    at = data.index(b"PK\1\2", data.index(b"CCCC", data.index(b"PK\1\2")) - 60)
    data = bytearray(data.replace(b"CCCC", b"\xff\xffyy"))
    struct.pack_into("<H", data, at + 8, 0x800)  # says that it is UTF-8, and is not
    path.write_bytes(bytes(data))
    assert list(open_data(path).names) == ["üéxx.png", "äé.png", r"\xff\xffyy.png"]


def test_large_zip_numbers_are_read(tmp_path: Path, corpus) -> None:
    path = tmp_path / "zip64.zip"
    with zipfile.ZipFile(path, "w") as archive, archive.open("a.png", "w", force_zip64=True) as member:
        member.write(corpus.encoded(corpus.picture(), "PNG"))
    plain = path.read_bytes()
    end = plain.rindex(b"PK\5\6")
    _, _, _, _, count, size, offset, _ = struct.unpack_from("<4s4H2IH", plain, end)
    record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset) + struct.pack(
        "<4sIQI", b"PK\6\7", 0, end, 1
    )
    path.write_bytes(plain[:end] + record + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0))
    assert list(open_data(path).names) == ["a.png"]
    path.write_bytes(b"#!/bin/sh\n" * 30 + plain)  # a self-extracting archive
    assert len(open_data(path)) == 1


def test_what_is_no_image_is_noted_but_not_bad(photos: Callable[..., Path], corpus) -> None:
    folder = photos()
    (folder / "captions.txt").write_text("a cat")
    (folder / "labels.csv").write_text("a,b")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "._0.png").write_bytes(b"x")
    (folder / "bird").mkdir()
    (folder / "jpeg-without-suffix").write_bytes(corpus.encoded(corpus.picture(9), "JPEG"))
    (folder / "cat" / "loop").symlink_to(folder)
    items = open_data(folder, max_bad=0.0)
    assert len(items) == 7
    assert items.classes == ("cat", "dog")
    assert {(s.name, s.reason) for s in items.skipped} == {
        ("captions.txt", "not an image: .txt"),
        ("labels.csv", "not an image: .csv"),
        ("bird/", "empty folder"),
        ("cat/loop/", "folder was visited already: a link that loops or repeats"),
        ("(hidden)", "2 hidden or system files"),
    }


def test_the_fingerprint_follows_the_data(photos: Callable[..., Path]) -> None:
    folder = photos()
    first = open_data(folder).fingerprint
    assert open_data(folder).fingerprint == first
    data = (folder / "cat" / "0.png").read_bytes()
    (folder / "cat" / "3.png").write_bytes(data)
    more = open_data(folder).fingerprint
    (folder / "cat" / "3.png").unlink()
    (folder / "cat" / "0.png").rename(folder / "cat" / "00.png")
    renamed = open_data(folder).fingerprint
    (folder / "cat" / "00.png").write_bytes(data[:-1] + b"\0")
    changed = open_data(folder).fingerprint
    assert len({first, more, renamed, changed}) == 4
    x = np.zeros((3, 4, 4, 1), np.uint8)
    assert open_data(x).fingerprint != open_data(x + np.uint8(1)).fingerprint


def bad_npy() -> bytes:
    out = io.BytesIO()
    np.save(out, np.array([[print, 1]], object), allow_pickle=True)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "contents", "error", "match"),
    [
        ("cut.zip", b"PK\3\4" + bytes(50), BadDataError, "no zip or was cut short"),
        ("empty.zip", b"PK\5\6" + bytes(18), BadDataError, "no images"),
        ("wrong.zip", b"PK\5\6" + struct.pack("<4H2IH", 0, 0, 9, 9, 50, 0, 0), BadDataError, "not a readable archive"),
        ("text.tar", b"no tar" * 200, BadDataError, "not a readable archive"),
        ("cut.tar.gz", b"\x1f\x8b\x08" + bytes(20), BadDataError, "not a readable archive"),
        ("cut.npy", b"\x93NUMPY\1\0", BadDataError, "not a readable .npy"),
        ("short.npy", b"", BadDataError, "not a readable .npy"),
        ("code.npy", bad_npy(), BadDataError, "could run code"),
        ("cut.npz", b"PK\3\4" + bytes(50), BadDataError, "not a readable .npz"),
        ("cut.parquet", b"PAR1" + bytes(50), BadDataError, "not readable parquet"),
        ("table.csv", b"a,b\n", BadDataError, "no rows that can be used"),
        ("table.xls", b"a,b\n", ValueError, "expected a folder, .zip"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, contents: bytes, error: type[Exception], match: str) -> None:
    (tmp_path / name).write_bytes(contents)
    with pytest.raises(error, match=match) as caught:
        open_data(tmp_path / name)
    assert name in str(caught.value)


def test_mistakes_are_named(tmp_path: Path, photos: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"there is no .*nowhere/photos.* exists, what follows does not"):
        open_data(tmp_path / "nowhere" / "photos")
    with pytest.raises(ValueError, match=r"\(N, C, H, W\); transpose it with \(0, 2, 3, 1\)"):
        open_data(np.zeros((10, 3, 32, 32), np.uint8))
    with pytest.raises(ValueError, match="permute it"):
        open_data(torch.zeros(10, 32, 32, 3))
    with pytest.raises(ValueError, match=r"expected real numbers .* got complex128"):
        open_data(np.zeros((10, 8, 8, 1), complex))
    with pytest.raises(ValueError, match="cannot read dict as data"):
        open_data({"x": 1})
    with pytest.raises(ValueError, match="got the folder"):
        open_data([photos()])
    with pytest.raises(ValueError, match="channels must be 1 or 3"):
        open_data(photos(name="more"), channels=4)
    with pytest.raises(ValueError, match="must be 1 or 3"):
        open_data(np.zeros((2, 8, 8, 3), np.uint8), channels=5)
    np.savez(tmp_path / "two.npz", a=np.zeros((2, 4)), b=np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r'one named "images"; got a \(2, 4\), b \(2, 4\)'):
        open_data(tmp_path / "two.npz")
