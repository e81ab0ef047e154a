"""ResNet-18, 34 and 50 (He, Zhang, Ren and Sun 2015, https://arxiv.org/abs/1512.03385), for large and for small images.

Strides sit on the 3x3 convolution of a bottleneck, as in everybody's weights since 2016. Layers are plain modules and activations are
written in place, so that channels_last and bf16 autocast go through without a copy.

Axes: B images, C channels, H height, W width.
"""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from selfsup.method import Encoder
from selfsup.models.normalize import Normalize


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (figure 5, left)."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = _conv(inputs, planes, 3, stride), nn.BatchNorm2d(planes)
        self.conv2, self.last_norm = _conv(planes, planes, 3), nn.BatchNorm2d(planes)
        self.shortcut = _shortcut(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, planes * expansion, H / stride, W / stride)."""
        y = F.relu_(self.norm1(self.conv1(x)))
        return F.relu_(self.last_norm(self.conv2(y)).add_(self.shortcut(x)))


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up to four times the planes, and a shortcut (figure 5, right)."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        outputs = planes * self.expansion
        self.conv1, self.norm1 = _conv(inputs, planes, 1), nn.BatchNorm2d(planes)
        self.conv2, self.norm2 = _conv(planes, planes, 3, stride), nn.BatchNorm2d(planes)
        self.conv3, self.last_norm = _conv(planes, outputs, 1), nn.BatchNorm2d(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, planes * expansion, H / stride, W / stride)."""
        y = F.relu_(self.norm1(self.conv1(x)))
        y = F.relu_(self.norm2(self.conv2(y)))
        return F.relu_(self.last_norm(self.conv3(y)).add_(self.shortcut(x)))


DEPTHS = {18: (BasicBlock, (2, 2, 2, 2)), 34: (BasicBlock, (3, 4, 6, 3)), 50: (Bottleneck, (3, 4, 6, 3))}
"""Block and number of blocks in each of the four stages (table 1)."""


class ResNet(Encoder):
    """Residual network without its classifier: (B, C, H, W) in [0, 1] -> (B, 512), or (B, 2048) for depth 50.

    Args:
        depth: 18, 34 or 50.
        channels: C of the input.
        image_size: side in pixels that chooses the stem when `stem` is "auto".
        stem: "imagenet" is 7x7 with stride 2 and a 3x3 max pooling with stride 2, so that the first stage sees a quarter of the side;
            "small" is 3x3 with stride 1 and no pooling, as everybody has it on CIFAR-10; "auto" is "small" up to 64 pixels.
        zero_last_norm: start the last scale of every block at zero, so that each block begins as its shortcut (1706.02677, section 5.1).
        planes: channels of the first stage; each later one has twice as many.
        mean, std: of the data, for each channel.

    Raises:
        ValueError: another depth or stem, or no channels.
    """

    def __init__(
        self,
        depth: int = 18,
        *,
        channels: int = 3,
        image_size: int = 224,
        stem: Literal["auto", "imagenet", "small"] = "auto",
        zero_last_norm: bool = False,
        planes: int = 64,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if depth not in DEPTHS:
            raise ValueError(f"depth must be one of {', '.join(map(str, DEPTHS))}, got {depth}")
        if stem not in ("auto", "imagenet", "small"):
            raise ValueError(f'stem must be "auto", "imagenet" or "small", got "{stem}"')
        block, counts = DEPTHS[depth]
        self.normalize = Normalize(channels, mean, std)
        if stem == "small" or (stem == "auto" and image_size <= 64):
            self.stem = nn.Sequential(_conv(channels, planes, 3), nn.BatchNorm2d(planes), nn.ReLU(inplace=True))
        else:
            self.stem = nn.Sequential(_conv(channels, planes, 7, 2), nn.BatchNorm2d(planes), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))
        stages, inputs = [], planes
        for stage, count in enumerate(counts):
            for i in range(count):
                stages.append(block(inputs, planes * 2**stage, stride=2 if stage > 0 and i == 0 else 1))
                inputs = planes * 2**stage * block.expansion
        self.blocks = nn.Sequential(*stages)
        self.width = inputs
        self._initialise(zero_last_norm)

    def feature_map(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B width h w"]:
        """What is averaged into the vector; h is H / 32 with the ImageNet stem, H / 8 with the small one, rounded up."""
        return self.blocks(self.stem(self.normalize(x)))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B width"]:
        """(B, C, H, W) in [0, 1] -> (B, width), of any size."""
        return self.feature_map(x).mean(dim=(2, 3))

    def _initialise(self, zero_last_norm: bool) -> None:
        """Convolutions N(0, 2 / fan_out) (1502.01852); normalisation starts with scale 1, or 0 at a block's end, and shift 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, (BasicBlock, Bottleneck)) and zero_last_norm:
                nn.init.zeros_(module.last_norm.weight)
