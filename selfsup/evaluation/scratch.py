"""A network and a linear classifier, trained on labels: from scratch, the rival that pretraining must beat, or from a pretrained network.

Axes: B images in a batch, C classes.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.data import Items
from selfsup.engine.optim import layerwise_rates, learning_rate, make_optimizers, set_learning_rate
from selfsup.engine.step import channels_last, train_step
from selfsup.method import Batch, Encoder, Method, Recipe
from selfsup.views.crops import RandomCrop, clean

BATCH = 64
SETTLING = 8  # batches, for the statistics of batch normalisation


class Scratch(NamedTuple):
    """A network that was trained on labels, in evaluation mode."""

    embed: nn.Module  # clean inputs (B, ...) -> (B, width)
    predict: nn.Module  # clean inputs (B, ...) -> (B, classes) scores, the largest is the class


class Classifier(Method):
    """Supervised learning as a method: nothing is hidden but the label."""

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=2e-3, batch_size=BATCH, weight_decay=5e-2, warmup=0.1)

    def __init__(
        self, encoder: Encoder, classes: int, image_size: int, *, flip: bool, augment: bool = True, head: nn.Linear | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.width, classes) if head is None else head
        self.scores = nn.Sequential(encoder, self.head)
        if augment and image_size > 0:
            # Half of the area and more: smaller crops cut off what tells a 3 from a 9.
            self.views = RandomCrop(image_size, scale=(0.5, 1.0), flip=0.5 if flip else 0.0)
        else:
            self.views = lambda batch, _: {"image": clean(batch, image_size), "label": batch["label"]}

    def loss(self, views: Batch) -> Tensor:
        """Cross entropy, in nats."""
        return F.cross_entropy(self.scores(views["image"]).float(), views["label"])


def train_from_scratch(
    build: Callable[[], Encoder],
    items_train: Items,
    index: np.ndarray,
    classes: int,
    *,
    image_size: int,
    seed: int,
    images: int,
    head: nn.Linear | None = None,
    lr: float = Classifier.recipe.lr,
    layer_decay: float = 1.0,
    flip: bool = True,
    augment: bool = True,
    device: torch.device | str = "cpu",
    precision: Literal["fp32", "bf16"] = "fp32",
    progress: Callable[[int, int], None] | None = None,
) -> Scratch:
    """Train a network and a linear classifier by cross entropy: AdamW, one cosine, random crops of 50 to 100 % of the area and flips.

    Every run has the full budget, however few the labels are: they are then seen more often, each time as another crop. Deterministic for
    a seed on the CPU; the global random state is left as it was.

    Args:
        build: makes the untrained network, or gives a pretrained one to fine-tune; called under `seed`.
        items_train: with labels; only those of `index` are looked at.
        index: (n,) rows to train on, with known labels.
        classes: number C of outputs; labels are 0 to C - 1.
        image_size: side of a crop in pixels, 0 for vectors and text, which are not augmented.
        seed: of the weights, the order and the crops.
        images: to be seen in all; 64 a step.
        head: the linear classifier to start from; a fresh one when None.
        lr: peak learning rate.
        layer_decay: the rate of a block is multiplied by this for each block above it, see `layerwise_rates`; 1 for none.
        flip: whether a mirrored image keeps its class; False for digits, letters and arrows.
        augment: crops and flips; False for the whole central square each time.
        device, precision: where and in which arithmetic; "bf16" is autocast.
        progress: called with (images seen, images) after every step.
    Raises:
        ValueError: no labels, none at `index`, unknown ones among them, a budget below one image, a rate or decay that is none.
    """
    _check(items_train, index, classes, images)
    if not (math.isfinite(lr) and lr > 0):
        raise ValueError(f"a learning rate must be positive and finite, got {lr}")
    recipe = replace(Classifier.recipe, lr=lr)
    device, steps = torch.device(device), -(-images // BATCH)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        method = Classifier(build(), classes, image_size, flip=flip, augment=augment, head=head).to(device).train()
        channels_last(method)
        optimizers = make_optimizers(method, recipe, layerwise_rates(method.encoder, layer_decay))
        generator = torch.Generator(device).manual_seed(seed)
        for step, batch in zip(range(steps), _batches(items_train, index, seed), strict=False):
            set_learning_rate(optimizers, learning_rate(recipe, (step + 1) / (steps + 1)))
            views = method.views({name: value.to(device) for name, value in batch.items()}, generator)
            autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
            train_step(method, [views], optimizers, autocast=autocast)
            if progress is not None:
                progress(min((step + 1) * BATCH, images), images)
        settle_statistics(method.scores, (method.views(batch, generator)["image"] for batch in _some(items_train, index, seed, device)))
    method.eval().requires_grad_(False)
    return Scratch(method.encoder, method.scores)


@torch.no_grad()
def settle_statistics(network: nn.Module, inputs: Iterable[Tensor]) -> None:
    """Batch normalisation's statistics as the plain mean over `inputs`; leaves the network in training mode.

    Running averages lag a hundred steps behind: after 25 steps a net that knows 92 % of its test digits shows 68 % with them.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    before = [m.momentum for m in norms]
    for m in norms:
        m.reset_running_stats()
        m.momentum = None  # cumulative
    network.train()
    if norms:
        for x in inputs:
            network(x)
    for m, momentum in zip(norms, before, strict=True):
        m.momentum = momentum


def _check(items: Items, index: np.ndarray, classes: int, images: int) -> None:
    if items.labels is None or len(index) == 0:
        raise ValueError(f"training needs labelled items, got {len(index)} of {items.source} ({len(items)} items)")
    if images < 1:
        raise ValueError(f"training needs a budget of at least 1 image, got {images}")
    used = items.labels[index]
    if used.min() < 0 or used.max() >= classes:
        raise ValueError(f"labels must be 0 to {classes - 1}, got {used.min()} to {used.max()}; leave out items without a class")


def _some(items: Items, index: np.ndarray, seed: int, device: torch.device) -> Iterator[Batch]:
    for batch in islice(_batches(items, index, seed + 1), SETTLING):
        yield {name: value.to(device) for name, value in batch.items()}


def _batches(items: Items, index: np.ndarray, seed: int) -> Iterator[Batch]:
    """Batches of 64 from one random order after another; with fewer than 64 items each comes several times in a batch."""
    random = np.random.default_rng(seed)
    pool = np.empty(0, dtype=np.int64)
    # Few are read once; but texts of a batch are as long as its longest only.
    whole = items.batch(index) if len(index) <= 4096 and items.kind != "text" else None
    while True:
        while len(pool) < BATCH:
            pool = np.concatenate([pool, random.permutation(len(index))])
        chosen, pool = pool[:BATCH], pool[BATCH:]
        yield items.batch(index[chosen]) if whole is None else {name: value[chosen] for name, value in whole.items()}
