"""An encoder for vectors: rows of a table, or features of another network."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from selfsup.method import Encoder
from selfsup.models.heads import mlp
from selfsup.models.normalize import Normalize


class MLP(Encoder):
    """Two hidden layers with batch normalisation and ReLU: (B, D) -> (B, width).

    Args:
        channels: D, length of the input.
        hidden_size: width of both hidden layers.
        width: length of the output.
        mean, std: of the data, for each of the D columns; None for 0 and 1, since vectors have no natural range.
    """

    def __init__(
        self,
        *,
        channels: int,
        hidden_size: int = 512,
        width: int = 256,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.width = width
        self.normalize = Normalize(channels, [0.0] * channels if mean is None else mean, [1.0] * channels if std is None else std)
        self.net = mlp(channels, hidden_size, hidden_size, width)

    def forward(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B width"]:
        """(B, D) of any range -> (B, width)."""
        return self.net(self.normalize(x))
