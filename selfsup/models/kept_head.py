"""An encoder that keeps the first layers of the head it was trained with (SimCLR, version 2), or the layer that makes its code."""

from jaxtyping import Float
from torch import Tensor, nn

from selfsup.method import Encoder
from selfsup.models.heads import mlp

MODULES = 3
"""Of a hidden layer of `mlp`: linear, batch normalisation, ReLU."""


class EncoderAndHead(Encoder):
    """What kept layers make of the encoder's vector: (B, ...) -> (B, code_size or hidden_size).

    Args:
        encoder: (B, ...) -> (B, encoder.width).
        hidden_size: width of every hidden layer of the head.
        layers: how many of them are kept.
        code_size: width of a linear layer on top of them, 0 for none.

    Attributes:
        spec: the encoder's, with "head": {"hidden_size", "layers"}, {"code_size"}, or all three.
    """

    def __init__(self, encoder: Encoder, *, hidden_size: int = 0, layers: int = 0, code_size: int = 0) -> None:
        super().__init__()
        if min(hidden_size, layers, code_size) < 0 or (layers == 0 and code_size == 0) or (layers > 0 and hidden_size == 0):
            raise ValueError(f"a head that is kept has at least 1 layer of at least 1, got {layers=}, {hidden_size=}, {code_size=}")
        self.encoder = encoder
        hidden = list(mlp(encoder.width, *[hidden_size] * (layers + 1)))[: MODULES * layers] if layers else []
        code = [nn.Linear(hidden_size if layers else encoder.width, code_size)] if code_size else []
        self.head = nn.Sequential(*hidden, *code)
        self.width = code_size or hidden_size
        self.kept = _arguments(hidden_size, layers, code_size)
        self.spec = {**vars(encoder).get("spec", {}), "head": self.kept}

    def forward(self, x: Float[Tensor, "B ..."]) -> Float[Tensor, "B width"]:
        """(B, ...) clean inputs -> (B, width)."""
        return self.head(self.encoder(x))


def _arguments(hidden_size: int, layers: int, code_size: int) -> dict[str, int]:
    hidden = {"hidden_size": hidden_size, "layers": layers} if layers else {}
    return {**hidden, "code_size": code_size} if code_size else hidden


def _in_words(arguments: dict[str, int]) -> str:
    hidden = f"{arguments['layers']} layers of {arguments['hidden_size']}" if "layers" in arguments else ""
    code = f"a code of {arguments['code_size']}" if "code_size" in arguments else ""
    return " and ".join(filter(None, (hidden, code))) or "nothing"


def with_head(encoder: Encoder, *, hidden_size: int = 0, layers: int = 0, code_size: int = 0) -> Encoder:
    """The encoder with so many hidden layers and such a code on it; itself for neither, or where it has them already.

    Raises:
        ValueError: it has others already.
    """
    if isinstance(encoder, EncoderAndHead):
        wanted = _arguments(hidden_size, layers, code_size)
        if encoder.kept != wanted:
            got = f"got one with {_in_words(encoder.kept)}"
            raise ValueError(f"expected an encoder with {_in_words(wanted)} on it, or one with none, {got}")
        return encoder
    return EncoderAndHead(encoder, hidden_size=hidden_size, layers=layers, code_size=code_size) if layers or code_size else encoder
