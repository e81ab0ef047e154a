"""Two networks of half the width, each of which sees some channels of an image and never the others (split-brain, 1611.09842)."""

import re

import torch
from jaxtyping import Float
from torch import Tensor

from selfsup.method import Encoder
from selfsup.models.build import build_half, input_channels
from selfsup.models.normalize import Normalize
from selfsup.views.lab import rgb_to_lab

LAB_MEAN, LAB_STD = (50.0, 0.0, 0.0), (25.0, 15.0, 15.0)
"""Of photographs, roughly: what the two networks of Lab standardise by."""


class Split(Encoder):
    """Both networks' vectors side by side: (B, C, H, W) in [0, 1] -> (B, first.width + second.width).

    Args:
        first: sees L of Lab, or the channels before the plus sign of `split`.
        second: sees a and b, or the channels after it.
        split: "lab", or numbers of channels such as "3+1".

    Attributes:
        spec: that of the encoder which was split, with "split".
    """

    def __init__(self, first: Encoder, second: Encoder, split: str) -> None:
        super().__init__()
        self.first, self.second, self.split = first, second, split
        self.width = first.width + second.width

    def parts(self, x: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B C1 H W"], Float[Tensor, "B C2 H W"]]:
        """What each of the two sees; L, a and b in units of Lab."""
        x = rgb_to_lab(x) if self.split == "lab" else x
        sizes = [input_channels(self.first), input_channels(self.second)]
        first, second = x.split(sizes, dim=1)
        return first, second

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B width"]:
        """(B, C, H, W) in [0, 1] -> (B, width)."""
        first, second = self.parts(x)
        return torch.cat([self.first(first), self.second(second)], dim=1)


def split_encoder(encoder: Encoder, split: str = "lab") -> Split:
    """Two new networks of the encoder's name, each with half of its planes; an encoder that is split already is returned as it is.

    Raises:
        ValueError: the channels do not go into such parts, or there is no network of half the width.
    """
    if isinstance(encoder, Split):
        if encoder.split != split:
            raise ValueError(f'expected an encoder with split="{split}", or one of whole images, got one with split="{encoder.split}"')
        return encoder
    channels = input_channels(encoder)
    first, second = split_channels(split, channels)
    layer = getattr(encoder, "normalize", None)
    mean, std = (layer.mean.tolist(), layer.std.tolist()) if isinstance(layer, Normalize) else (None, None)
    if split == "lab":
        mean, std = list(LAB_MEAN), list(LAB_STD)
    halves = [
        build_half(
            encoder.spec["name"], len(part), encoder.spec["image_size"], mean and [mean[i] for i in part], std and [std[i] for i in part]
        )
        for part in (range(first), range(first, first + second))
    ]
    both = Split(halves[0], halves[1], split)
    both.spec = {**encoder.spec, "split": split}
    return both


def split_channels(split: str, channels: int) -> tuple[int, int]:
    """How many channels each part has.

    Raises:
        ValueError: they are not those of the images.
    """
    if split == "lab":
        if channels != 3:
            raise ValueError(
                f'split="lab" is for red, green and blue images, 3 channels, got {channels}; choose --split "1+{channels - 1}", say'
            )
        return 1, 2
    found = re.fullmatch(r"([1-9]\d*)\+([1-9]\d*)", split)
    if found is None or int(found[1]) + int(found[2]) != channels:
        raise ValueError(f'split must be "lab", or two numbers of channels that make {channels}, such as "1+{channels - 1}", got "{split}"')
    return int(found[1]), int(found[2])
