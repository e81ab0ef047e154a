"""Training of a transformer and a linear layer on rows of text: batches of like lengths, so that little is padding.

Axes: B rows in a batch, T tokens of the longest of them, D width, K scores.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.engine.optim import learning_rate, make_optimizers, set_learning_rate
from selfsup.engine.step import train_step
from selfsup.evaluation.features import evaluating
from selfsup.method import Batch, Encoder, Method, Recipe
from selfsup.models.text import TextTransformer
from selfsup.models.vit import initialise_linear
from selfsup.tasks.labels.text_tasks import Rows, TextTask

BATCH = 32
BUCKET = 64  # batches that are sorted by length together
DROPOUT = 0.1  # the authors' (1810.04805, appendix A.2)
OUTPUT_TOKENS = 16_384  # in a batch of `outputs_of`


class TextNetwork(nn.Module):
    """(B, T) token numbers -> scores (B, K) from the encoder's vector, or (B, T, K) from that of each token.

    Args:
        encoder: of text; a transformer where each token has scores.
        outputs: K.
        per_token: which of the two.

    Raises:
        ValueError: the encoder has no vectors for tokens.
    """

    def __init__(self, encoder: Encoder, outputs: int, *, per_token: bool) -> None:
        super().__init__()
        if per_token and not isinstance(encoder, TextTransformer):
            raise ValueError(f"tags and answers need a vector for each token, and {type(encoder).__name__} has one for each text only")
        self.encoder, self.per_token = encoder, per_token
        self.head = nn.Linear(encoder.width, outputs)
        initialise_linear(self.head)
        self.register_buffer("shift", torch.zeros(encoder.width))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T) -> (B, K) or (B, T, K)."""
        x = (self.vectors(ids) - self.shift) * self.scale  # type: ignore[operator]
        return self.head(F.dropout(x, DROPOUT, self.training))

    def vectors(self, ids: Tensor) -> Tensor:
        """What the linear layer sees: (B, D) or (B, T, D)."""
        return self.encoder.hidden(ids) if self.per_token else self.encoder(ids)  # type: ignore[operator]

    def top(self) -> dict[str, Tensor]:
        """All but the encoder."""
        return {name: t.detach() for name, t in self.state_dict().items() if not name.startswith("encoder.")}


class Tuning(Method):
    """Supervised learning as a method: nothing is hidden but the label."""

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=3e-4, batch_size=BATCH, weight_decay=1e-2, warmup=0.1, clip=1.0)

    def __init__(self, network: TextNetwork, task: TextTask) -> None:
        super().__init__()
        self.encoder = network.encoder
        self.network, self.task = network, task

    def loss(self, views: Batch) -> Tensor:
        """The task's."""
        return self.task.loss(self.network(views["text"]).float(), views["target"])


def train_text(
    build: Callable[[], Encoder],
    task: TextTask,
    rows: Rows,
    index: np.ndarray,
    *,
    pad: int,
    seed: int,
    steps: int,
    lr: float,
    frozen: bool = False,
    layer_decay: float = 1.0,
    device: torch.device | str = "cpu",
    bf16: bool = False,
    progress: Callable[[int, int], None] | None = None,
    watch: Callable[[int, TextNetwork], None] | None = None,
    every: int = 1,
) -> TextNetwork:
    """An encoder and a fresh linear layer, trained by AdamW: batches of 32 rows, a tenth of the steps for warm-up, then one cosine.

    Deterministic for a seed on the CPU; the global random state is left as it was.

    Args:
        build: makes the untrained encoder, or gives a pretrained one; called under `seed`.
        task: what is asked.
        rows: of all examples.
        index: numbers of the rows to train on.
        pad: number of the token that fills rows up.
        seed: of the linear layer, the order and dropout.
        steps: optimiser steps.
        lr: peak learning rate.
        frozen: the encoder stays as it is; the linear layer sees its vectors centred and scaled, and no dropout but its own.
        layer_decay: the rate of a layer is multiplied by this for each one above it, the linear layer among them; 1 for none.
        device, bf16: where, and whether under autocast to bfloat16.
        progress: called with (steps done, steps) after every step.
        watch: called with (steps done, network in evaluation mode) before the first step, after every `every` and after the last.
        every: steps.

    Returns:
        The network, in evaluation mode.
    """
    device = torch.device(device)
    recipe = replace(Tuning.recipe, lr=lr)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = build()
        network = TextNetwork(encoder, task.outputs, per_token=task.per_token).to(device).train()
        method = Tuning(network, task)
        if isinstance(encoder, TextTransformer):
            encoder.set_dropout(0.0 if frozen else DROPOUT)
        if frozen:
            encoder.requires_grad_(False)
            _standardise(network, rows, index, pad, device)
        optimizers = make_optimizers(method, recipe, rates(encoder, layer_decay))
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=bf16)

        def look(step: int) -> None:
            if watch is not None and (step % every == 0 or step == steps):
                with evaluating(network), torch.random.fork_rng():
                    watch(step, network)

        look(0)
        for step, chosen in zip(range(steps), batches([len(rows.ids[i]) for i in index], BATCH, seed), strict=False):
            set_learning_rate(optimizers, learning_rate(recipe, (step + 1) / (steps + 1)))
            batch = {name: value.to(device) for name, value in collate(rows, index[chosen], pad).items()}
            train_step(method, [batch], optimizers, autocast=autocast, clip=recipe.clip)
            if progress is not None:
                progress(step + 1, steps)
            look(step + 1)
    if isinstance(encoder, TextTransformer):
        encoder.set_dropout(0.0)
    return network.eval().requires_grad_(False)


def rates(encoder: Encoder, decay: float) -> dict[nn.Parameter, float]:
    """decay^depth for each parameter; depth is 1 in the last layer of a transformer, and one more than the first's in the tables of tokens.

    What is no transformer counts as one layer.
    """
    if not isinstance(encoder, TextTransformer):
        return dict.fromkeys(encoder.parameters(), decay)
    layers = list(encoder.layers)
    found = dict.fromkeys(encoder.parameters(), decay ** (len(layers) + 1))
    for depth, layer in enumerate(reversed(layers), 1):
        found |= dict.fromkeys(layer.parameters(), decay**depth)
    if encoder.causal:  # its normalisation comes last
        found |= dict.fromkeys(encoder.norm.parameters(), decay)
    return found


def batches(lengths: Sequence[int], size: int, seed: int) -> Iterator[np.ndarray]:
    """Numbers of rows for one batch after another, without end.

    Every pass has each row once, in a new order, rows of like lengths together; the last batch of a pass holds what is left.
    """
    random, long = np.random.default_rng(seed), np.asarray(lengths)
    while True:
        order = random.permutation(len(long))
        found = []
        for begin in range(0, len(order), size * BUCKET):
            bucket = order[begin : begin + size * BUCKET]
            bucket = bucket[np.argsort(long[bucket], kind="stable")]
            found += [bucket[i : i + size] for i in range(0, len(bucket), size)]
        yield from (found[i] for i in random.permutation(len(found)))


def collate(rows: Rows, index: Sequence[int] | np.ndarray, pad: int) -> Batch:
    """ "text" (B, T) int64, filled up with `pad`, and "target" (B, ...), filled up with -1."""
    return {"text": _filled([rows.ids[i] for i in index], pad), "target": _filled([rows.targets[i] for i in index], -1)}


def _filled(arrays: list[np.ndarray], value: int) -> Tensor:
    out = np.full((len(arrays), max(map(len, arrays))), value, arrays[0].dtype)
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(out)


@torch.no_grad()
def outputs_of(network: TextNetwork, rows: Rows, index: np.ndarray, pad: int, *, device: torch.device | str = "cpu") -> list[np.ndarray]:
    """Scores of these rows in their order: (K,) each, or (T, K) with T of its own; in float32."""
    device = torch.device(device)
    network.to(device)
    found: dict[int, np.ndarray] = {}
    with evaluating(network):
        for chosen in _by_length(rows, index):
            text = collate(rows, chosen, pad)["text"].to(device)
            scores = network(text).float().cpu().numpy()
            for i, score in zip(chosen.tolist(), scores, strict=True):
                found[i] = score[: len(rows.ids[i])] if network.per_token else score
    return [found[i] for i in index.tolist()]


@torch.no_grad()
def loss_of(network: TextNetwork, task: TextTask, rows: Rows, index: np.ndarray, pad: int, device: torch.device) -> float:
    """The task's loss of these rows: the mean over batches, weighed by their rows."""
    total = 0.0
    with evaluating(network):
        for chosen in _by_length(rows, index):
            batch = collate(rows, chosen, pad)
            total += len(chosen) * float(task.loss(network(batch["text"].to(device)).float(), batch["target"].to(device)))
    return total / len(index)


def _by_length(rows: Rows, index: np.ndarray) -> Iterator[np.ndarray]:
    long = np.array([len(rows.ids[i]) for i in index])
    ordered = index[np.argsort(-long, kind="stable")]
    while len(ordered):
        n = max(1, OUTPUT_TOKENS // len(rows.ids[ordered[0]]))
        yield ordered[:n]
        ordered = ordered[n:]


@torch.no_grad()
def _standardise(network: TextNetwork, rows: Rows, index: np.ndarray, pad: int, device: torch.device) -> None:
    """Centre the vectors and give them unit deviation, by some 2,048 rows: of an encoder that has seen little, all are nearly equal."""
    some = np.unique(index[np.linspace(0, len(index) - 1, min(len(index), 2048)).astype(np.int64)])
    kept = []
    with evaluating(network):
        for chosen in _by_length(rows, some):
            ids = collate(rows, chosen, pad)["text"].to(device)
            x = network.vectors(ids)
            kept.append(x[ids != pad] if network.per_token else x)
    x = torch.cat(kept).double()
    mean = x.mean(dim=0)
    deviation = float((x - mean).square().mean().sqrt())
    network.shift.copy_(mean)  # type: ignore[operator]
    network.scale.fill_(1 / deviation if deviation > 0 and math.isfinite(deviation) else 1.0)  # type: ignore[operator]
