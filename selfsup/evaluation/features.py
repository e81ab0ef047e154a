"""Items to vectors, and the checks that every evaluator makes of them.

Axes: N items, D width, B items in a batch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from selfsup.data import Items, sequential
from selfsup.engine.step import channels_last
from selfsup.views.crops import clean

Embed = Callable[[Items], Tensor]
"""Items -> (N, width) float32, one row for each item, in their order."""

AT_ONCE = 64  # images or texts on a CPU, whose caches hold what lies between the layers of so many: 1.2 to 1.6 times as fast as 512


@torch.no_grad()
def embed_items(
    embed_batch: Callable[[Tensor], Tensor],
    items: Items,
    image_size: int,
    batch_size: int = 512,
    device: torch.device | str = "cpu",
    precision: Literal["fp32", "bf16"] = "fp32",
    progress: Callable[[int, int], None] | None = None,
) -> Float[Tensor, "N D"]:
    """Vectors of all items, each seen once, without augmentation.

    Args:
        embed_batch: (B, C, S, S) float in [0, 1], or (B, D) vectors -> (B, width). Where it is a module, or a method of one such as
            `method.embed`, that module is in evaluation mode meanwhile, and stays `channels_last`.
        image_size: side S of the central square that is shown, in pixels; ignored for vectors.
        batch_size: items read at a time; changes memory and speed, not the vectors.
        device: where `embed_batch` computes; the vectors come back to the CPU.
        precision: "bf16" runs it under autocast; the vectors are float32 either way.
        progress: called with (items done, items in all) after every batch.
    Raises:
        ValueError: there are no items, or a vector holds NaN or infinity; the message names the item.
    """
    if len(items) == 0:
        raise ValueError(f"nothing to embed: {items.source} holds no items")
    device, done = torch.device(device), 0
    vectors: Tensor | None = None
    owner = _owner(embed_batch)
    if owner is not None:
        channels_last(owner)
    with evaluating(embed_batch):
        for batch in sequential(items, batch_size):
            x = clean({name: value.to(device) for name, value in batch.items()}, image_size)
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                z = in_parts(embed_batch, x, batch_size).float().cpu()
            if vectors is None:
                vectors = torch.empty(len(items), *z.shape[1:])
            vectors[done : done + len(z)] = z
            broken = ~z.isfinite().flatten(1).all(dim=1)
            if broken.any():
                name = items.names[done + int(broken.nonzero()[0])]
                raise ValueError(f"the vector of {name} holds NaN or infinity: the network has diverged, use an earlier checkpoint")
            done += len(z)
            if progress is not None:
                progress(done, len(items))
    assert vectors is not None  # there is at least one batch
    return vectors


def in_parts(embed_batch: Callable[[Tensor], Tensor], x: Shaped[Tensor, "B *shape"], at_once: int = 256) -> Float[Tensor, "B *vector"]:
    """`embed_batch` of all rows, at most `at_once` at a time, and fewer where its device is faster so."""
    vectors = x.ndim == 2 and x.is_floating_point()
    if x.device.type == "cpu" and not vectors:
        at_once = min(at_once, AT_ONCE)
    return torch.cat([embed_batch(part) for part in x.split(at_once)])


@contextmanager
def evaluating(network: object) -> Iterator[None]:
    """Evaluation mode for a module, or for the module that a bound method belongs to; back to what each part was afterwards."""
    owner = _owner(network)
    before = {m: m.training for m in owner.modules()} if owner is not None else {}
    for module in before:
        module.training = False
    try:
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


def _owner(function: object) -> nn.Module | None:
    module = function if isinstance(function, nn.Module) else getattr(function, "__self__", None)
    return module if isinstance(module, nn.Module) else None


def check_labelled(
    train_x: Float[Tensor, "N D"], train_y: Int[Tensor, " labels"], test_x: Float[Tensor, "M E"], test_y: Int[Tensor, " test_labels"]
) -> None:
    """Raise ValueError where labelled vectors cannot be evaluated: as many labels as rows, one width, all known, all finite."""
    for name, x, y in (("train", train_x, train_y), ("test", test_x, test_y)):
        if len(x) == 0 or len(x) != len(y):
            raise ValueError(f"{name}: expected as many labels as vectors and at least one, got {len(x)} vectors and {len(y)} labels")
        if int(y.min()) < 0:
            raise ValueError(f"{name}: {int((y < 0).sum())} of {len(y)} labels are negative, which means unknown; leave those items out")
        if not bool(x.isfinite().all()):
            row = int((~x.isfinite().all(dim=1)).nonzero()[0])
            raise ValueError(f"{name}: row {row} holds NaN or infinity; the network that made it has diverged")
    if train_x.shape[1] != test_x.shape[1]:
        raise ValueError(f"train and test vectors come from different networks: widths {train_x.shape[1]} and {test_x.shape[1]}")


def top1(predicted: Int[Tensor, " M"], truth: Int[Tensor, " M"]) -> float:
    """Fraction of rows that are right, 0 to 1."""
    return float((predicted == truth).double().mean())
