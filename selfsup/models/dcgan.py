"""The two networks of DCGAN (Radford, Metz and Chintala 2015, https://arxiv.org/abs/1511.06434), for any square image.

No pooling but strides, batch normalisation in both but at the generator's output and the discriminator's input, ReLU in the generator,
LeakyReLU of slope 0.2 in the discriminator, all weights from N(0, 0.02^2) (sections 3 and 4).
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from selfsup.method import Encoder
from selfsup.models.decoders import ImageDecoder, halvings, plane_counts
from selfsup.models.normalize import Normalize


class Discriminator(Encoder):
    """All of the discriminator but its last linear layer: (B, C, S, S) in [0, 1] -> (B, width).

    4x4 convolutions of stride 2 halve the side until it is 4 or less; the last map is flattened, as the paper does before its single
    output. At 64 pixels that is 512 planes of 4x4, a width of 8,192; at 28 it is 256 of 3x3, 2,304.

    Args:
        channels: C of the images.
        image_size: S in pixels, 8 or more; fixed, since the map is flattened.
        base: planes of the first map; they double with each halving, to 512 at most.
        mean, std: of the data, for each channel.

    Raises:
        ValueError: an image below 8 pixels.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        image_size: int = 64,
        base: int = 64,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        planes = plane_counts(image_size, base)[::-1]
        self.image_size = image_size
        self.width = planes[-1] * halvings(image_size)[0] ** 2
        self.normalize = Normalize(channels, mean, std)
        layers: list[nn.Module] = []
        for i, (inputs, outputs) in enumerate(zip([channels, *planes[:-1]], planes, strict=True)):
            layers.append(nn.Conv2d(inputs, outputs, 4, 2, 1, bias=i == 0))
            layers += [nn.BatchNorm2d(outputs)] if i else []
            layers += [nn.LeakyReLU(0.2, inplace=True)]
        self.shrink = nn.Sequential(*layers)
        initialise(self)

    def forward(self, x: Float[Tensor, "B C S S"]) -> Float[Tensor, "B width"]:
        """(B, C, image_size, image_size) in [0, 1] -> (B, width).

        Raises:
            ValueError: another size.
        """
        if x.shape[2:] != (self.image_size, self.image_size):
            raise ValueError(f"expected (B, C, {self.image_size}, {self.image_size}), got {tuple(x.shape)}; the last map is flattened")
        return self.feature_map(x).flatten(1)

    def feature_map(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B planes h w"]:
        """What is flattened into the vector, of images of any size."""
        return self.shrink(self.normalize(x))


class Generator(nn.Module):
    """(B, latent_size) noise -> (B, C, S, S) in [0, 1]: `ImageDecoder` under a tanh, with DCGAN's initial weights.

    Args:
        latent_size: length of z; the paper's is 100.
        channels: C of the images.
        image_size: S in pixels, 8 or more.
        base: planes of the last hidden map.
    """

    def __init__(self, latent_size: int, channels: int, image_size: int, base: int = 64) -> None:
        super().__init__()
        self.decoder = ImageDecoder(latent_size, channels, image_size, base)
        initialise(self)

    def forward(self, z: Float[Tensor, "B latent_size"]) -> Float[Tensor, "B C S S"]:
        """(B, latent_size) noise -> (B, C, S, S) in [0, 1]."""
        return self.decoder(z).tanh() * 0.5 + 0.5  # the paper's [-1, 1], in the units of images here


def initialise(module: nn.Module) -> None:
    """Weights N(0, 0.02^2), biases 0; scales of batch normalisation N(1, 0.02^2), as in the authors' code."""
    for m in module.modules():
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.normal_(m.weight, 0.0, 0.02)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
        elif isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.weight, 1.0, 0.02)
            nn.init.zeros_(m.bias)
