"""Pictures in, pictures out: their names, sizes and pixels, what is said of them, and nothing outside of the folder."""

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import selfsup
from selfsup.cli import run as command
from selfsup.data import open_data
from selfsup.method import Method
from selfsup.tasks.make.pictures import colorize, denoise, inpaint
from selfsup.tasks.saved.file_names import file_names
from selfsup.tasks.saved.trained_method import TrainedMethod


class Darker(Method):
    """Stands for a method: takes 10 of 255 from every pixel, fills with white, and gives a red tint."""

    any_size: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def denoise(self, x: Tensor) -> Tensor:
        self.seen.append(tuple(x.shape))
        return x - 10 / 255

    def inpaint(self, x: Tensor, hidden: Tensor) -> Tensor:
        assert not (x * hidden).any(), "it was shown what is hidden"
        return torch.ones_like(x)

    def colorize(self, gray: Tensor) -> Tensor:
        return torch.cat([gray, gray / 2, gray / 2], dim=1)


class Square(Darker):
    any_size: ClassVar[bool] = False


def trained(method: type[Darker] = Darker, channels: int = 3, image_size: int = 8) -> TrainedMethod:
    config = {"method": "darker", "encoder": {"name": "own", "channels": channels, "image_size": image_size}, "data": {"value_range": None}}
    return TrainedMethod(method(), config)


def save(path: Path, size: tuple[int, int], seed: int = 0, low: int = 20) -> np.ndarray:
    """Writes a picture; (height, width)."""
    pixels = np.random.default_rng(seed).integers(low, 256, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture)


def files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_every_picture_at_its_own_size_under_its_own_name(tmp_path: Path) -> None:
    sizes = {"cat/a.png": (33, 47), "cat/b.bmp": (5, 70), "dog/a.png": (33, 47), "top.png": (90, 12)}
    pixels = {name: save(tmp_path / "in" / name, size, i) for i, (name, size) in enumerate(sizes.items())}
    (tmp_path / "in/notes.txt").write_text("none")
    run = trained()
    done = denoise(run, str(tmp_path / "in"), out=tmp_path / "out", quiet=True)
    assert files(tmp_path / "out") == ["cat/a.png", "cat/b.png", "dog/a.png", "top.png"]
    for name, before in pixels.items():
        np.testing.assert_array_equal(read((tmp_path / "out" / name).with_suffix(".png")), before - 10)
    assert sorted(run.method.seen) == [(1, 3, 5, 70), (1, 3, 90, 12), (2, 3, 33, 47)]  # equal ones together
    assert (done.written, done.renamed, done.scores) == (4, {}, {})
    assert str(done) == f"{tmp_path / 'out'}: 4 pictures, 1 skipped (notes.txt: not an image: .txt)"


def test_methods_of_one_size_get_the_central_square(tmp_path: Path) -> None:
    pixels = save(tmp_path / "in/a.png", (8, 12))
    save(tmp_path / "in/b.png", (64, 16))
    denoise(trained(Square), str(tmp_path / "in"), out=tmp_path / "out", quiet=True)
    np.testing.assert_array_equal(read(tmp_path / "out/a.png"), pixels[:, 2:10] - 10)
    assert read(tmp_path / "out/b.png").shape == (8, 8, 3)


def test_arrays_of_gray_pictures(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(20, 256, (3, 9, 6), dtype=np.uint8)
    denoise(trained(channels=1), images, out=tmp_path / "out", quiet=True)
    assert files(tmp_path / "out") == ["row 0.png", "row 1.png", "row 2.png"]
    np.testing.assert_array_equal(read(tmp_path / "out/row 2.png"), images[2] - 10)


def test_large_data_goes_through_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfsup.tasks.make.picture_files.AT_ONCE", 2 * 9 * 6)
    images = np.random.default_rng(0).integers(20, 256, (5, 9, 6), dtype=np.uint8)
    for method in (Darker, Square):
        run = trained(method, channels=1, image_size=6)
        denoise(run, images, out=tmp_path / method.__name__, quiet=True)
        assert max(shape[0] for shape in run.method.seen) == 2
        assert len(files(tmp_path / method.__name__)) == 5


def test_names_stay_inside_and_differ() -> None:
    names = [
        "a.jpg",
        "a.png",
        "A.PNG",
        "a-2.jpg",
        "b.tar.gz",
        "../../up.png",
        "/etc/abs.png",
        "c/./../d.jpeg",
        "..",
        "x\0y\\z.png",
        "e.png/f.png",
        "e.jpg",
    ]
    found = file_names(names)
    assert found[:5] == ["a.png", "a-2.png", "A-3.png", "a-2-2.png", "b.tar.gz.png"]
    assert found[5:9] == ["up.png", "etc/abs.png", "c/d.png", "picture.png"]
    assert found[9:] == ["x_y_z.png", "e.png/f.png", "e-2.png"]  # e.png is a folder
    assert len({name.casefold() for name in found}) == len(names)
    for name in file_names(["é" * 300 + ".png", "a" * 300, "a" * 301]):
        assert len(name.encode()) < 255
    assert len(set(file_names(["same"] * 1000))) == 1000


def test_pictures_of_one_name_are_all_written_and_named(tmp_path: Path) -> None:
    save(tmp_path / "in/a.png", (4, 4), 1)
    other = save(tmp_path / "in/a.bmp", (4, 4), 2)
    done = denoise(trained(), str(tmp_path / "in"), out=tmp_path / "out", quiet=True)
    assert files(tmp_path / "out") == ["a-2.png", "a.png"]
    [[name, renamed]] = done.renamed.items()
    assert f"1 renamed ({name} -> {renamed})" in str(done)
    np.testing.assert_array_equal(read(tmp_path / "out" / (renamed if name == "a.bmp" else "a.png")), other - 10)


def test_what_denoising_gained_is_measured_on_what_was_written(tmp_path: Path) -> None:
    for i, (noisy, clean, size) in enumerate([("x.png", "x.bmp", (12, 20)), ("y/x.png", "y/x.png", (30, 30))]):
        pixels = save(tmp_path / "noisy" / noisy, size, i, low=40)
        (tmp_path / "clean" / clean).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels - (20 if i else 11)).save(tmp_path / "clean" / clean)
    save(tmp_path / "clean/unused.png", (5, 5))
    done = denoise(trained(), str(tmp_path / "noisy"), out=tmp_path / "out", clean=str(tmp_path / "clean"), quiet=True)
    decibels = {error: -20 * np.log10(error / 255) for error in (1, 10, 11, 20)}
    assert done.scores["PSNR before"] == pytest.approx((decibels[11] + decibels[20]) / 2)
    assert done.scores["PSNR after"] == pytest.approx((decibels[1] + decibels[10]) / 2, abs=1e-4)
    assert done.scores["SSIM before"] < done.scores["SSIM after"] < 1
    assert "PSNR 24.7" in str(done)
    assert json.loads(json.dumps(done.as_json()))["PSNR after"] == done.scores["PSNR after"]


def test_a_perfect_picture_can_be_said_in_json(tmp_path: Path) -> None:
    pixels = save(tmp_path / "a.png", (12, 12))
    Image.fromarray(pixels - 10).save(tmp_path / "b.png")
    done = denoise(trained(), str(tmp_path / "a.png"), out=tmp_path / "out", clean=str(tmp_path / "b.png"), quiet=True)
    assert done.scores["PSNR after"] == float("inf")
    assert done.as_json()["PSNR after"] == "inf"


@pytest.mark.parametrize("mask", ["centre", "random"])
def test_drawn_masks_hide_their_region_and_nothing_else_changes(mask: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = [save(tmp_path / f"in/{i}.png", (16, 24), i, low=0) // 2 for i in range(3)]
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / f"in/{i}.png")
    done = inpaint(trained(), str(tmp_path / "in"), mask=mask, out=tmp_path / "out", quiet=True)
    regions = []
    for i, before in enumerate(pixels):
        after = read(tmp_path / f"out/{i}.png")
        changed = (after == 255).all(axis=2)
        np.testing.assert_array_equal(after[~changed], before[~changed])
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all(), "one rectangle"
        assert 4 <= len(rows) <= 8
        assert 6 <= len(columns) <= 12
        regions.append((rows[0], rows[-1], columns[0], columns[-1]))
    assert regions[0] == (4, 11, 6, 17) if mask == "centre" else len(set(regions)) == 3
    error = np.mean(
        [10 * np.log10(255**2 / np.mean((255.0 - p[r[0] : r[1] + 1, r[2] : r[3] + 1]) ** 2)) for p, r in zip(pixels, regions, strict=True)]
    )
    assert done.scores["PSNR of the hidden pixels after"] == pytest.approx(error, abs=1e-3)
    assert done.scores["PSNR of the hidden pixels before"] > error  # a mean is nearer than white
    monkeypatch.setattr("selfsup.tasks.make.picture_files.AT_ONCE", 16 * 24)  # whatever else is in the batch
    again = inpaint(trained(), str(tmp_path / "in"), mask=mask, out=tmp_path / "again", quiet=True)
    assert again.scores == pytest.approx(done.scores)


@pytest.mark.parametrize("white", [1, 255])
def test_masks_from_files(white: int, tmp_path: Path) -> None:
    pixels = save(tmp_path / "in/a.png", (6, 9))
    region = np.zeros((6, 9), np.uint8)
    region[2:4, 5:] = white
    Image.fromarray(region).save(tmp_path / "mask.png")
    (tmp_path / "masks").mkdir()
    Image.fromarray(region).save(tmp_path / "masks/a.bmp")
    for mask in ("mask.png", "masks"):
        done = inpaint(trained(), str(tmp_path / "in"), mask=str(tmp_path / mask), out=tmp_path / f"out-{mask}", quiet=True)
        assert not done.scores  # the picture may never have had anything there
        after = read(tmp_path / f"out-{mask}/a.png")
        np.testing.assert_array_equal((after == 255).all(axis=2), (region > 0) | (pixels == 255).all(axis=2))
        np.testing.assert_array_equal(after[region == 0], pixels[region == 0])


def test_colours_come_from_gray_values_alone(tmp_path: Path) -> None:
    pixels = save(tmp_path / "in/a.png", (6, 9))
    colorize(trained(), str(tmp_path / "in"), out=tmp_path / "out", quiet=True)
    after = read(tmp_path / "out/a.png").astype(int)
    gray = pixels @ np.array([0.299, 0.587, 0.114])
    assert np.abs(after[..., 0] - gray).max() <= 1
    assert np.abs(after[..., 1] - gray / 2).max() <= 1


def test_mistakes_are_named(tmp_path: Path) -> None:
    for name, size in (
        ("in/a.png", (8, 8)),
        ("in/b.png", (8, 8)),
        ("clean/a.png", (8, 8)),
        ("sizes/a.png", (8, 8)),
        ("sizes/b.png", (8, 9)),
    ):
        save(tmp_path / name, size)
    Image.new("L", (8, 8)).save(tmp_path / "black.png")
    data, out = str(tmp_path / "in"), tmp_path / "out"
    with pytest.raises(ValueError, match=r"not an empty folder; choose another --out"):
        denoise(trained(), data, out=data)
    with pytest.raises(ValueError, match=r"1 of 2 pictures have no clean picture of the same name in .*clean: b.png"):
        denoise(trained(), data, out=out, clean=str(tmp_path / "clean"))
    with pytest.raises(ValueError, match=r"the clean picture of b.png is 8 x 9 pixels, the picture 8 x 8"):
        denoise(trained(), data, out=out, clean=str(tmp_path / "sizes"))
    with pytest.raises(ValueError, match=r"the mask of a.png hides nothing"):
        inpaint(trained(), data, out=out, mask=str(tmp_path / "black.png"))
    with pytest.raises(ValueError, match=r"a PNG holds 1 or 3 channels, got 5"):
        denoise(trained(channels=5), np.zeros((2, 4, 4, 5), np.uint8), out=out)
    with pytest.raises(ValueError, match="was on vectors"):
        denoise(trained(image_size=0), data, out=out)
    with pytest.raises(ValueError, match="holds vectors; expected pictures"):
        denoise(trained(), np.zeros((4, 5), np.float32), out=out)

    class Broken(Darker):
        def denoise(self, x: Tensor) -> Tensor:
            return x / 0 if x.shape[0] else x

    with pytest.raises(ValueError, match=r"what becomes of a.png holds NaN or infinity"):
        denoise(trained(Broken), data, out=out, quiet=True)
    assert not out.exists() or not files(out)


def test_a_real_run_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trained on pixels as they are; statuses and the summary are those of the other verbs."""
    for i in range(4):
        save(tmp_path / f"in/{i}.png", (40, 24 + i), i)
    out = tmp_path / "run"
    selfsup.pretrain(str(tmp_path / "in"), "neighbor2neighbor", out=out, steps=2, batch_size=2, image_size=16, quiet=True)
    settings = json.loads((out / "config.json").read_text())["data"]["settings"]
    assert settings["shrink"] is False
    selfsup.pretrain(resume=out, quiet=True)  # opens the data in the same way
    clean = ["--clean", str(tmp_path / "in"), "--quiet"]
    assert command(["denoise", str(out), str(tmp_path / "in"), "--out", str(tmp_path / "new"), *clean]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{tmp_path / 'new'}: 4 pictures, PSNR inf -> ")
    assert read(tmp_path / "new/3.png").shape == (40, 27, 3)
    assert command(["denoise", str(out), str(tmp_path / "in"), "--out", str(tmp_path / "json"), "--json", *clean]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == 4
    assert command(["inpaint", str(out), str(tmp_path / "in"), "--mask", "centre", "--out", str(tmp_path / "x")]) == 2
    assert "a run of neighbor2neighbor cannot inpaint" in capsys.readouterr().err
    assert command(["colorize", str(out), str(tmp_path / "in"), "--out", str(tmp_path / "x")]) == 2
    assert "cannot colorize" in capsys.readouterr().err
    (tmp_path / "in/broken.png").write_bytes((tmp_path / "in/0.png").read_bytes()[:100])
    assert command(["denoise", str(out), str(tmp_path / "in"), "--out", str(tmp_path / "x")]) == 3
    assert command(["denoise", str(out), str(tmp_path / "in"), "--out", str(tmp_path / "x"), "--max-bad", "0.5"]) == 0
    assert "1 skipped (broken.png: " in capsys.readouterr().out
    assert not open_data(str(tmp_path / "x")).skipped
