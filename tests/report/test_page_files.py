"""What a run keeps for its page comes back as it was written, and what does not fit is refused."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from selfsup.report.page_files import load_sample, load_views, save_sample, save_views

THUMBNAILS = np.arange(3 * 4 * 5 * 3, dtype=np.uint8).reshape(3, 4, 5, 3)


def test_a_sample_comes_back(tmp_path: Path) -> None:
    z = np.random.default_rng(0).normal(size=(3, 7))
    path = save_sample(tmp_path, z, THUMBNAILS, np.array([1, -1, 0], dtype=np.int32), ["a/b.png", "ü\ud800", ""])
    assert path == tmp_path / "page" / "sample.npz"
    sample = load_sample(tmp_path)
    np.testing.assert_array_equal(sample.embeddings, z.astype(np.float32))
    np.testing.assert_array_equal(sample.thumbnails, THUMBNAILS)
    assert sample.labels.dtype == np.int64
    assert sample.labels.tolist() == [1, -1, 0]
    assert sample.names == ("a/b.png", "ü\ud800", "")
    assert [path.name for path in (tmp_path / "page").iterdir()] == ["sample.npz"]


@pytest.mark.parametrize("thumbnails", [None, np.zeros((3, 0, 0, 1), np.uint8)])
def test_vectors_have_no_pictures_and_may_have_no_labels(tmp_path: Path, thumbnails: np.ndarray | None) -> None:
    save_sample(tmp_path, np.ones((3, 2), np.float16), thumbnails, None, ["row 0", "row 1", "row 2"])
    sample = load_sample(tmp_path)
    assert sample.thumbnails is None
    assert sample.labels.tolist() == [-1, -1, -1]


def test_views_come_back_in_display_order_whatever_they_are_called(tmp_path: Path) -> None:
    names = ["second", "first", "file", "../../x", "<b>"]
    save_views(tmp_path, THUMBNAILS, {name: THUMBNAILS[:, :2] + i for i, name in enumerate(names, start=1)})
    views = load_views(tmp_path)
    assert list(views) == ["original", *names]
    np.testing.assert_array_equal(views["file"], THUMBNAILS[:, :2] + 3)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    z, names = np.ones((3, 2)), ["a", "b", "c"]
    with pytest.raises(ValueError, match=r"at most 2000 items, got 2001; draw"):
        save_sample(tmp_path, np.ones((2001, 1)), None, None, ["x"] * 2001)
    with pytest.raises(ValueError, match=r"\(M, width\) real numbers, got \(3,\)"):
        save_sample(tmp_path, np.ones(3), None, None, names)
    with pytest.raises(ValueError, match="expected 3 names, one for each embedding, got 2"):
        save_sample(tmp_path, z, None, None, names[:2])
    with pytest.raises(ValueError, match=r"labels must be \(3,\) integers like the embeddings, got \(3,\) float64"):
        save_sample(tmp_path, z, None, np.ones(3), names)
    with pytest.raises(ValueError, match=r"must be \(n, h, w, 1 or 3\) uint8, got \(3, 4, 5, 3\) float32"):
        save_sample(tmp_path, z, THUMBNAILS.astype(np.float32), None, names)
    with pytest.raises(ValueError, match="expected 3 images, got 2"):
        save_views(tmp_path, THUMBNAILS, {"first": THUMBNAILS[:2]})
    with pytest.raises(ValueError, match='"original" is the name of the unchanged images'):
        save_views(tmp_path, THUMBNAILS, {"original": THUMBNAILS})
    assert not (tmp_path / "page").exists()


def test_no_pickle_is_ever_opened(tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    np.savez(tmp_path / "page" / "sample.npz", embeddings=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"damaged: Object arrays cannot be loaded"):
        load_sample(tmp_path)


def test_a_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = save_sample(tmp_path, np.random.default_rng(0).normal(size=(3, 99)), None, None, ["a", "b", "c"])
    whole = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("embeddings.npy").header_offset + 300
    whole[start] ^= 1
    path.write_bytes(bytes(whole))
    with pytest.raises(ValueError, match="damaged"):
        load_sample(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_views(tmp_path)
