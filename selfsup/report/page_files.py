"""The files that a run keeps for its page, RUN/page/sample.npz, views.npz and abilities.npz: written and read here only.

Axes: M items of the sample, n images in the examples of the views, h height, w width, c channels.
"""

import io
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

LARGEST_SAMPLE = 2000
"""Items that the page can show: more of them neither fit into its 3 MB nor onto a map."""

UNREADABLE = (OSError, ValueError, KeyError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What an archive raises that is damaged, cut short, of another kind, encrypted, or holds pickled objects."""


PICTURES, BARS = ("originals", "reconstructions", "samples", "walks"), "bars: "
"""Arrays of abilities.npz; those of bars have their title behind this."""


@dataclass(frozen=True)
class Sample:
    """Some items of the data with their vectors.

    Attributes:
        embeddings: (M, width) float32.
        thumbnails: (M, h, w, 1 or 3) uint8; None for data that are not images.
        labels: (M,) int64, -1 for unknown.
        names: M display names.
    """

    embeddings: np.ndarray
    thumbnails: np.ndarray | None
    labels: np.ndarray
    names: tuple[str, ...]


@dataclass(frozen=True)
class Abilities:
    """What a trained method can do beside giving vectors, shown on a few items; None and empty for what it cannot.

    Attributes:
        originals, reconstructions: (n, h, w, 1 or 3) uint8 each.
        samples: (m, h, w, 1 or 3) uint8, made from noise.
        walks: (rows, frames, h, w, 1 or 3) uint8; the first and the last of a row are items, between them the way from one to the other.
        bars: what numbers are about, with their unit -> (k,) float32.
        notes: sentences about what could not be made.
    """

    originals: np.ndarray | None = None
    reconstructions: np.ndarray | None = None
    samples: np.ndarray | None = None
    walks: np.ndarray | None = None
    bars: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def save_sample(run: Path, embeddings: np.ndarray, thumbnails: np.ndarray | None, labels: np.ndarray | None, names: Sequence[str]) -> Path:
    """Write RUN/page/sample.npz, from which the page draws its map and its neighbours.

    Args:
        run: the run folder; `page/` is made where it is missing.
        embeddings: (M, width) real numbers, M at most 2,000; stored as float32.
        thumbnails: (M, h, w, 1 or 3) uint8; None, or h = w = 0, for data that are not images.
        labels: (M,) integers, -1 for unknown, or None where the data has no classes.
        names: M display names.

    Raises:
        ValueError: sizes that disagree, too many items, or an array of the wrong type.
    """
    embeddings = np.asarray(embeddings)
    if embeddings.ndim != 2 or embeddings.dtype.kind not in "fiu":
        raise ValueError(f"save_sample: embeddings must be (M, width) real numbers, got {embeddings.shape} {embeddings.dtype}")
    items = len(embeddings)
    if items > LARGEST_SAMPLE:
        raise ValueError(f"save_sample: the page shows at most {LARGEST_SAMPLE} items, got {items}; draw that many at random first")
    labels = np.full(items, -1) if labels is None else np.asarray(labels)
    if labels.shape != (items,) or labels.dtype.kind not in "iu":
        raise ValueError(f"save_sample: labels must be ({items},) integers like the embeddings, got {labels.shape} {labels.dtype}")
    if len(names) != items:
        raise ValueError(f"save_sample: expected {items} names, one for each embedding, got {len(names)}")
    arrays = {"embeddings": embeddings.astype(np.float32), "labels": labels.astype(np.int64), "names": np.array(list(names), dtype=np.str_)}
    if thumbnails is not None and 0 not in np.shape(thumbnails)[1:3]:
        arrays["thumbnails"] = _images(thumbnails, "save_sample: thumbnails", count=items)
    return _write(run / "page" / "sample.npz", arrays)


def save_views(run: Path, original: np.ndarray, views: Mapping[str, np.ndarray]) -> Path:
    """Write RUN/page/views.npz, the examples of what the method was shown.

    Args:
        run: the run folder; `page/` is made where it is missing.
        original: (n, h, w, 1 or 3) uint8, the images as they are in the data.
        views: name of a view -> (n, h, w, 1 or 3) uint8 of the same images, in display order; sizes may differ from the original's.

    Raises:
        ValueError: an array of the wrong shape or type, or a view called "original".
    """
    if "original" in views:
        raise ValueError('save_views: "original" is the name of the unchanged images; give that view another name')
    original = _images(original, "save_views: original")
    shown = {name: _images(view, f"save_views: view {name!r}", count=len(original)) for name, view in views.items()}
    return _write(run / "page" / "views.npz", {"original": original, **shown})


def save_abilities(run: Path, found: Abilities) -> Path:
    """Write RUN/page/abilities.npz; `page/` is made where it is missing.

    Raises:
        ValueError: an array of the wrong shape or type, or as many reconstructions as there are no originals for.
    """
    _check_abilities(found, "save_abilities: ")
    arrays = {name: array for name in PICTURES if (array := getattr(found, name)) is not None}
    arrays |= {BARS + title: np.asarray(values, np.float32) for title, values in found.bars.items()}
    return _write(run / "page" / "abilities.npz", {**arrays, "notes": np.array(list(found.notes), dtype=np.str_)})


def load_sample(run: Path) -> Sample:
    """Read what `save_sample` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or does not hold what `save_sample` writes.
    """
    stored = _read(run / "page" / "sample.npz")
    absent = [key for key in ("embeddings", "labels", "names") if key not in stored]
    if absent:
        raise ValueError(f"expected the arrays embeddings, labels and names, got {', '.join(stored) or 'none'}")
    embeddings, labels, names = stored["embeddings"], stored["labels"], stored["names"]
    if embeddings.ndim != 2 or embeddings.dtype.kind != "f" or labels.dtype.kind != "i" or names.dtype.kind != "U":
        raise ValueError(f"expected real, integer and text arrays, got {embeddings.dtype}, {labels.dtype} and {names.dtype}")
    if not len(embeddings) == len(labels) == len(names):
        raise ValueError(f"expected one label and one name for each of {len(embeddings)} embeddings, got {len(labels)} and {len(names)}")
    thumbnails = stored.get("thumbnails")
    if thumbnails is not None:
        thumbnails = _images(thumbnails, "thumbnails", count=len(embeddings))
    return Sample(embeddings, thumbnails, labels, tuple(str(name) for name in names))


def load_views(run: Path) -> dict[str, np.ndarray]:
    """Read what `save_views` wrote: "original" first, then the views in display order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or does not hold what `save_views` writes.
    """
    stored = _read(run / "page" / "views.npz")
    if "original" not in stored:
        raise ValueError(f'expected an array "original", got {", ".join(stored) or "none"}')
    original = _images(stored.pop("original"), "original")
    return {"original": original, **{name: _images(view, f"view {name!r}", count=len(original)) for name, view in stored.items()}}


def load_abilities(run: Path) -> Abilities:
    """Read what `save_abilities` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or does not hold what `save_abilities` writes.
    """
    stored = _read(run / "page" / "abilities.npz")
    bars = {name.removeprefix(BARS): array for name, array in stored.items() if name.startswith(BARS)}
    notes = stored.get("notes", np.array([], dtype=np.str_))
    if notes.dtype.kind != "U" or notes.ndim != 1:
        raise ValueError(f"expected notes to be texts, got {notes.dtype} {notes.shape}")
    found = Abilities(**{name: stored.get(name) for name in PICTURES}, bars=bars, notes=tuple(map(str, notes)))
    _check_abilities(found, "")
    return found


def _check_abilities(found: Abilities, where: str) -> None:
    if (found.originals is None) != (found.reconstructions is None):
        raise ValueError(f"{where}originals and reconstructions must come together")
    if found.originals is not None and found.reconstructions is not None:
        _images(found.originals, f"{where}originals")
        _images(found.reconstructions, f"{where}reconstructions", count=len(found.originals))
    if found.samples is not None:
        _images(found.samples, f"{where}samples")
    if found.walks is not None:
        if np.ndim(found.walks) != 5:
            raise ValueError(f"{where}walks must be (rows, frames, h, w, 1 or 3), got {np.shape(found.walks)}")
        _images(found.walks.reshape(-1, *found.walks.shape[2:]), f"{where}walks")
    for title, values in found.bars.items():
        if np.ndim(values) != 1 or np.size(values) == 0 or np.asarray(values).dtype.kind != "f":
            raise ValueError(f"{where}bars {title!r} must be (k,) real numbers, got {np.shape(values)} {np.asarray(values).dtype}")


def _images(images: np.ndarray, what: str, count: int | None = None) -> np.ndarray:
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape[1:]:
        raise ValueError(f"{what} must be (n, h, w, 1 or 3) uint8, got {images.shape} {images.dtype}")
    if count is not None and len(images) != count:
        raise ValueError(f"{what}: expected {count} images, got {len(images)}")
    return images


def _write(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """Beside, then renamed, so that a page made meanwhile never meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # Not numpy.savez_compressed(**arrays): a view may be called "file", which is that function's own argument.
        with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def _read(path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                for name in archive.namelist():
                    # The member as a whole: only at its end does zipfile compare its checksum.
                    array = np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
                    arrays[name.removesuffix(".npy")] = array
        except UNREADABLE as error:
            raise ValueError(f"damaged: {error}") from error
    return arrays
