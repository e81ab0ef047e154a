"""VAE: Auto-Encoding Variational Bayes.

Kingma and Welling, ICLR 2014. https://arxiv.org/abs/1312.6114
beta: Higgins et al., beta-VAE, ICLR 2017.
Free bits: Kingma et al., NeurIPS 2016, appendix C.8. https://arxiv.org/abs/1606.04934

Modality   images, vectors, tables
Hidden     all of the input but what a noisy code z of it keeps.
Shown      the input as it is.
Predicted  a distribution of every value of the input, given z; z costs its divergence from N(0, I) (equation 10).

Axes: B items in the batch, K samples of each, Z length of z; images are (B, C, S, S), vectors (B, D).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from selfsup.distributed import sum_over_processes, world_size
from selfsup.losses import full_precision, wide
from selfsup.method import Batch, Encoder, Method, Recipe, Update
from selfsup.models.decoders import decoder_of_code
from selfsup.models.likelihoods import Bernoulli, check_shares, make_likelihood
from selfsup.views import sampling
from selfsup.views.crops import clean

ACTIVE = 0.01
"""A unit of z is active where the variance of its mean over the data is above it (Burda et al. 2016, section 5.2)."""


class CleanAndNoise:
    """The input as it is, "clean", and "noise" (B, Z) ~ N(0, I), the epsilon of section 2.4.

    Args:
        image_size: side of the central square that is shown, in pixels, 0 for vectors.
        latent_size: Z.
        binarise: each value becomes 1 with a chance of itself, else 0.
    """

    def __init__(self, image_size: int, latent_size: int, binarise: bool) -> None:
        self.image_size, self.latent_size, self.binarise = image_size, latent_size, binarise

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Draws the noise of each item, and its values where they are binarised."""
        x = clean(batch, self.image_size)
        if self.binarise:
            x = (sampling.uniform(len(x), generator, 0.0, 1.0, *x.shape[1:]) < x).to(x.dtype)
        return {"clean": x, "noise": sampling.normal(len(x), generator, self.latent_size)}


class VAE(Method):
    """q(z|x), two linear heads on the encoder, and p(x|z), a decoder; trained to make the evidence lower bound large.

    What the user keeps is the encoder without its heads: mu is linear in that vector, so whatever a linear model reads in mu it reads
    there too, and directions that the bound has switched off are not lost. `code` gives mu itself.

    Args:
        encoder: maps (B, C, S, S) or (B, D) to (B, encoder.width).
        image_size: S, side of an image, in pixels, 8 or more; 0 for vectors.
        categories: of rows of a table, the places (start, stop) of every category; see `selfsup.models.table`.
        latent_size: Z, length of the code; the papers have 2 to 200.
        beta: weight of the divergence, 0 or more, no unit; 1, the VAE paper's, makes the loss the negative bound, more disentangles.
        free_bits: nats of each unit of z that cost nothing, 0 or more, as a mean over the batch; the paper's 0.1 to 0.5 are for groups.
        likelihood: p(x|z): bernoulli for values in [0, 1], gaussian for values of any range; None for bernoulli of images, gaussian of
            vectors. The VAE paper has both.
        sigma: standard deviation of the gaussian, in units of images or in standard deviations of each column; None learns one.
        binarise: draw every value as 0 or 1, with a chance of itself, anew at each step; a bernoulli bound of gray values is none.
        hidden_size: width of both hidden layers of the decoder of vectors; that of images is convolutional.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=1e-3, batch_size=128, weight_decay=0.0)

    def __init__(
        self,
        encoder: Encoder,
        *,
        image_size: int = 32,
        categories: Sequence[tuple[int, int]] = (),
        latent_size: int = 50,
        beta: float = 1.0,
        free_bits: float = 0.0,
        likelihood: Literal["bernoulli", "gaussian"] | None = None,
        sigma: float | None = None,
        binarise: bool = False,
        hidden_size: int = 512,
    ) -> None:
        super().__init__()
        if latent_size < 1 or hidden_size < 1:
            raise ValueError(f"latent_size and hidden_size must be at least 1, got {latent_size} and {hidden_size}")
        if beta < 0 or free_bits < 0:
            raise ValueError(f"beta and free_bits must be at least 0, got beta={beta}, free_bits={free_bits}")
        kind = likelihood or ("bernoulli" if image_size else "gaussian")
        if binarise and kind != "bernoulli":
            raise ValueError("binarise makes values of 0 and 1, which a gaussian cannot describe; choose likelihood bernoulli")
        self.encoder = encoder
        self.heads = nn.Linear(encoder.width, 2 * latent_size)
        self.decoder = decoder_of_code(encoder, latent_size, image_size=image_size, hidden_size=hidden_size)
        layer = getattr(encoder, "normalize", None)
        self.likelihood = make_likelihood(kind, image_size=image_size, sigma=sigma, normalize=layer, blocks=categories)
        self.latent_size, self.beta, self.free_bits = latent_size, beta, free_bits
        self.views = CleanAndNoise(image_size, latent_size, binarise)

    def posterior(self, x: Float[Tensor, "B *rest"]) -> tuple[Float[Tensor, "B Z"], Float[Tensor, "B Z"]]:
        """mu and log sigma^2 of q(z|x), in float32 also where the networks run in bfloat16."""
        mu, log_var = wide(self.heads(self.encoder(x))).chunk(2, dim=1)
        return mu, log_var

    def log_likelihood(self, x: Float[Tensor, "B *rest"], z: Float[Tensor, "*K B Z"]) -> Float[Tensor, "*K B"]:
        """log p(x|z) of each item and sample, in nats."""
        out = wide(self.decoder(z.flatten(0, -2)))
        return self.likelihood.log_prob(x, out.unflatten(0, z.shape[:-1]))

    def bound(self, views: Batch) -> tuple[Float[Tensor, "B"], Float[Tensor, "B Z"], Float[Tensor, "B Z"]]:
        """Equation 10 with L = 1: -log p(x|z) of each item, the divergence of each unit, both in nats, and mu."""
        x, noise = views["clean"], views["noise"]
        if isinstance(self.likelihood, Bernoulli):
            check_shares(x)
        mu, log_var = self.posterior(x)
        z = mu + (0.5 * log_var).exp() * noise
        return -self.log_likelihood(x, z), gaussian_kl(mu, log_var), mu

    def loss(self, views: Batch) -> Tensor:
        """Reconstruction + beta KL, in nats an item; `views` has "clean" and "noise" (B, Z)."""
        return next(self.updates(views)).loss

    def updates(self, views: Batch) -> Iterator[Update]:
        """The loss, with its two parts before beta and free bits, and how many units are active in the batch."""
        reconstruction, kl, mu = self.bound(views)
        loss = reconstruction.mean() + self.beta * charged(kl, self.free_bits)
        metrics = {
            "reconstruction_nats": reconstruction.mean(),
            "kl_nats": kl.sum(dim=1).mean(),
            "active_units": (mu.var(dim=0, correction=0) > ACTIVE).sum(),
        }
        yield Update(loss, metrics={name: value.detach() for name, value in metrics.items()})

    def code(self, x: Float[Tensor, "B *rest"]) -> Float[Tensor, "B Z"]:
        """mu of q(z|x)."""
        return self.posterior(x)[0]

    def decode(self, z: Float[Tensor, "B Z"]) -> Float[Tensor, "B *rest"]:
        """Mean of p(x|z)."""
        return self.likelihood.mean(wide(self.decoder(z)))

    def reconstruct(self, x: Float[Tensor, "B *rest"]) -> Float[Tensor, "B *rest"]:
        """Mean of p(x|mu)."""
        return self.decode(self.code(x))

    def sample(self, n: int) -> Float[Tensor, "{n} *rest"]:
        """Means of p(x|z) with z ~ N(0, I), from torch's global generator."""
        return self.decode(torch.randn(n, self.latent_size, device=self.heads.weight.device))

    def explain(self, x: Float[Tensor, "B *rest"]) -> Mapping[str, Tensor]:
        """What each unit of z costs, and how much its mean moves over the items; active units are above 0.01."""
        mu, log_var = self.posterior(x)
        return {
            "KL of each dimension, nats": gaussian_kl(mu, log_var).mean(dim=0),
            "Variance of each dimension's mean": mu.var(dim=0, correction=0),
        }


@full_precision
def gaussian_kl(mu: Float[Tensor, "B Z"], log_var: Float[Tensor, "B Z"]) -> Float[Tensor, "B Z"]:
    """KL(N(mu, sigma^2) || N(0, 1)) of each unit, in nats, 0 or more (appendix B)."""
    return 0.5 * (mu.square() + log_var.exp() - 1 - log_var)


@full_precision
def charged(kl: Float[Tensor, "B Z"], free_bits: float) -> Float[Tensor, ""]:
    """Sum over units of max(free_bits, mean divergence), the mean over the items of all processes (1606.04934, equation 15).

    A unit below its share gets no gradient, so that it is not switched off before the decoder has learnt to use it.
    """
    if free_bits == 0:
        return kl.sum(dim=1).mean()
    return (sum_over_processes(kl.mean(dim=0)) / world_size()).clamp(min=free_bits).sum()
