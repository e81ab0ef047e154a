"""The contract: a method says what to hide and what a wrong guess costs; the engine does the rest.

Read this file first. A paper is one subclass of `Method` in `selfsup/methods/`; the engine knows nothing else about it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from selfsup.losses import mutual_information

Batch = dict[str, Tensor]
"""Tensors that share their first axis. Raw images: "image" (B, C, H, W) uint8, and "size" (B, 2) int64, the height and
width that each image fills of its canvas, absent where all fill it. Raw vectors: "vector" (B, D) float32. Text: "text" (B, T)
int64, token numbers. Where the data has classes: "label" (B,) int64, -1 for unknown. Always: "index" (B,) int64, the item's
number in the data."""

Layout = Literal["packed", "stream", "sentences", "pairs", "related", "lines"]
"""How text is cut into items; see `selfsup.data.text.tokens.TextStore`."""

NO_METRICS: Mapping[str, Tensor] = {}


class Encoder(nn.Module):
    """A network from a clean input to one vector; it knows no paper.

    Images come as (B, C, H, W) float in [0, 1], vectors as (B, D) float; standardising them is the encoder's first layer. Text comes
    as (B, T) int64 token numbers.

    Attributes:
        width: length of the vector that `forward` returns.
        spec: what builds the same network again, as JSON can hold it: "name", "channels" and "image_size", "pool" of a ViT that
            averages its patches or a BERT that does not average its tokens, "patches" where it sees an image as a grid of patches, "head"
            where it keeps layers of the head it was trained with, "sees" where it sees no colours, and "split" where it is two networks
            that see some channels each.
    """

    width: int
    spec: dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """How a paper is optimised when the user does not say.

    Attributes:
        optimizer: AdamW, SGD with momentum, or LARS (1708.03888); "own" where the method makes its steps itself.
        lr: peak learning rate at `batch_size`; scaled linearly with the batch for sgd and lars, with its root for adamw, not for "own".
        batch_size: images in a step, over all processes.
        weight_decay: decoupled for adamw; biases and normalisation are left out of it.
        momentum: beta_1 of adamw, momentum of sgd and lars.
        beta2: second-moment decay of adamw.
        schedule: "cosine" and "linear" decay to zero as progress goes to 1, "constant" does not.
        warmup: fraction of the run in which the rate climbs from zero, 0 to 1.
        clip: largest gradient norm of a player, infinite for none.
        encoder: the network this paper is known for, used where the user names none.
        tokenizer: of text, learned where the user names none: "wordpiece", "bpe", "character" or "word".
        sequence_length: of text, tokens in an item.
        vocabulary_size: of a tokenizer that is learned, most tokens.
        min_count: of a tokenizer that is learned, a word that occurs less often is left out.
        epochs: passes over the data where nobody says how long; None for a million items, at most 200 passes.
    """

    optimizer: Literal["adamw", "sgd", "lars", "own"] = "adamw"
    lr: float = 1e-3
    batch_size: int = 256
    weight_decay: float = 1e-4
    momentum: float = 0.9
    beta2: float = 0.999
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = 0.05
    clip: float = float("inf")
    encoder: str = "small"
    tokenizer: str = "wordpiece"
    sequence_length: int = 128
    vocabulary_size: int = 8192
    min_count: int = 2
    epochs: int | None = None


class Vocabulary(NamedTuple):
    """What a method of text knows of its tokens; V of them in all.

    Attributes:
        size: V.
        pad, unknown, start, end, mask: numbers of the special tokens, -1 where there is none.
        special: (V,) bool, tokens that stand for no text.
        continues: (V,) bool, tokens that go on with a word that has begun.
    """

    size: int
    pad: int
    unknown: int
    start: int
    end: int
    mask: int
    special: Tensor
    continues: Tensor


class Update(NamedTuple):
    """One optimiser step that a method asks for."""

    loss: Tensor  # scalar, to minimise
    player: str | None = "main"  # whose optimiser steps; None where the method has made the step itself
    metrics: Mapping[str, Tensor] = NO_METRICS  # detached scalars to log


class Method(nn.Module):
    """One paper: set `encoder` and `views`, define `loss`. Adversarial papers define `updates` and `players` instead.

    Attributes:
        encoder: what the user keeps.
        views: raw batch -> what is shown and what is hidden; on the device, holds no network, draws from the generator only.
        recipe: the paper's optimiser settings.
        any_size: whether its abilities (see `selfsup.abilities`) take images of any height and width.
        resizes: whether its images may be resized; where not, as what is learned is in single pixels, larger ones are cut.
        on_cpu: whether it trains on the processor only, by a kernel of its own.
        learning_rate: of the step that is being made, told by the engine to methods that make their steps themselves.
        progress: of the training before the step that is being made, 0 to 1, told by the engine; 1 where nothing is trained.
    """

    encoder: Encoder
    views: Callable[[Batch, torch.Generator], Batch]
    recipe: ClassVar[Recipe] = Recipe()
    any_size: ClassVar[bool] = False
    resizes: ClassVar[bool] = True
    on_cpu: ClassVar[bool] = False
    learning_rate: float = 0.0
    progress: float = 1.0

    @classmethod
    def layout(cls, options: Mapping[str, Any]) -> Layout:  # noqa: ARG003
        """How text is cut into items for the method with these options of its own; see `selfsup.data.text.tokens.TextStore`."""
        return "packed"

    def loss(self, views: Batch) -> Tensor:
        """Scalar cost of a wrong guess. Random numbers here come from torch's global generator, seeded anew at every step."""
        raise TypeError(f"{type(self).__name__} defines neither loss nor updates")

    def updates(self, views: Batch) -> Iterator[Update]:
        """Yield losses in the paper's order; that player has been stepped when the next line runs."""
        loss, candidates = self.loss(views), self.candidates(views)
        yield Update(loss, metrics={"information": mutual_information(loss, candidates)} if candidates else NO_METRICS)

    def candidates(self, views: Batch) -> int | None:
        """N of a loss that finds the one partner among N, over all processes; None for other losses. Says what "information" is logged."""
        return None

    def players(self) -> dict[str, nn.Module]:
        """Who owns an optimiser, by name; nobody where the method makes its steps itself.

        Parameters with `requires_grad=False`, such as a teacher's, are never stepped.
        """
        return {"main": self}

    def after_step(self, progress: float) -> None:
        """Move teachers and queues, once all players have stepped; progress runs from 0 to 1 over the training."""

    def embed(self, x: Tensor) -> Tensor:
        """(B, ...) clean inputs -> (B, width)."""
        return self.encoder(x)

    def compared(self, x: Tensor) -> Tensor | None:
        """(B, ...) clean inputs -> (B, D), what the loss compares of them; None where it compares no vectors of two views.

        It is watched: a loss that has let it collapse teaches nothing more, however well the encoder's own vectors are still spread.
        """
        return None
