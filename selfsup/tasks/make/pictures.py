"""`selfsup denoise`, `inpaint` and `colorize`: pictures in, as many PNGs out, in a new folder and under the same names.

A method that takes any size sees every picture at its own; for others it is the central square, resized to what they were trained on.

Axes: B pictures in a batch, all of one size, C channels, H height, W width.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from selfsup.abilities import Colorizes, Denoises, Inpaints
from selfsup.evaluation.image_quality import WINDOW, psnr, ssim
from selfsup.tasks.make.picture_files import Beside, Numbers, Written, open_pictures, write_all
from selfsup.tasks.pretraining.plan import choose_device
from selfsup.tasks.saved.trained_method import TrainedMethod, load_method


def denoise(
    run: str | Path | TrainedMethod,
    data: Any,
    *,
    out: str | Path,
    clean: Any = None,
    best: bool = False,
    device: str = "auto",
    max_bad: float = 0.01,
    quiet: bool = False,
) -> Written:
    """Take the noise from every picture.

    Args:
        run: of a method that denoises, or what `selfsup.tasks.saved.trained_method.load_method` gave.
        data: anything that `selfsup.pretrain` takes.
        out: a folder, new or empty.
        clean: the same pictures without noise, by the same names whatever their suffix; PSNR and SSIM before and after are then given.
        best: of a run, the best checkpoint by the label-free measure instead of the last.
        device: auto, cpu, cuda or cuda:N.
        max_bad: largest fraction of unreadable files, 0 to 1.
        quiet: no progress on stderr.

    Raises:
        ValueError: the method does not denoise, `out` is not empty, or a picture has no clean one of its size.
        BadDataError: too many unreadable files.
    """
    trained = _trained(run, Denoises, "denoise", best, device)
    items = open_pictures(trained, data, max_bad)
    truth = None if clean is None else Beside(trained, items, open_pictures(trained, clean, max_bad), "clean picture")

    def compare(x: Tensor, made: Tensor, index: Numbers) -> Mapping[str, Tensor]:
        right = truth.of(index).to(x.device) if truth else x
        found = {"PSNR before": psnr(x, right), "PSNR after": psnr(made, right)}
        if min(x.shape[2:]) >= WINDOW:
            found |= {"SSIM before": ssim(x, right), "SSIM after": ssim(made, right)}
        return found

    return write_all(trained, items, Path(out), lambda x, _: trained.method.denoise(x), compare if truth else None, quiet)  # type: ignore[attr-defined]


def inpaint(
    run: str | Path | TrainedMethod,
    data: Any,
    *,
    mask: Any,
    out: str | Path,
    best: bool = False,
    device: str = "auto",
    max_bad: float = 0.01,
    quiet: bool = False,
) -> Written:
    """Fill a region of every picture from what is around it. The method does not get to see what was there; the rest stays as it is.

    Args:
        run: of a method that fills regions, or what `selfsup.tasks.saved.trained_method.load_method` gave.
        data: anything that `selfsup.pretrain` takes.
        mask: what is hidden. "centre": the middle half of both sides; "random": a rectangle of a quarter to a half of each side, another
            for every picture, the same in every call; else pictures in which white is hidden, of the sizes of the data's: one for all, or
            one for each by the same name whatever its suffix. For the two words the truth is known, and the PSNR of the hidden pixels is
            given; the one before is that of the mean of the others.
        out: a folder, new or empty.
        best: of a run, the best checkpoint by the label-free measure instead of the last.
        device: auto, cpu, cuda or cuda:N.
        max_bad: largest fraction of unreadable files, 0 to 1.
        quiet: no progress on stderr.

    Raises:
        ValueError: the method does not fill regions, `out` is not empty, a picture has no mask of its size, or its mask hides nothing.
        BadDataError: too many unreadable files.
    """
    trained = _trained(run, Inpaints, "inpaint", best, device)
    items = open_pictures(trained, data, max_bad)
    drawn = isinstance(mask, str) and mask in ("centre", "random")
    masks = None if drawn else Beside(trained, items, open_pictures(trained, mask, max_bad, channels=1), "mask")

    def hidden(x: Tensor, index: Numbers) -> Bool[Tensor, "B 1 H W"]:
        if masks is None:
            return _centre(x) if mask == "centre" else _rectangles(x, index)
        white = masks.of(index).to(x.device)
        found = 2 * white > white.amax(dim=(1, 2, 3), keepdim=True)  # masks of 0 and 1 count as those of 0 and 255
        for i, any_hidden in zip(index, found.any(dim=(1, 2, 3)).tolist(), strict=True):
            if not any_hidden:
                raise ValueError(
                    f"the mask of {items.names[int(i)]} hides nothing; it must be white, or brighter, where a pixel is unknown"
                )
        return found

    def fill(x: Tensor, index: Numbers) -> Tensor:
        region = hidden(x, index)
        return torch.where(region, trained.method.inpaint(x.masked_fill(region, 0), region), x)  # type: ignore[attr-defined]

    def compare(x: Tensor, made: Tensor, index: Numbers) -> Mapping[str, Tensor]:
        region = hidden(x, index)
        mean = (x * ~region).sum(dim=(2, 3), keepdim=True) / (~region).sum(dim=(2, 3), keepdim=True)
        return {
            "PSNR of the hidden pixels before": psnr(mean.expand_as(x), x, region),
            "PSNR of the hidden pixels after": psnr(made, x, region),
        }

    return write_all(trained, items, Path(out), fill, compare if drawn else None, quiet)


def colorize(
    run: str | Path | TrainedMethod,
    data: Any,
    *,
    out: str | Path,
    best: bool = False,
    device: str = "auto",
    max_bad: float = 0.01,
    quiet: bool = False,
) -> Written:
    """Give every picture colours; of one that has some, only its gray values are used.

    Args:
        run: of a method that gives colours, or what `selfsup.tasks.saved.trained_method.load_method` gave.
        data: anything that `selfsup.pretrain` takes.
        out: a folder, new or empty.
        best: of a run, the best checkpoint by the label-free measure instead of the last.
        device: auto, cpu, cuda or cuda:N.
        max_bad: largest fraction of unreadable files, 0 to 1.
        quiet: no progress on stderr.

    Raises:
        ValueError: the method does not give colours, or `out` is not empty.
        BadDataError: too many unreadable files.
    """
    trained = _trained(run, Colorizes, "colorize", best, device)
    items = open_pictures(trained, data, max_bad, channels=1)
    return write_all(trained, items, Path(out), lambda x, _: trained.method.colorize(x), None, quiet)  # type: ignore[attr-defined]


def _trained(run: str | Path | TrainedMethod, ability: type, verb: str, best: bool, device: str) -> TrainedMethod:
    trained = run if isinstance(run, TrainedMethod) else load_method(run, best=best)
    if not trained.image_size:
        raise ValueError(f"{verb} is for pictures, and this run of {trained.config['method']} was on vectors")
    trained.require(ability, verb)
    trained.method.to(choose_device(device))
    return trained


def _centre(x: Tensor) -> Bool[Tensor, "B 1 H W"]:
    hidden = torch.zeros_like(x[:, :1], dtype=torch.bool)
    height, width = x.shape[2:]
    top, left = height // 4, width // 4
    hidden[:, :, top : top + max(1, height // 2), left : left + max(1, width // 2)] = True
    return hidden


def _rectangles(x: Tensor, index: Numbers) -> Bool[Tensor, "B 1 H W"]:
    hidden = torch.zeros_like(x[:, :1], dtype=torch.bool)
    for row, i in enumerate(index.tolist()):
        draw = np.random.default_rng(i)  # of the picture's number: no other picture has a part in it
        sides = [int(draw.integers(max(1, side // 4), max(1, side // 2), endpoint=True)) for side in x.shape[2:]]
        top, left = (int(draw.integers(0, side - length, endpoint=True)) for side, length in zip(x.shape[2:], sides, strict=True))
        hidden[row, 0, top : top + sides[0], left : left + sides[1]] = True
    return hidden
