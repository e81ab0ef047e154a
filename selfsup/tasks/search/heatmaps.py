"""Pictures of where an image is strange: beside the image its reconstruction, and the error of every pixel laid over it."""

import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from selfsup.abilities import Reconstructs
from selfsup.data import Items
from selfsup.tasks.pretraining.page_data import pictures
from selfsup.tasks.search.detector import Detector
from selfsup.views.crops import clean

MOST = 100  # pictures
SIDE, GAP = 128, 4  # pixels of a panel, at least, and between two
HOT = np.array([[0, 0, 0], [180, 0, 30], [255, 120, 0], [255, 255, 120]], np.float32)  # at 0, 1/3, 2/3 and 1


def write_heatmaps(folder: Path, detector: Detector, usual: Items, items: Items, scores: np.ndarray) -> str:
    """One PNG for each of the 100 strangest images: the image, its reconstruction, the error of each pixel over the image.

    The colours are the same in all of them: brightest is what 1 in 1,000 pixels of held-out normal images reaches, and above.

    Returns:
        What was drawn, or why nothing was.
    """
    if not isinstance(detector.network, Reconstructs):
        return "no heat maps: distances between vectors have no place in an image; take a method that reconstructs"
    if not detector.image_size:
        return "no heat maps: the data are not images"
    folder.mkdir(parents=True, exist_ok=True)
    few = np.linspace(0, len(usual) - 1, min(len(usual), 256)).astype(np.int64)
    with torch.no_grad():
        errors = _maps(detector, usual, np.unique(few))[2].flatten().sort().values
        brightest = max(float(errors[int(0.999 * (len(errors) - 1))]), 1e-6)
        strangest = np.argsort(-scores, kind="stable")[:MOST]
        for start in range(0, len(strangest), 50):
            part = strangest[start : start + 50]
            shown, made, error = _maps(detector, items, part)
            for rank, i, image, copy, heat in zip(range(start + 1, len(strangest) + 1), part, shown, made, error, strict=False):
                name = re.sub(r"[^\w.-]+", "-", items.names[int(i)]).strip("-")[-80:]
                _panels(image, copy, (heat / brightest).clamp(0, 1).numpy()).save(folder / f"{rank:03d}-{name}.png")
    return f"heat maps of the {len(strangest)} strangest of {len(items)} images are in {folder}"


def _maps(detector: Detector, items: Items, index: np.ndarray) -> tuple[np.ndarray, np.ndarray, Tensor]:
    """Images and reconstructions, (B, H, W, 1 or 3) uint8, and squared errors (B, H, W)."""
    x = clean(items.batch(index), detector.image_size).to(detector.device)
    made, error = detector.maps(x)
    return pictures(x), pictures(made), error.cpu()


def _panels(image: np.ndarray, made: np.ndarray, heat: np.ndarray) -> Image.Image:
    """Three panels side by side."""
    gray = image.astype(np.float32).mean(axis=2, keepdims=True)
    place = np.clip(heat[..., None] * (len(HOT) - 1), 0, len(HOT) - 1 - 1e-4)
    low = place.astype(int)[..., 0]
    colour = HOT[low] + (HOT[low + 1] - HOT[low]) * (place - low[..., None])
    opacity = np.minimum(1, 2 * heat)[..., None]
    panels = [np.broadcast_to(image, (*image.shape[:2], 3)), np.broadcast_to(made, (*made.shape[:2], 3))]
    panels.append(((1 - opacity) * 0.6 * gray + opacity * colour).round().clip(0, 255).astype(np.uint8))
    times = -(-SIDE // image.shape[0])
    large = [np.pad(np.kron(p, np.ones((times, times, 1), np.uint8)), ((0, 0), (0, GAP), (0, 0)), constant_values=255) for p in panels]
    return Image.fromarray(np.concatenate(large, axis=1)[:, :-GAP])
