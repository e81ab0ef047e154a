"""What tests of methods that compare two views share."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from selfsup.engine.optim import make_optimizers
from selfsup.engine.step import train_step
from selfsup.method import Batch, Method, Recipe

ITEMS = 32


def loud() -> Callable[[], Batch]:
    """Two views of images of 8 x 8 pixels, under noise twice as loud as the image."""
    images = torch.randn(ITEMS, 3, 8, 8)

    def views() -> Batch:
        first, second = images + 2 * torch.randn(2, *images.shape)
        return {"first": first, "second": second}

    return views


def in_one_channel() -> Callable[[], Batch]:
    """Two large crops and a small one; one channel shows the image, two are loud noise."""
    images = torch.randn(ITEMS, 1, 4, 4)

    def views() -> Batch:
        small = [torch.cat([images + 0.5 * torch.randn(ITEMS, 1, 4, 4), 2 * torch.randn(ITEMS, 2, 4, 4)], dim=1) for _ in range(3)]
        large = [x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) for x in small[:2]]
        return {"global_0": large[0], "global_1": large[1], "local_0": small[2]}

    return views


def trained_to_find(make: Callable[[], Method], *, lr: float, steps: int, crops: bool = False) -> tuple[float, float, Callable[[], float]]:
    """Train on the same images under fresh noise.

    Returns:
        How often the other view of an item is the nearest of 32, before and after (0.03 by chance), and the loss on some more views.
    """
    views = in_one_channel() if crops else loud()
    method = make()
    optimizers = make_optimizers(method, Recipe(lr=lr, weight_decay=0.0))

    @torch.no_grad()
    def found() -> float:
        method.eval()
        hits = 0.0
        for _ in range(10):
            a, b = (F.normalize(method.embed(x), dim=-1) for x in list(views().values())[:2])
            hits += float(((a @ b.T).argmax(dim=1) == torch.arange(ITEMS)).float().mean()) / 10
        method.train()
        return hits

    before = found()
    for step in range(steps):
        train_step(method, [views()], optimizers)
        method.after_step((step + 1) / steps)
    return before, found(), lambda: float(method.loss(views()).detach())


@pytest.fixture
def find_partners() -> Callable[..., tuple[float, float, Callable[[], float]]]:
    return trained_to_find
