"""What the report shows of a run's data: embeddings of a sample with thumbnails, examples of the views, and what the method can make."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfsup.abilities import Decodes, Explains, Reconstructs, Samples
from selfsup.data import Items
from selfsup.method import Batch, Method
from selfsup.report.page_files import Abilities, save_abilities, save_sample, save_views
from selfsup.tasks.make.generate import walk
from selfsup.views.crops import clean

SAMPLE, EXAMPLES, THUMBNAIL = 1500, 8, 48
SAMPLES, WALKS, EXPLAINED = 16, 3, 512  # samples, rows of interpolations, and items that bars are about


def write_page_data(run: Path, items: Items, method: Method, config: Mapping[str, Any]) -> None:
    """Write `page/sample.npz`, `page/views.npz` and `page/abilities.npz` of an image run; no pictures of a run on vectors."""
    seed = config["training"]["seed"]
    index = np.sort(np.random.default_rng(seed).permutation(len(items))[:SAMPLE])
    size = config["encoder"]["image_size"]
    embeddings, thumbnails = [], []
    with torch.no_grad():
        for part in np.array_split(index, max(1, len(index) // 250)):
            batch = items.batch(part)
            embeddings.append(method.embed(clean(batch, size)).float())
            if size:
                thumbnails.append(pictures(clean(batch, min(size, THUMBNAIL))))
    labels = items.labels[index] if items.labels is not None else np.full(len(index), -1)
    shown = np.concatenate(thumbnails) if thumbnails else np.zeros((len(index), 0, 0, 1), np.uint8)
    save_sample(run, torch.cat(embeddings).numpy(), shown, labels, [items.names[int(i)] for i in index])
    found = abilities(method, items, index, size, seed)
    if found is not None:
        save_abilities(run, found)
    if size:
        batch = items.batch(index[np.linspace(0, len(index) - 1, min(EXAMPLES, len(index))).astype(int)])
        save_views(run, pictures(clean(batch, max(size, THUMBNAIL))), example_views(method, batch, seed))


def example_views(method: Method, batch: Batch, seed: int) -> dict[str, np.ndarray]:
    """Every view of a batch that is a picture, by name."""
    generator = torch.Generator().manual_seed(seed)
    n = len(batch["image"])
    with torch.no_grad():
        views = method.views(batch, generator)
    return {
        name: pictures(x[:n]) for name, x in views.items() if x.ndim == 4 and x.is_floating_point() and len(x) >= n and x.shape[1] in (1, 3)
    }


@torch.no_grad()
def abilities(method: Any, items: Items, index: np.ndarray, image_size: int, seed: int) -> Abilities | None:
    """What the method makes of a few items and from noise; None where it gives vectors only. What it refuses to make is said in a note.

    Args:
        index: of the items to choose from.
        image_size: 0 for vectors, of which only bars are shown.
    """
    drawn = np.random.default_rng(seed).permutation(index)
    x = clean(items.batch(drawn[:EXAMPLES]), image_size)
    found: dict[str, Any] = {}
    notes: list[str] = []

    def attempt(what: str, make: Callable[[], dict[str, Any]]) -> None:
        try:
            found.update(make())
        except ValueError as error:
            notes.append(f"{what}: {error}")

    def walks() -> dict[str, Any]:
        rows = min(WALKS, len(x) // 2)
        start, end = x[:rows], x[rows : 2 * rows]
        frames = torch.cat([start[:, None], walk(method, start, end), end[:, None]], dim=1)
        return {"walks": np.stack([pictures(row) for row in frames])}

    def bars() -> dict[str, Any]:
        fit = EXPLAINED if image_size <= 64 else max(32, EXPLAINED * 64**2 // image_size**2)  # in memory
        told = method.explain(clean(items.batch(drawn[:fit]), image_size))
        return {"bars": {title: values.float().cpu().numpy() for title, values in told.items()}}

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if image_size and isinstance(method, Reconstructs):
            attempt("Reconstructions", lambda: {"originals": pictures(x), "reconstructions": pictures(method.reconstruct(x))})
        if image_size and isinstance(method, Decodes) and len(x) > 1:
            attempt("Interpolations", walks)
        if image_size and isinstance(method, Samples):
            attempt("Samples", lambda: {"samples": pictures(method.sample(SAMPLES))})
        if isinstance(method, Explains):
            attempt("Figures", bars)
    return Abilities(**found, notes=tuple(notes)) if found or notes else None


def pictures(x: Tensor) -> np.ndarray:
    """(B, C, H, W) in [0, 1] -> (B, H, W, 1 or 3) uint8; of other channel counts, the first is shown."""
    x = x if x.shape[1] in (1, 3) else x[:, :1]
    return x.mul(255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
