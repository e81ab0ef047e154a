"""An entry is whole or absent: after races, kills, damage and full disks."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from selfsup.data import open_data
from selfsup.data.cache import cache_root, entry


def build(folder: Path) -> None:
    (folder / "data").write_bytes(b"x" * 100)


def never(_: Path) -> None:
    pytest.fail("it was built already")


def child(code: str, *arguments: object, **environment: str) -> subprocess.Popen:
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": path} | environment,
    )


def test_the_root_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_root(tmp_path / "own") == tmp_path / "own"
    monkeypatch.setenv("SELFSUP_CACHE_DIR", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_root() == Path("/a")
    monkeypatch.delenv("SELFSUP_CACHE_DIR")
    assert cache_root() == Path("/b/selfsup")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache" / "selfsup"


def test_an_entry_is_built_once(tmp_path: Path) -> None:
    folder = entry(tmp_path / "root", "key", build)
    assert (folder / "data").read_bytes() == b"x" * 100
    assert entry(tmp_path / "root", "key", never) == folder


@pytest.mark.parametrize("damage", ["cut", "longer", "flipped", "missing", "no contents", "contents"])
def test_a_damaged_entry_is_built_again(tmp_path: Path, damage: str) -> None:
    folder = entry(tmp_path, "key", build)
    data = folder / "data"
    if damage == "missing":
        data.unlink()
    elif damage == "no contents":
        (folder / "contents.json").unlink()
    elif damage == "contents":
        (folder / "contents.json").write_text('{"data": 3}')
    else:
        data.write_bytes({"cut": b"x" * 99, "longer": b"x" * 101, "flipped": b"x" * 50 + b"y" + b"x" * 49}[damage])
    assert (entry(tmp_path, "key", build) / "data").read_bytes() == b"x" * 100
    assert entry(tmp_path, "key", never) == folder
    assert sorted(path.name for path in folder.iterdir()) == ["contents.json", "data"]


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fails(folder: Path) -> None:
        build(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        entry(tmp_path, "key", fails)
    assert [path.name for path in tmp_path.iterdir()] == ["key.lock"]


BUILDER = """
import sys, time, pathlib
from selfsup.data.cache import entry
def build(folder):
    (folder / "data").write_bytes(sys.argv[2].encode() * 1000)
    print("building", flush=True)
    time.sleep(float(sys.argv[3]))
print((entry(pathlib.Path(sys.argv[1]), "key", build) / "data").read_bytes()[:1].decode(), flush=True)
"""


def test_two_processes_at_once_build_it_once(tmp_path: Path) -> None:
    processes = [child(BUILDER, tmp_path, name, 0.3) for name in "ab"]
    outputs = [process.communicate(timeout=60)[0].split() for process in processes]
    assert sorted(map(len, outputs)) == [1, 2], outputs  # one built, the other waited
    assert outputs[0][-1] == outputs[1][-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "key.lock"]


def test_a_killed_builder_leaves_nothing_for_long(tmp_path: Path) -> None:
    process = child(BUILDER, tmp_path, "a", 60)
    assert process.stdout is not None
    assert process.stdout.readline() == "building\n"
    assert len(list(tmp_path.glob("key.building-*"))) == 1
    entry(tmp_path, "other", build)
    assert len(list(tmp_path.glob("key.building-*"))) == 1, "its builder lives"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    entry(tmp_path, "another", build)
    assert list(tmp_path.glob("*.building-*")) == []


def test_a_full_disk_is_told_and_leaves_nothing(photos: Callable[..., Path], tmp_path: Path) -> None:
    folder = photos(per_class=30)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # the images need 103,680 bytes
    try:
        with pytest.raises(OSError, match=r"no space for the cache .*SELFSUP_CACHE_DIR.*--no-cache"):
            open_data(folder, cache_dir=tmp_path / "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path for path in (tmp_path / "full").iterdir() if path.suffix != ".lock" and "heads" not in path.name] == []
    assert len(open_data(folder, cache_dir=tmp_path / "full")) == 60
    with pytest.raises(OSError, match="no space for the cache"):
        entry(tmp_path, "huge", build, nbytes=1 << 60)


def test_a_root_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"the cache cannot be written: .*--no-cache"):
        entry(tmp_path / "file", "key", build)


def test_opening_again_reads_only_the_cache(photos: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = photos()
    first = open_data(folder)
    monkeypatch.setattr("selfsup.data.images.decode.pixels", lambda *_: pytest.fail("decoded again"))
    monkeypatch.setattr("selfsup.data.images.decode.head", lambda *_: pytest.fail("read again"))
    again = open_data(folder)
    np.testing.assert_array_equal(first.batch(np.arange(6))["image"], again.batch(np.arange(6))["image"])
    os.utime(folder / "cat" / "0.png", (1, time.time()))
    monkeypatch.undo()
    assert open_data(folder).fingerprint != first.fingerprint
