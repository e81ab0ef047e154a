"""Pictures one batch of a size after the other, each with its mask or truth beside it, changed and written as PNGs into a new folder.

Axes: B pictures in a batch, all of one size, C channels, H height, W width.
"""

import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from selfsup.data import Items, Skipped
from selfsup.engine.log import Progress
from selfsup.tasks.pretraining.page_data import pictures as eight_bits
from selfsup.tasks.saved.file_names import file_names, without_suffix
from selfsup.tasks.saved.trained_method import TrainedMethod
from selfsup.views.crops import clean as central_square

AT_ONCE = 2**18
"""Pixels in a batch; a larger picture is a batch of its own."""
WHOLE = 64_000_000
"""Side that no picture exceeds, since `open_data` refuses more pixels: nothing is shrunk."""
Numbers = np.ndarray
Change = Callable[[Tensor, Numbers], Tensor]
Scores = Callable[[Tensor, Tensor, Numbers], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Written:
    """What became of the pictures.

    Attributes:
        out: the folder.
        written: how many are in it.
        skipped: what was found in the data and left out, and why.
        renamed: name in the data -> name in the folder, where that is not the same name with .png.
        scores: means over the pictures that have a truth to compare with, of what was written, 8 bits and all; PSNR in dB.
    """

    out: Path
    written: int
    skipped: tuple[Skipped, ...]
    renamed: Mapping[str, str]
    scores: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        """All of it, as JSON can hold it; an infinite PSNR, of pictures without any error, as text."""
        return {
            "out": str(self.out),
            "written": self.written,
            "skipped": [[s.name, s.reason] for s in self.skipped],
            "renamed": dict(self.renamed),
            **{name: value if math.isfinite(value) else str(value) for name, value in self.scores.items()},
        }

    def __str__(self) -> str:
        text = f"{self.out}: {self.written} pictures"
        if self.skipped:
            text += f", {len(self.skipped)} skipped ({_first([f'{s.name}: {s.reason}' for s in self.skipped])})"
        if self.renamed:
            text += f", {len(self.renamed)} renamed ({_first([f'{a} -> {b}' for a, b in self.renamed.items()])})"
        names = dict.fromkeys(name.rpartition(" ")[0] for name in self.scores)
        return text + "".join(f", {name} {self.scores[name + ' before']:.4g} -> {self.scores[name + ' after']:.4g}" for name in names)


def open_pictures(trained: TrainedMethod, data: Any, max_bad: float, **settings: Any) -> Items:
    """The data as the method takes it, each picture at its own size where it can.

    Raises:
        ValueError: it holds no pictures.
        BadDataError: too many of them cannot be read.
    """
    if trained.method.any_size:
        settings["image_size"] = WHOLE
    items = trained.open(data, max_bad=max_bad, **settings)
    if items.kind != "image":
        raise ValueError(f"{items.source} holds vectors; expected pictures")
    return items


def _sizes(items: Items) -> np.ndarray:
    """(N, 2) height and width."""
    return np.broadcast_to(np.array(items.shape[1:], np.int32), (len(items), 2)) if items.sizes is None else items.sizes


def _groups(trained: TrainedMethod, items: Items) -> Iterator[Numbers]:
    """Numbers of all items, in batches of one size."""
    canvas = items.shape[1] * items.shape[2]
    rows = max(1, AT_ONCE // canvas)
    groups = [np.arange(len(items))]
    if trained.method.any_size:
        sizes = _sizes(items)
        order = np.lexsort((sizes[:, 1], sizes[:, 0]))
        groups = np.split(order, np.flatnonzero(np.diff(sizes[order], axis=0).any(axis=1)) + 1)
    for group in groups:
        yield from np.split(group, range(rows, len(group), rows))


def _take(trained: TrainedMethod, items: Items, index: Numbers) -> Float[Tensor, "B C H W"]:
    """Pictures of one size, in [0, 1]."""
    batch = items.batch(index)
    if not trained.method.any_size:
        return central_square(batch, trained.image_size)
    height, width = _sizes(items)[index[0]].tolist()
    return batch["image"][:, :, :height, :width].float() / 255


class Beside:
    """For each picture another one, of the same name and size, from other data; or one single for all.

    Raises:
        ValueError: a picture has none, or of another size.
    """

    def __init__(self, trained: TrainedMethod, items: Items, others: Items, what: str) -> None:
        self.trained, self.others = trained, others
        alone = len(others) == 1 and (what == "mask" or len(items) == 1)
        numbers = [0] * len(items) if alone else _by_name(items.names, others.names)
        if lost := [items.names[i] for i, number in enumerate(numbers) if number is None]:
            raise ValueError(f"{len(lost)} of {len(items)} pictures have no {what} of the same name in {others.source}: {_first(lost)}")
        self.numbers = np.array(numbers, np.int64)
        mine, its = _sizes(items), _sizes(others)[self.numbers]
        if len(wrong := np.flatnonzero((mine != its).any(axis=1))):
            i = int(wrong[0])
            sizes = [" x ".join(map(str, size[i].tolist())) for size in (its, mine)]
            raise ValueError(f"the {what} of {items.names[i]} is {sizes[0]} pixels, the picture {sizes[1]}; they must be of one size")

    def of(self, index: Numbers) -> Float[Tensor, "B C H W"]:
        """Those of some pictures."""
        return _take(self.trained, self.others, self.numbers[index])


def _by_name(names: Sequence[str], others: Sequence[str]) -> list[int | None]:
    """For each name the number of the same name among the others, or else of the only one that differs in nothing but its suffix."""
    exact = {name: i for i, name in enumerate(others)}
    stems: dict[str, int | None] = {}
    for i, name in enumerate(others):
        stem = without_suffix(name)
        stems[stem] = None if stem in stems else i
    return [exact.get(name, stems.get(without_suffix(name))) for name in names]


@torch.no_grad()
def write_all(trained: TrainedMethod, items: Items, out: Path, change: Change, compare: Scores | None, quiet: bool) -> Written:
    """Change every picture and write it; streams, so that memory does not grow with their number."""
    _check_folder(out)
    device = next((p.device for p in trained.method.parameters()), torch.device("cpu"))
    names, progress = file_names(items.names), Progress(quiet=quiet)
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    done = 0
    for index in _groups(trained, items):
        x = _take(trained, items, index).to(device)
        made = change(x, index)
        if len(bad := (~made.isfinite()).flatten(1).any(dim=1).nonzero()):
            name = items.names[int(index[int(bad[0])])]
            raise ValueError(f"what becomes of {name} holds NaN or infinity: the network has diverged, use an earlier checkpoint")
        if made.shape[1] not in (1, 3):
            raise ValueError(f"a PNG holds 1 or 3 channels, got {made.shape[1]}; from Python, load_method(run).method takes tensors")
        pixels = eight_bits(made)
        for i, picture in zip(index.tolist(), pixels, strict=True):
            _write(out / names[i], picture)
        if compare is not None:
            written = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device) / 255
            for name, values in compare(x, written, index).items():
                sums[name] = sums.get(name, 0.0) + float(values.sum())
                counts[name] = counts.get(name, 0) + len(values)
        done += len(index)
        if progress.due() or done == len(items):
            progress.note(f"pictures {done}/{len(items)}")
    progress.close()
    renamed = {name: path for name, path in zip(items.names, names, strict=True) if path != f"{without_suffix(name)}.png"}
    return Written(out, done, items.skipped, renamed, {name: total / counts[name] for name, total in sums.items()})


def _check_folder(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: not an empty folder; choose another --out, so that no picture of yours is overwritten")


def _write(path: Path, picture: np.ndarray) -> None:
    """(H, W, 1 or 3) uint8 -> PNG."""
    data = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(data, "PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.getvalue())


def _first(lines: Sequence[str], most: int = 3) -> str:
    return "; ".join(lines[:most]) + (f"; and {len(lines) - most} more" if len(lines) > most else "")
