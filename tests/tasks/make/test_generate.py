"""What a trained method makes: arrays that are the method's own, pictures that can be measured, and clear refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import selfsup
from selfsup.cli import run as command
from selfsup.method import Encoder, Method
from selfsup.tasks.make.generate import FRAMES, generate, grid, walk
from selfsup.tasks.saved.trained_method import TrainedMethod

QUIET: dict[str, Any] = {"quiet": True, "device": "cpu"}


class Halves(Method):
    """Its code is the input itself; what it reconstructs is half as bright; its samples are noise."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder, self.shape = Encoder(), shape
        self.weight = nn.Parameter(torch.ones(()))

    def code(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def decode(self, z: Tensor) -> Tensor:
        return z.unflatten(1, self.shape)

    def reconstruct(self, x: Tensor) -> Tensor:
        assert not self.training
        return x / 2

    def sample(self, n: int) -> Tensor:
        return torch.rand(n, *self.shape)


class Reconstructs(Method):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()

    def reconstruct(self, x: Tensor) -> Tensor:
        return x


def trained(method: Method, channels: int, size: int) -> TrainedMethod:
    data = {"value_range": None}
    return TrainedMethod(method, {"method": "halves", "encoder": {"channels": channels, "image_size": size}, "data": data})


def images(n: int, channels: int = 3, size: int = 8) -> np.ndarray:
    shape = (n, size, size, channels) if channels > 1 else (n, size, size)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_arrays_are_what_the_method_makes(tmp_path: Path, channels: int) -> None:
    pixels = images(40, channels)
    found = generate(trained(Halves((channels, 8, 8)), channels, 8), pixels, out=tmp_path / "out", count=30, seed=3, **QUIET)
    pixels = pixels.reshape(40, 8, 8, channels)
    arrays = found.arrays
    assert {name: array.shape for name, array in arrays.items()} == {
        "samples": (30, 8, 8, channels),
        "interpolations": (3 * FRAMES, 8, 8, channels),
        "originals": (30, 8, 8, channels),
        "reconstructions": (30, 8, 8, channels),
    }
    assert all(array.dtype == np.uint8 for array in arrays.values())
    torch.manual_seed(3)
    assert (arrays["samples"] == (torch.rand(30, channels, 8, 8) * 255).round().permute(0, 2, 3, 1).numpy()).all()

    chosen = [int(name.removeprefix("row ")) for name in found.about["reconstructions"]["items"]]
    assert len(set(chosen)) == 30
    assert (arrays["originals"] == pixels[chosen]).all()
    half = pixels[chosen] / 510
    assert np.abs(arrays["reconstructions"] - 255 * half).max() <= 0.5
    assert found.about["reconstructions"]["mean_squared_error"] == pytest.approx((half**2).mean(), rel=1e-5)

    for row, ends in zip(arrays["interpolations"].reshape(3, FRAMES, 8, 8, channels), found.about["interpolations"]["rows"], strict=True):
        start, end = (pixels[int(name.removeprefix("row "))].astype(np.float64) for name in ends)
        assert ends[0] != ends[1]
        for i, frame in enumerate(row):
            assert np.abs(frame - (start + i / (FRAMES - 1) * (end - start))).max() <= 0.51

    for name, array in arrays.items():
        assert (np.load(tmp_path / f"out/{name}.npy", allow_pickle=False) == array).all()
    assert json.loads((tmp_path / "out/generated.json").read_text()) == found.about
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"samples.png", "interpolations.png", "reconstructions.png"}


def test_the_same_seed_makes_the_same_and_touches_nothing() -> None:
    method = trained(Halves((3, 8, 8)), 3, 8)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first, again, other = (generate(method, images(20), count=8, seed=seed, **QUIET).arrays for seed in (0, 0, 1))
    assert torch.random.get_rng_state().equal(state)
    for name, array in first.items():
        assert (array == again[name]).all()
        assert (array != other[name]).any()
    alone = generate(method, what=["samples"], count=8, seed=0, **QUIET).arrays
    assert (alone["samples"] == first["samples"]).all()


def test_parts_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    method = trained(Halves((3, 8, 8)), 3, 8)
    whole = generate(method, images(40), count=37, what=["interpolations", "reconstructions"], **QUIET)
    monkeypatch.setattr("selfsup.tasks.make.generate.PART", 16)
    parts = generate(method, images(40), count=37, **QUIET)
    assert len(parts.arrays["samples"]) == 37
    error, expected = (found.about["reconstructions"]["mean_squared_error"] for found in (parts, whole))
    assert error == pytest.approx(expected)
    assert all((parts.arrays[name] == array).all() for name, array in whole.arrays.items())


def test_vectors_stay_in_their_units(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(50, 20, (10, 4)).astype(np.float32)
    found = generate(trained(Halves((4,)), 4, 0), rows, out=tmp_path / "out", count=64, **QUIET)
    assert found.arrays["samples"].shape == (64, 4)
    assert found.arrays["originals"].shape == (10, 4)  # there are no more
    assert found.arrays["interpolations"].shape == (5 * FRAMES, 4)
    assert found.arrays["reconstructions"] == pytest.approx(found.arrays["originals"] / 2)
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".json", *[".npy"] * 4]


def test_a_walk_is_straight_and_ends_at_both_items() -> None:
    start, end = torch.rand(2, 3, 1, 4, 4)
    frames = walk(Halves((1, 4, 4)), start, end, 5)
    torch.testing.assert_close(frames[:, 0], start)
    torch.testing.assert_close(frames[:, 1], 0.75 * start + 0.25 * end)
    torch.testing.assert_close(frames[:, 4], end)


def test_a_grid_keeps_every_pixel_and_leaves_margins() -> None:
    cells = [images(1, 3, 28)[0], np.zeros((28, 28, 1), np.uint8), images(1, 5, 28)[0]]
    picture = np.asarray(grid([[cells[0], None, cells[1]], [cells[2]]]))
    side = 2 * 28  # 64 pixels have room for two
    places = {(0, 0): cells[0], (0, 1): cells[1], (1, 0): cells[2]}
    seen = np.zeros(picture.shape[:2], bool)
    top, left = (8, 8 + side + 2), (8, 8 + side + 2 + 6)
    for (i, j), cell in places.items():
        block = picture[top[i] : top[i] + side, left[j] : left[j] + side]
        assert (block[::2, ::2] == block[1::2, 1::2]).all()
        assert (block[::2, ::2] == (cell if cell.shape[2] == 3 else cell[:, :, :1])).all()
        seen[top[i] : top[i] + side, left[j] : left[j] + side] = True
    assert (picture[~seen] == 255).all()
    assert picture.shape == (2 * side + 2 + 16, 2 * side + 8 + 16, 3)
    assert grid([[np.zeros((200, 100, 1), np.uint8)]]).size == (116, 216)  # large ones as they are


def test_what_cannot_be_made_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    able = trained(Halves((3, 8, 8)), 3, 8)
    found = generate(able, count=4, device="cpu")
    assert list(found.arrays) == ["samples"]
    assert set(found.about["not_made"]) == {"interpolations", "reconstructions"}
    assert "interpolations: not made, it needs items" in capsys.readouterr().err
    mirror = trained(Reconstructs(), 3, 8)
    assert list(generate(mirror, images(4), **QUIET).arrays) == ["originals", "reconstructions"]
    for method, data, settings, said in (
        (able, None, {"what": ["reconstructions"]}, "reconstructions need items to start from"),
        (able, images(1), {"what": ["interpolations"]}, "has 1"),
        (able, None, {"count": 0}, "--count must be a positive"),
        (able, None, {"what": ["songs"]}, 'got "songs"'),
        (mirror, None, {}, "can make reconstructions only, of items"),
        (mirror, images(4), {"what": ["samples"]}, "a run of halves cannot make samples; runs of these methods can: .*gan"),
        (mirror, images(4), {"what": ["interpolations"]}, "a run of halves cannot interpolate"),
    ):
        with pytest.raises(ValueError, match=said):
            generate(method, data, **settings, **QUIET)
    (tmp_path / "x").touch()
    with pytest.raises(ValueError, match="not empty; choose another --out"):
        generate(able, out=tmp_path, **QUIET)


def test_a_run_of_gan_makes_images_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = selfsup.pretrain(images(20, 1, 16), "gan", out=tmp_path / "run", batch_size=10, steps=1, quiet=True).path
    out = tmp_path / "made"
    assert command(["generate", str(run), "--out", str(out), "--count", "10", "--seed", "7"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"samples          10 of 16 x 16 x 1: {out / 'samples.npy'}, {out / 'samples.png'}\n"
    with Image.open(out / "samples.png") as picture:
        assert picture.size == (16 + 4 * 66 - 2, 16 + 3 * 66 - 2)  # 4 x 4 x the pixels of each, 3 rows of at most 4
    samples = np.load(out / "samples.npy", allow_pickle=False)
    assert samples.std() > 0
    assert command(["generate", str(run), str(tmp_path), "--out", str(out), "--what", "reconstructions"]) == 2
    said = capsys.readouterr().err
    assert "a run of gan cannot reconstruct" in said
    assert said.count("\n") == 1
