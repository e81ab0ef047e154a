"""What may be said to `selfsup finetune`, of images and of text, and which labels are drawn.

Axes: N labelled items, K classes.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from selfsup.evaluation.few_label import labelled_rows
from selfsup.tasks.pretraining.plan import check_numbers

How = Literal["frozen", "full", "layerwise"]
HELD_OUT = 0.2  # of each class's labels, at least one, to choose among learning rates
DECAY = 0.75


def draw(y: Tensor, classes: Sequence[str], labels: int | None, fraction: float | None, seed: int) -> Tensor:
    """Numbers of the items to learn from; of each class at least one.

    Args:
        y: (N,) classes, 0 to K - 1.
        classes: their names.
        labels: items of each class; all when not given.
        fraction: part of each class's items instead.
        seed: of the draw.

    Raises:
        ValueError: a class has fewer items.
    """
    sizes = y.bincount(minlength=len(classes))
    if labels is not None:
        smallest = int(sizes.argmin())
        if labels > sizes[smallest]:
            n = int(sizes[smallest])
            raise ValueError(f'class "{classes[smallest]}" has only {n} labelled items, got --labels {labels}; choose {n} or less')
        return labelled_rows(y, labels, seed)
    if fraction is None:
        return torch.arange(len(y))
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for c, size in enumerate(sizes.tolist()):
        kept = torch.randperm(size, generator=generator)[: max(1, round(fraction * size))]
        drawn.append((y == c).nonzero()[kept, 0])
    return torch.cat(drawn)


def check_settings(
    how: str,
    labels: int | None,
    fraction: float | None,
    layer_decay: float | None,
    epochs: float | None,
    steps: int | None,
    lr: float | None,
    seeds: int,
) -> None:
    """Raise ValueError for settings that are out of range or contradict each other."""
    if how not in get_args(How):
        raise ValueError(f"how must be one of {', '.join(get_args(How))}, got {how!r}")
    if labels is not None and fraction is not None:
        raise ValueError("--labels and --fraction each say how many labels; give one of them")
    if epochs is not None and steps is not None:
        raise ValueError("--epochs and --steps each say how long to train; give one of them")
    if layer_decay is not None and how != "layerwise":
        raise ValueError(f"--layer-decay is for --how layerwise, got --how {how}")
    check_numbers({"labels": labels, "fraction": fraction, "layer_decay": layer_decay})
    check_numbers({"epochs": epochs, "steps": steps, "lr": lr, "seeds": seeds})
    if fraction is not None and fraction > 1:
        raise ValueError(f"--fraction is a part of the labels, above 0 and at most 1, got {fraction}")
    if layer_decay is not None and layer_decay > 1:
        raise ValueError(f"--layer-decay must be above 0 and at most 1, got {layer_decay}")
