"""Sigmoid layers one on top of the other, for vectors and for images of a fixed size (Vincent et al., JMLR 2010, section 2).

Axes: B items, C channels, S side of an image, D values of an item: its numbers, or C S S for images.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from selfsup.method import Encoder
from selfsup.models.normalize import Normalize


class Stack(Encoder):
    """y = s(W x + b), layer after layer, with s the logistic sigmoid: (B, C, S, S) in [0, 1] or (B, D) -> (B, width).

    Weights and biases start uniform in +- 1 / sqrt(inputs of the layer).

    Args:
        channels: C of images, D of vectors.
        image_size: S in pixels, fixed, since every pixel has weights of its own; 0 for vectors.
        width: units of every layer; the paper's is 1000 to 3000.
        depth: number of layers, 1 or more; the paper's is up to 3.
        mean, std: of the data, for each channel; None for 0.5 and 0.25 for images, 0 and 1 for vectors, which have no natural range.

    Raises:
        ValueError: no layer, or one without units.
    """

    def __init__(
        self,
        *,
        channels: int,
        image_size: int = 0,
        width: int = 1000,
        depth: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if width < 1 or depth < 1:
            raise ValueError(f"a stack has at least 1 layer of at least 1 unit, got {depth=}, {width=}")
        if image_size == 0:
            mean, std = [0.0] * channels if mean is None else mean, [1.0] * channels if std is None else std
        self.shape = (channels, image_size, image_size) if image_size else (channels,)
        self.width = width
        self.normalize = Normalize(channels, mean, std)
        sizes = [math.prod(self.shape), *[width] * depth]
        self.layers = nn.ModuleList(nn.Linear(sizes[i], sizes[i + 1]) for i in range(depth))

    @property
    def linears(self) -> list[nn.Linear]:
        """W and b of each layer, the lowest first."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def up(self, k: int, h: Float[Tensor, "B *rest"]) -> Float[Tensor, "B width"]:
        """Layer k, from 0, on what the layer below gave, or on inputs as `forward` takes them.

        Raises:
            ValueError: inputs of another shape.
        """
        if k == 0:
            if tuple(h.shape[1:]) != self.shape:
                raise ValueError(
                    f"expected (B, {', '.join(map(str, self.shape))}), got {tuple(h.shape)}; each value has weights of its own"
                )
            h = self.normalize(h).flatten(1)
        return self.layers[k](h).sigmoid()

    def below(self, k: int, x: Float[Tensor, "B *rest"]) -> Float[Tensor, "B *below"]:
        """What layer k, from 0, is given for a clean input: the input itself, or what layer k - 1 makes of it."""
        for i in range(k):
            x = self.up(i, x)
        return x

    def forward(self, x: Float[Tensor, "B *rest"]) -> Float[Tensor, "B width"]:
        """(B, C, S, S) in [0, 1], or (B, D) -> (B, width) in [0, 1]."""
        return self.below(len(self.layers), x)


class TiedDecoder(nn.Module):
    """Back down through transposed weights (section 2.1: W' = W^T), with biases of its own: (B, width) -> (B, *shape), unbounded.

    Args:
        layers: of a `Stack`, neighbours, the lowest first; their weights are shared.
        shape: of an item below them.
    """

    def __init__(self, layers: Sequence[nn.Linear], shape: Sequence[int]) -> None:
        super().__init__()
        self.layers, self.shape = nn.ModuleList(layers), tuple(shape)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(layer.in_features)) for layer in layers)

    def forward(self, h: Float[Tensor, "B width"]) -> Float[Tensor, "B *shape"]:
        """The last sigmoid, where values are in [0, 1], is left out."""
        for k in reversed(range(len(self.layers))):
            h = F.linear(h, self.layers[k].get_parameter("weight").T, self.biases[k])
            h = h.sigmoid() if k else h
        return h.unflatten(1, self.shape)


def only_stack(encoder: Encoder, why: str) -> Stack:
    """The encoder itself, for what needs plain layers.

    Args:
        encoder: of any kind.
        why: what needs them, the start of the message.

    Raises:
        ValueError: it is no `Stack`.
    """
    if not isinstance(encoder, Stack):
        name = vars(encoder).get("spec", {}).get("name", type(encoder).__name__)
        raise ValueError(f"{why} fully connected sigmoid layers, got encoder {name}; choose --encoder stack")
    return encoder
