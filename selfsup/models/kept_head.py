"""An encoder that keeps the first layers of the head it was trained with (SimCLR, version 2)."""

from jaxtyping import Float
from torch import Tensor

from selfsup.method import Encoder
from selfsup.models.heads import mlp

MODULES = 3
"""Of a hidden layer of `mlp`: linear, batch normalisation, ReLU."""


class EncoderAndHead(Encoder):
    """What the head's hidden layers make of the encoder's vector: (B, ...) -> (B, hidden_size).

    Args:
        encoder: (B, ...) -> (B, encoder.width).
        hidden_size: width of every hidden layer of the head.
        layers: how many of them are kept, 1 or more.

    Attributes:
        spec: the encoder's, with "head": {"hidden_size", "layers"}.
    """

    def __init__(self, encoder: Encoder, *, hidden_size: int, layers: int) -> None:
        super().__init__()
        if hidden_size < 1 or layers < 1:
            raise ValueError(f"a head that is kept has at least 1 layer of at least 1, got {layers=}, {hidden_size=}")
        self.encoder = encoder
        self.head = mlp(encoder.width, *[hidden_size] * (layers + 1))[: MODULES * layers]
        self.width, self.layers = hidden_size, layers
        self.spec = {**vars(encoder).get("spec", {}), "head": {"hidden_size": hidden_size, "layers": layers}}

    def forward(self, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B width"]:
        """(B, ...) clean inputs -> (B, width)."""
        return self.head(self.encoder(x))


def with_head(encoder: Encoder, *, hidden_size: int, layers: int) -> Encoder:
    """The encoder with so many hidden layers on it; itself for none, or where it has them already.

    Raises:
        ValueError: it has others already.
    """
    if isinstance(encoder, EncoderAndHead):
        if (encoder.width, encoder.layers) != (hidden_size, layers):
            got = f"{encoder.layers} layers of {encoder.width}"
            raise ValueError(f"expected an encoder with {layers} layers of {hidden_size} on it, or one with none, got one with {got}")
        return encoder
    return EncoderAndHead(encoder, hidden_size=hidden_size, layers=layers) if layers else encoder
