"""Encoders whose vector is the mean of a map of vectors, for papers that need the map."""

from jaxtyping import Float
from torch import Tensor

from selfsup.method import Encoder


class MapEncoder(Encoder):
    """A convolutional encoder: define `map`.

    Attributes:
        downsample: by what the sides of an image are divided, and rounded up, to give those of its map.
    """

    downsample: int

    def map(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B width h w"]:
        """(B, C, H, W) in [0, 1] -> (B, width, h, w)."""
        raise NotImplementedError

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B width"]:
        """The map's mean over its positions."""
        return self.map(x).mean(dim=(2, 3))
