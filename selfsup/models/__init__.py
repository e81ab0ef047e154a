"""Networks that know no paper: encoders with a `width`, heads, decoders. `build_encoder` imports only the one that is named."""

from selfsup.method import Encoder
from selfsup.models.build import ENCODERS, OF_VECTORS, build_encoder, dress, input_channels, wrap

__all__ = ["ENCODERS", "OF_VECTORS", "Encoder", "build_encoder", "dress", "input_channels", "wrap"]
