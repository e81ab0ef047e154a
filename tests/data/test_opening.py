"""What open_data decides (size, channels, canvas), and what Items promises."""

import multiprocessing.reduction
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from selfsup.data import open_data


def write(folder: Path, sizes: list[tuple[int, int]], mode: str = "RGB") -> Path:
    folder.mkdir(exist_ok=True)
    for i, size in enumerate(sizes):  # (width, height)
        Image.new(mode, size, 255 if mode == "L" else (255, 255, 255)).save(folder / f"{i:02}.png")
    return folder


def test_image_size_is_the_median_short_side_up_to_largest(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", [(10, 90), (40, 30), (50, 50)])
    assert open_data(folder).image_size == 30
    assert open_data(folder, largest=20).image_size == 20
    assert open_data(folder, image_size=44).image_size == 44


def test_images_lie_top_left_on_a_canvas_that_fits_all(tmp_path: Path) -> None:
    items = open_data(write(tmp_path / "a", [(200, 100), (10, 20), (30, 96), (3000, 2)]), image_size=32)
    assert items.shape == (3, 48, 48)  # the longer side is at most 1.5 times 32
    batch = items.batch(np.arange(4))
    assert batch["size"].tolist() == [[24, 48], [20, 10], [48, 15], [1, 48]]
    assert batch["size"].dtype == torch.int64
    for image, (height, width) in zip(batch["image"], batch["size"].tolist(), strict=True):
        assert (image[:, :height, :width] == 255).all()
        assert image.sum() == 3 * height * width * 255, "the rest of the canvas is 0"


def test_pixels_are_kept_where_nothing_may_be_shrunk(tmp_path: Path) -> None:
    """The middle of larger images, upright, from files, arrays and the cache alike."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 42, 3), dtype=np.uint8)
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels).save(tmp_path / "a/0.png")
    exif = Image.Exif()
    exif[274] = 6  # stored lying on its side
    Image.fromarray(np.ascontiguousarray(np.rot90(pixels))).save(tmp_path / "a/1.png", exif=exif)
    Image.fromarray(pixels[:, :7]).save(tmp_path / "a/2.png")
    for cache in (True, False):
        items = open_data(tmp_path / "a", image_size=20, cache=cache, shrink=False)
        assert items.image_size == 20
        batch = items.batch(np.arange(3))
        assert batch["size"].tolist() == [[30, 30], [30, 30], [30, 7]]
        middle = pixels[15:45, 6:36].transpose(2, 0, 1)
        np.testing.assert_array_equal(batch["image"][0], middle)
        np.testing.assert_array_equal(batch["image"][1], middle)
        np.testing.assert_array_equal(batch["image"][2, :, :, :7], pixels[15:45, :7].transpose(2, 0, 1))
        [array] = open_data(pixels[None], image_size=20, cache=cache, shrink=False).batch(np.array([0]))["image"]
        np.testing.assert_array_equal(array, middle)
    shrunk, again = (open_data(tmp_path / "a", image_size=20, cache=cache).batch(np.arange(3)) for cache in (True, False))
    assert shrunk["size"].tolist() == [[30, 21], [30, 21], [30, 4]]
    assert torch.equal(shrunk["image"], again["image"]), "not what the cache has for the others"


def test_size_is_left_out_where_all_fill_the_canvas(tmp_path: Path) -> None:
    items = open_data(write(tmp_path / "a", [(120, 90), (80, 60)]), image_size=20)
    assert items.shape == (3, 22, 30)
    assert set(items.batch(np.array([0]))) == {"image", "index"}


def test_one_channel_only_where_every_image_is_grey(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", [(8, 8)] * 3, "L")
    assert open_data(folder).shape == (1, 8, 8)
    assert open_data(folder, channels=3).shape == (3, 8, 8)
    Image.new("RGB", (8, 8), (255, 0, 0)).save(folder / "red.png")
    assert open_data(folder).shape == (3, 8, 8)
    grey = open_data(folder, channels=1)
    assert grey.shape == (1, 8, 8)
    assert grey.batch(np.array([3]))["image"].unique().tolist() == [76]  # 0.299 * 255


def test_deep_images_share_one_range(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for i, top in enumerate((1000, 4000)):  # 12-bit values in 16-bit files
        Image.fromarray(np.full((8, 8), top, np.uint16)).save(tmp_path / "a" / f"{i}.png")
    items = open_data(tmp_path / "a")
    assert items.value_range == (0.0, 4095.0)
    assert items.batch(np.arange(2))["image"][:, 0, 0, 0].tolist() == [62, 249]
    dark = open_data(tmp_path / "a", value_range=(0.0, 65535.0))
    assert dark.batch(np.arange(2))["image"][:, 0, 0, 0].tolist() == [4, 16]


def test_items_by_number(photos: Callable[..., Path]) -> None:
    items = open_data(photos())
    batch = items.batch(np.array([4, 0, 4]))
    assert batch["index"].tolist() == [4, 0, 4]
    assert batch["label"].tolist() == [1, 0, 1]
    assert (batch["image"][0] == batch["image"][2]).all()
    batch["image"].zero_()  # a batch is a copy
    assert items.batch(np.array([4]))["image"].any()
    for wrong in ([6], [-1], [[0]]):
        with pytest.raises(ValueError, match=r"index must be 1-D within 0\.\.5"):
            items.batch(np.array(wrong))


@pytest.mark.parametrize("cache", [True, False])
def test_a_subset_is_data_of_its_own(photos: Callable[..., Path], cache: bool) -> None:
    folder = photos()
    (folder / "cat" / "1.png").write_bytes(b"bad")  # rows of the cache and numbers of the items differ from here on
    items = open_data(folder, max_bad=0.5, cache=cache)
    part = items.subset(np.array([4, 1, 2])).subset(np.array([0, 2]))
    assert (len(part), part.classes, list(part.names)) == (2, items.classes, ["dog/2.png", "dog/0.png"])
    assert part.labels is not None
    assert part.labels.tolist() == [1, 1]
    assert part.names[-1] == "dog/0.png"
    assert list(part.names[:1]) == ["dog/2.png"]
    with pytest.raises(IndexError, match="name 2 of 2"):
        part.names[2]
    batch = part.batch(np.array([1]))
    np.testing.assert_array_equal(batch["image"][0], np.asarray(Image.open(folder / "dog" / "0.png")).transpose(2, 0, 1))
    assert batch["index"].tolist() == [1]


def test_items_may_be_sent_to_another_process(photos: Callable[..., Path], tmp_path: Path) -> None:
    np.save(tmp_path / "large.npy", np.zeros((2000, 16, 16, 3), np.uint8))
    for data, options in [(photos(), {}), (photos(name="b"), {"cache": False}), (tmp_path / "large.npy", {})]:
        items = open_data(data, **options)
        sent = bytes(multiprocessing.reduction.ForkingPickler.dumps(items))
        assert len(sent) < 100_000, "pixels stay where they are"
        again = pickle.loads(sent)
        np.testing.assert_array_equal(again.batch(np.arange(5))["image"], items.batch(np.arange(5))["image"])
        assert list(again.names) == list(items.names)


def test_progress_is_told_and_ends_at_all(photos: Callable[..., Path]) -> None:
    calls: list[tuple[str, int, int]] = []
    open_data(photos(), progress=lambda *call: calls.append(call))
    assert calls == [("reading headers", 6, 6), ("decoding", 6, 6)]


def test_arguments_out_of_range_are_named(photos: Callable[..., Path]) -> None:
    folder = photos()
    for options, match in [
        ({"image_size": 0}, "image_size must be 1 or more, got 0"),
        ({"max_bad": 1.5}, "max_bad is a fraction, 0 to 1, got 1.5"),
        ({"workers": -1}, "workers must be 0 or more, got -1"),
        ({"value_range": (1.0, 1.0)}, "low < high"),
    ]:
        with pytest.raises(ValueError, match=match):
            open_data(folder, **options)


def test_memory_per_item_is_small(tmp_path: Path) -> None:
    import tracemalloc

    np.save(tmp_path / "x.npy", np.zeros((20_000, 4, 4, 1), np.uint8))
    open_data(tmp_path / "x.npy")  # imports
    tracemalloc.start()
    items = open_data(tmp_path / "x.npy")
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / len(items) < 60, f"{held / len(items):.0f} bytes for each item"
