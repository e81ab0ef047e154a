"""Networks that know no paper: encoders with a `width`, heads, decoders. `build_encoder` imports only the one that is named."""

from selfsup.method import Encoder
from selfsup.models.build import ENCODERS, build_encoder, dress, input_channels, wrap

__all__ = ["ENCODERS", "Encoder", "build_encoder", "dress", "input_channels", "wrap"]
