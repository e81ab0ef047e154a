"""From a code to the input: a decoder, what its prediction costs, and what it says in the units of the data. Shared by all autoencoders.

Axes: B items in the batch; `shape` is that of an item, (C, S, S) or (D,).
"""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from selfsup.method import Encoder
from selfsup.models.normalize import Normalize
from selfsup.models.table import as_mean, filled, known_values, row_error

ErrorKind = Literal["squared_error", "cross_entropy"]


class Reconstruction(nn.Module):
    """g, and the error of what it predicts: squared, for outputs of any range, or cross entropy, for values in [0, 1].

    Images are predicted in [0, 1]. Vectors whose encoder standardises them are predicted in standard deviations under the squared error,
    so that no column counts for its unit; what is missing in them costs nothing, and the categories of a table are always predicted by
    cross entropy.

    Args:
        decoder: code -> unbounded numbers of the input's shape.
        error: squared_error or cross_entropy.
        encoder: that of the inputs, for its standardising layer.
        image_size: S in pixels, 0 for vectors.
        blocks: of rows of a table, the places (start, stop) of every category.

    Raises:
        ValueError: another error, or cross entropy of the numbers of a table.
    """

    def __init__(
        self, decoder: nn.Module, error: ErrorKind, encoder: Encoder, image_size: int, blocks: Sequence[tuple[int, int]] = ()
    ) -> None:
        super().__init__()
        if error not in ("squared_error", "cross_entropy"):
            raise ValueError(f'reconstruction must be "squared_error" or "cross_entropy", got "{error}"')
        if blocks and error != "squared_error":
            raise ValueError(f"rows of tables need reconstruction squared_error, got {error}; their categories have cross entropy anyway")
        self.decoder, self.error, self.image_size, self.blocks = decoder, error, image_size, tuple(blocks)
        self.standard = standardising(encoder) if image_size == 0 and error == "squared_error" else None

    def forward(self, z: Float[Tensor, "B *code"]) -> Float[Tensor, "B *shape"]:
        """The prediction before the last nonlinearity, if there is one; `errors` and `in_units` know what it means."""
        return self.decoder(z).float()

    def errors(self, predicted: Float[Tensor, "B *shape"], clean: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """The error of each value of what `forward` gave, with `clean` in the units of the data; its mean is over what is known."""
        if self.error == "cross_entropy":
            return cross_entropy(predicted, clean)
        target = self.standard(clean) if self.standard else clean
        if self.image_size:
            return squared_error(predicted, target)
        known = known_values(clean, self.blocks)
        return as_mean(row_error(predicted, target, known, self.blocks), known)

    def in_units(self, predicted: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """What `forward` gave as a person sees it: images in [0, 1], vectors as they are in the data, categories as probabilities."""
        if self.error == "cross_entropy":
            return predicted.sigmoid()
        if self.standard:
            return filled(predicted * self.standard.std + self.standard.mean, self.blocks)
        return predicted.clamp(0, 1) if self.image_size else predicted

    def standard_numbers(self) -> tuple[Tensor, Tensor] | None:
        """Mean and deviation of each column, (D,) each, where vectors are standardised."""
        return (self.standard.mean, self.standard.std) if self.standard else None


def standardising(encoder: nn.Module) -> Normalize | None:
    """The layer that standardises an encoder's inputs, its own or that of the encoder within it; None where there is none."""
    layer = getattr(encoder, "normalize", None)
    within = getattr(encoder, "encoder", None)
    if isinstance(layer, Normalize):
        return layer
    return standardising(within) if isinstance(within, nn.Module) else None


def squared_error(predicted: Float[Tensor, "*shape"], clean: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """(x - z)^2 of each value."""
    return (predicted - clean) ** 2


def cross_entropy(predicted: Float[Tensor, "*shape"], clean: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """-x log z - (1 - x) log(1 - z) of each value in nats, where z = sigmoid(predicted) and x is in [0, 1].

    Raises:
        ValueError: vectors outside of [0, 1]; images are never.
    """
    if clean.ndim == 2 and not bool((clean.amin() >= 0) & (clean.amax() <= 1)):
        got = f"{float(clean.amin()):.4g} to {float(clean.amax()):.4g}"
        raise ValueError(f"cross_entropy needs values in [0, 1], got {got}; choose reconstruction squared_error")
    return F.binary_cross_entropy_with_logits(predicted, clean, reduction="none")
