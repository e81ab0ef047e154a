"""What the report shows of a run's data: embeddings of a sample with thumbnails, and examples of the views."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfsup.data import Items
from selfsup.method import Batch, Method
from selfsup.report.sample import save_sample, save_views
from selfsup.views.crops import clean

SAMPLE, EXAMPLES, THUMBNAIL = 1500, 8, 48


def write_page_data(run: Path, items: Items, method: Method, config: Mapping[str, Any]) -> None:
    """Write `page/sample.npz` and `page/views.npz` of an image run; only the sample's embeddings of a run on vectors."""
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


def pictures(x: Tensor) -> np.ndarray:
    """(B, C, H, W) in [0, 1] -> (B, H, W, 1 or 3) uint8; of other channel counts, the first is shown."""
    x = x if x.shape[1] in (1, 3) else x[:, :1]
    return x.mul(255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
