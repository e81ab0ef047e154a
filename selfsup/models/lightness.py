"""An encoder that sees how light an image is, and none of its colours (colorization, 1603.08511)."""

from jaxtyping import Float
from torch import Tensor

from selfsup.method import Encoder
from selfsup.models.build import input_channels
from selfsup.models.maps import feature_map
from selfsup.views.lab import gray


class Lightness(Encoder):
    """Images lose their colours, L of Lab remaining, before the encoder sees them: (B, 3, H, W) in [0, 1] -> (B, encoder.width).

    Args:
        encoder: takes three channels, which are equal here.

    Attributes:
        spec: the encoder's, with "sees": "lightness".
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.width = encoder.width
        self.spec = {**vars(encoder).get("spec", {}), "sees": "lightness"}

    def feature_map(self, x: Float[Tensor, "B 3 H W"]) -> Tensor:
        """The encoder's own map, or its vector where it has none."""
        return feature_map(self.encoder, gray(x))

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B width"]:
        """(B, 3, H, W) in [0, 1], of any colours -> (B, width)."""
        return self.encoder(gray(x))


def seeing(encoder: Encoder, sees: str = "lightness") -> Lightness:
    """The encoder of lightness; one that is already is returned as it is.

    Raises:
        ValueError: its images are not red, green and blue.
    """
    if sees != "lightness":
        raise ValueError(f'an encoder sees "lightness" where it does not see everything, got "{sees}"')
    if isinstance(encoder, Lightness):
        return encoder
    if (channels := input_channels(encoder)) != 3:
        raise ValueError(f"colours are those of red, green and blue images, 3 channels, got images of {channels}")
    return Lightness(encoder)
