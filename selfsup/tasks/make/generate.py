"""`selfsup generate`: samples, walks between two items, and reconstructions of a trained method, as pictures and as arrays.

Axes: N items, n rows of frames, C channels, H and W of an image, D length of a vector.
"""

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from selfsup.abilities import Decodes, Reconstructs, Samples
from selfsup.data import Items
from selfsup.engine.checkpoint import replace_file
from selfsup.engine.log import Progress
from selfsup.tasks.pretraining.plan import check_numbers, choose_device
from selfsup.tasks.pretraining.run_folders import empty_folder
from selfsup.tasks.saved.trained_method import TrainedMethod, load_method, methods_with
from selfsup.views.crops import clean

ABILITIES: dict[str, type] = {"samples": Samples, "interpolations": Decodes, "reconstructions": Reconstructs}
VERBS = {"samples": "make samples", "interpolations": "interpolate", "reconstructions": "reconstruct"}
FRAMES = 8  # of a walk between two items, both ends included
PART = 256  # items at a time
DRAWN = 256  # images in a picture at most
SHORT, GAP, MARGIN = 64, 2, 8  # pixels: smaller images are enlarged to at most SHORT; GAP is between images, MARGIN around them


@dataclass(frozen=True)
class Generated:
    """What `generate` has made.

    Attributes:
        arrays: by name, "samples" and so on: (N, H, W, C) uint8 images, or (N, D) float32 vectors in the units of the data. Interpolations
            are row after row of 8 frames; reconstructions are of "originals", one by one.
        about: method, seed and count; of interpolations the names of both ends of each row, of reconstructions the names of the items and
            their mean squared error, in units of the input (images from 0 to 1); and "not_made": what was left out and why.
    """

    arrays: Mapping[str, np.ndarray]
    about: Mapping[str, Any]


@torch.no_grad()
def generate(
    run: str | Path | TrainedMethod,
    data: Any = None,
    *,
    out: str | Path | None = None,
    what: Sequence[str] | None = None,
    count: int = 64,
    seed: int = 0,
    best: bool = False,
    max_bad: float = 0.01,
    device: str = "auto",
    quiet: bool = False,
) -> Generated:
    """Let a trained method make things, from noise or from the data's items.

    Samples are from noise. Interpolations walk from one item to another in equal steps along a straight line between their codes.
    Reconstructions are what the method's code keeps of items.

    Args:
        run: a run's folder, or what `load_method` gave.
        data: items to interpolate between and to reconstruct, as pretrain takes them; drawn at random by the seed.
        out: an empty or new folder for NAME.npy of each array, NAME.png where they are images, and generated.json.
        what: of samples, interpolations and reconstructions; all that the method can when not given, without data only samples.
        count: samples, items to reconstruct, and frames of interpolations (8 a row); fewer items where the data has fewer.
        seed: of the noise and the items.
        best: the checkpoint with the best label-free measure instead of the last.
        max_bad: largest fraction of unreadable files, 0 to 1.
        device: auto, cpu, cuda or cuda:N.
        quiet: nothing on stderr.

    Raises:
        ValueError: the method cannot do what is asked, data are missing or do not fit, `out` is not empty.
    """
    check_numbers({"count": count})
    unknown = [name for name in what or () if name not in ABILITIES]
    if unknown:
        raise ValueError(f'generate makes {", ".join(ABILITIES)}; got "{unknown[0]}"')
    trained = run if isinstance(run, TrainedMethod) else load_method(run, best=best)
    kinds, not_made = _kinds(trained, what, data is not None)
    items = None if data is None else trained.open(data, max_bad=max_bad)
    folder = None if out is None else empty_folder(out)
    where, progress = choose_device(device), Progress(quiet=quiet)
    maker = _Maker(trained.method.to(where), trained.image_size, items, count, seed, where)
    arrays: dict[str, np.ndarray] = {}
    about: dict[str, Any] = {"method": trained.config["method"], "seed": seed, "count": count}
    for kind in kinds:
        progress.note(kind)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made, said = getattr(maker, kind)()
        arrays |= made
        about[kind] = said
    trained.method.cpu()
    progress.close()
    for kind, why in not_made.items():
        progress.say(f"{kind}: not made, {why}")
    found = Generated(arrays, {**about, "not_made": not_made})
    if folder is not None:
        _write(folder, found, maker.ends)
    return found


def _kinds(trained: TrainedMethod, what: Sequence[str] | None, has_data: bool) -> tuple[list[str], dict[str, str]]:
    """What to make; and, where the user asked for nothing in particular, what the method could make but for the data."""
    needs = {kind for kind in ABILITIES if kind != "samples" and not has_data}
    if what:
        for kind in what:
            trained.require(ABILITIES[kind], VERBS[kind])
            if kind in needs:
                raise ValueError(f"{kind} need items to start from: selfsup generate RUN DATA")
        return list(dict.fromkeys(what)), {}
    can = [kind for kind, ability in ABILITIES.items() if isinstance(trained.method, ability)]
    if not can:
        able = sorted({method for ability in ABILITIES.values() for method in methods_with(ability)})
        raise ValueError(f"a run of {trained.config['method']} cannot generate anything; runs of these methods can: {', '.join(able)}")
    kinds = [kind for kind in can if kind not in needs]
    if not kinds:
        raise ValueError(f"a run of {trained.config['method']} can make {' and '.join(can)} only, of items: selfsup generate RUN DATA")
    return kinds, {kind: "it needs items to start from: selfsup generate RUN DATA" for kind in can if kind in needs}


@dataclass
class _Maker:
    """Each kind is a method of its own, which gives arrays by name and what is said of them."""

    method: Any  # a Method with whichever abilities are asked for
    image_size: int
    items: Items | None
    count: int
    seed: int
    device: torch.device
    ends: np.ndarray | None = None  # items between which rows of interpolations walk, (2 n, ...)

    def samples(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        parts = [_stored(self.method.sample(min(PART, self.count - done))) for done in range(0, self.count, PART)]
        return {"samples": np.concatenate(parts)}, {"items": self.count}

    def interpolations(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        assert self.items is not None
        wanted = 2 * max(1, self.count // FRAMES)
        index = self._drawn(wanted)[: len(self.items) // 2 * 2]
        if len(index) < 2:
            raise ValueError(f"a walk goes from one item to another, but {self.items.source} has {len(self.items)}")
        parts, ends = [], []
        for pairs in np.split(index, range(PART // FRAMES * 2, len(index), PART // FRAMES * 2)):
            x = self._read(pairs)
            parts.append(_stored(walk(self.method, x[0::2], x[1::2]).flatten(0, 1)))
            ends.append(_stored(x))
        self.ends = np.concatenate(ends)
        names = [self.items.names[int(i)] for i in index]
        return {"interpolations": np.concatenate(parts)}, {"rows": [list(pair) for pair in zip(names[0::2], names[1::2], strict=True)]}

    def reconstructions(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        assert self.items is not None
        index = np.sort(self._drawn(self.count))
        originals, made, error = [], [], 0.0
        for part in np.split(index, range(PART, len(index), PART)):
            x = self._read(part)
            y = self.method.reconstruct(x)
            error += float((x - y).double().square().mean()) * len(part) / len(index)
            originals.append(_stored(x))
            made.append(_stored(y))
        said = {"items": [self.items.names[int(i)] for i in index], "mean_squared_error": error}
        return {"originals": np.concatenate(originals), "reconstructions": np.concatenate(made)}, said

    def _drawn(self, n: int) -> np.ndarray:
        assert self.items is not None
        return np.random.default_rng(self.seed).permutation(len(self.items))[:n]

    def _read(self, index: np.ndarray) -> Tensor:
        assert self.items is not None
        return clean(self.items.batch(index), self.image_size).to(self.device)


def walk(method: Decodes, start: Tensor, end: Tensor, frames: int = FRAMES) -> Tensor:
    """Decoded points of the straight lines between the codes of inputs: (n, ...) and (n, ...) -> (n, frames, ...), both ends included."""
    z = torch.lerp(
        method.code(start)[:, None],
        method.code(end)[:, None],
        torch.linspace(0, 1, frames, device=start.device)[:, None],
    )
    return method.decode(z.flatten(0, 1)).unflatten(0, (len(start), frames))


def _stored(x: Tensor) -> np.ndarray:
    """(N, C, H, W) in [0, 1] -> (N, H, W, C) uint8; (N, D) -> float32."""
    if x.ndim == 2:
        return x.float().cpu().numpy()
    return x.float().mul(255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _write(folder: Path, found: Generated, ends: np.ndarray | None) -> None:
    for name, array in found.arrays.items():
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        replace_file(folder / f"{name}.npy", buffer.getvalue())
    images = {name: array for name, array in found.arrays.items() if array.ndim == 4}
    if "samples" in images:
        shown = images["samples"][:DRAWN]
        columns = _side(len(shown))
        _save_picture(folder / "samples.png", [list(shown[i : i + columns]) for i in range(0, len(shown), columns)])
    if "interpolations" in images and ends is not None:
        rows = images["interpolations"].reshape(-1, FRAMES, *images["interpolations"].shape[1:])[: DRAWN // FRAMES]
        _save_picture(folder / "interpolations.png", [[ends[2 * i], None, *row, None, ends[2 * i + 1]] for i, row in enumerate(rows)])
    if "reconstructions" in images:
        pairs = list(zip(images["originals"][:DRAWN], images["reconstructions"][:DRAWN], strict=True))
        columns = max(1, _side(2 * len(pairs)) // 2)
        cells = [[cell for pair in pairs[i : i + columns] for cell in (*pair, None)][:-1] for i in range(0, len(pairs), columns)]
        _save_picture(folder / "reconstructions.png", cells)
    replace_file(folder / "generated.json", json.dumps(found.about, indent=1).encode())


def _side(n: int) -> int:
    return math.ceil(math.sqrt(n))


def in_words(found: Generated, out: Path) -> str:
    """What was made and where it lies, a line each."""
    lines = []
    for name, array in found.arrays.items():
        shape = " x ".join(map(str, array.shape[1:]))
        what = f"{len(array) // FRAMES} rows of {FRAMES}, each {shape}" if name == "interpolations" else f"{len(array)} of {shape}"
        if name == "reconstructions":
            what += f", mean squared error {found.about[name]['mean_squared_error']:.4g}"
        files = str(out / f"{name}.npy")
        if array.ndim == 4 and name != "originals":  # they stand beside the reconstructions
            files += f", {out / f'{name}.png'}{f' (the first {DRAWN})' if len(array) > DRAWN else ''}"
        lines.append(f"{name:<15}  {what}: {files}")
    return "\n".join(lines)


def _save_picture(path: Path, rows: list[list[np.ndarray | None]]) -> None:
    buffer = io.BytesIO()
    grid(rows).save(buffer, "PNG")
    replace_file(path, buffer.getvalue())


def grid(rows: list[list[np.ndarray | None]]) -> Image.Image:
    """Images (H, W, C) uint8 of one size in rows on white, None for a wider gap; small ones are enlarged by a whole number.

    Of images with neither 1 nor 3 channels, the first is shown.
    """
    height, width = next(cell for cell in rows[0] if cell is not None).shape[:2]
    times = max(1, SHORT // max(height, width))
    places = [MARGIN]
    for cell in max(rows, key=len):
        places.append(places[-1] + (3 * GAP if cell is None else times * width + GAP))
    tall = times * height + GAP
    picture = Image.new("RGB", (places[-1] - GAP + MARGIN, len(rows) * tall - GAP + 2 * MARGIN), "white")
    for i, row in enumerate(rows):
        for place, cell in zip(places, row, strict=False):
            if cell is not None:
                shown = cell if cell.shape[2] == 3 else cell[:, :, :1].repeat(3, axis=2)
                large = shown.repeat(times, axis=0).repeat(times, axis=1)
                picture.paste(Image.fromarray(large), (place, MARGIN + i * tall))
    return picture
