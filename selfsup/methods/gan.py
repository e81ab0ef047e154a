"""GAN: Generative Adversarial Nets, with the networks and settings of DCGAN.

Goodfellow et al., NeurIPS 2014. https://arxiv.org/abs/1406.2661
DCGAN: Radford, Metz and Chintala, ICLR 2016. https://arxiv.org/abs/1511.06434

Modality   images
Hidden     whether an image is from the data or made by the generator from noise.
Shown      real images as they are, and as many made ones.
Predicted  real or made; the generator learns to make the discriminator, whose trunk is kept, predict wrongly.

Axes: B images in the batch, C channels, S side of an image, Z length of the noise.
"""

from collections.abc import Iterator
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from selfsup.method import Batch, Encoder, Method, Recipe, Update
from selfsup.models import input_channels
from selfsup.models.dcgan import Generator
from selfsup.views.crops import clean


class Clean:
    """The central square of every image, "image" (B, C, S, S) in [0, 1]; nothing random, since G would learn to make the changes too."""

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        return {"image": clean(batch, self.image_size)}


class GAN(Method):
    """Discriminator D = linear head on the encoder, and generator G (algorithm 1, one step of D for one of G).

    Args:
        encoder: trunk of D, maps (B, C, S, S) to (B, encoder.width).
        image_size: S, side of real and of made images, in pixels, 8 or more; the DCGAN paper's is 64.
        latent_size: Z, length of the noise; the DCGAN paper's is 100.
    """

    # Section 4 of DCGAN: Adam with rate 2e-4 and beta_1 0.5, batches of 128, no decay of any kind.
    recipe: ClassVar[Recipe] = Recipe(
        optimizer="adamw", lr=2e-4, batch_size=128, weight_decay=0.0, momentum=0.5, schedule="constant", warmup=0.0, encoder="dcgan"
    )

    def __init__(self, encoder: Encoder, *, image_size: int = 64, latent_size: int = 100) -> None:
        super().__init__()
        if latent_size < 1:
            raise ValueError(f"latent_size must be at least 1, got {latent_size}")
        self.encoder = encoder
        head = nn.Linear(encoder.width, 1)
        nn.init.normal_(head.weight, 0.0, 0.02)
        nn.init.zeros_(head.bias)
        self.discriminator = nn.Sequential(encoder, head)
        self.generator = Generator(latent_size, input_channels(encoder), image_size)
        self.latent_size = latent_size
        self.views = Clean(image_size)

    def players(self) -> dict[str, nn.Module]:
        """D, trunk included, and G; each has its own optimiser."""
        return {"discriminator": self.discriminator, "generator": self.generator}

    def updates(self, views: Batch) -> Iterator[Update]:
        """D's loss, then, once D has been stepped, G's; `views` has "image" (B, C, S, S) in [0, 1]."""
        real = views["image"]
        with torch.no_grad():
            made = self.generator(self.noise(len(real)))
        # Real and made images in batches of their own, so that batch normalisation does not mix them.
        d_real, d_made = self.discriminator(real).float(), self.discriminator(made).float()
        metrics = {"D(x)": d_real.detach().sigmoid().mean(), "D(G(z))": d_made.detach().sigmoid().mean()}
        yield Update(discriminator_loss(d_real, d_made), "discriminator", metrics)

        d_made = self.discriminator(self.generator(self.noise(len(real)))).float()  # D has been stepped, the noise is new
        yield Update(generator_loss(d_made), "generator")

    def noise(self, n: int) -> Float[Tensor, "{n} Z"]:
        """z ~ N(0, I), from torch's global generator."""
        device = next(self.generator.parameters()).device
        return torch.randn(n, self.latent_size, device=device)

    @torch.no_grad()
    def sample(self, n: int) -> Float[Tensor, "{n} C S S"]:
        """n made images in [0, 1], from noise of torch's global generator, with the running statistics of batch normalisation."""
        training = self.generator.training
        images = self.generator.eval()(self.noise(n))
        self.generator.train(training)
        return images


def discriminator_loss(real: Float[Tensor, "B 1"], made: Float[Tensor, "B 1"]) -> Float[Tensor, ""]:
    """-log D(x) - log(1 - D(G(z))), means over the batch, from the logits of D; 2 log 2 where D cannot tell."""
    return F.softplus(-real).mean() + F.softplus(made).mean()


def generator_loss(made: Float[Tensor, "B 1"]) -> Float[Tensor, ""]:
    """-log D(G(z)), mean over the batch: section 3's way out of vanishing gradients; log 2 where D cannot tell."""
    return F.softplus(-made).mean()
