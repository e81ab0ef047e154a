"""VQ-VAE: Neural Discrete Representation Learning.

Van den Oord, Vinyals and Kavukcuoglu, NeurIPS 2017. https://arxiv.org/abs/1711.00937
The prior: van den Oord et al., Conditional Image Generation with PixelCNN Decoders, NeurIPS 2016. https://arxiv.org/abs/1606.05328
Dead codes restarted: Dhariwal et al., Jukebox, 2020, section 3.1. https://arxiv.org/abs/2005.00341

Modality   images
Hidden     all of an image but a map of whole numbers: at each position, which vector of a codebook is nearest to the encoder's.
Shown      the image as it is.
Predicted  its pixels, from the codebook's vectors, by squared error; a second player predicts each code from those before it.

Axes: B images, C channels, S side of an image, h and w sides of the map, N = B h w positions, D length of a code's vector, K codes.
"""

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from selfsup.distributed import gather, rank, sum_over_processes, world_size
from selfsup.losses import full_precision
from selfsup.method import Batch, Encoder, Method, Recipe, Update
from selfsup.models import input_channels
from selfsup.models.maps import downsampling, feature_map
from selfsup.models.normalize import Normalize
from selfsup.models.pixelcnn import LOGIT, ExactPixelCNN, PixelCNN
from selfsup.models.vq import VQDecoder
from selfsup.views.crops import clean

ROWS = 2**14
"""Positions whose distances to all codes are in memory at a time."""

POSITIONS = 2**10
"""Positions of the maps that are encoded or decoded together after the training."""


class Whole:
    """The central square of every image, "image" (B, C, S, S) in [0, 1], and nothing random: what is learned is to give it back."""

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        return {"image": clean(batch, self.image_size)}


class VQVAE(Method):
    """Encoder z_e, codebook e, decoder, and a prior over the codes, which samples and by which `selfsup compress` can count its bits.

    The encoder that is kept gives the mean over positions of the map that is quantised, before its projection to D. Images of any size
    can be encoded: the map's sides are the image's divided by `encoder.downsample`, rounded up. The prior is a player of its own, trained
    on the codes without a gradient to the encoder; the paper trains it afterwards, here it begins when `prior_from` of the training is
    over, so that the codes have nearly settled and both end with the same decay of the rate.

    Args:
        encoder: has a map: vq_2, vq_4, vq_8, vq_16 or small; the paper divides sides by 4.
        image_size: S, side of an image, in pixels.
        codebook_size: K, number of codes, 2 to 16384; the paper's is 512.
        code_size: D, length of a code's vector; that of the authors' example is 64.
        codebook: what moves the codes: "loss", the second term of equation 3 and the optimiser, or "ema", running means of the encoder's
            vectors (appendix A.1); the paper's main experiments have the loss.
        beta: weight of the commitment, third term of equation 3, no unit, at least 0; the paper's is 0.25.
        gamma: share of the running means that stays at each step, 0 to 1; the paper's is 0.99.
        restart: a code used less often than this share of the average is put on a vector of the batch, 0 for never; the paper has none.
        prior_planes: width of the prior.
        prior_layers: of the prior; each sees one row and two columns more.
        prior_from: part of the training after which the prior is trained, 0 to 1.
    """

    # Section 4.1: Adam with rate 2e-4, batches of 128, 250,000 steps.
    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=1e-3, batch_size=128, weight_decay=0.0, encoder="vq_4")

    usage: Tensor
    sums: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        image_size: int = 32,
        codebook_size: int = 512,
        code_size: int = 64,
        codebook: Literal["ema", "loss"] = "ema",
        beta: float = 0.25,
        gamma: float = 0.99,
        restart: float = 0.03,
        prior_planes: int = 64,
        prior_layers: int = 5,
        prior_from: float = 0.5,
    ) -> None:
        super().__init__()
        downsample = downsampling(encoder)
        if downsample is None:
            got = vars(encoder).get("spec", {}).get("name", type(encoder).__name__)
            raise ValueError(f'vqvae needs an encoder with a map of vectors: vq_2, vq_4, vq_8, vq_16 or small; got "{got}"')
        if codebook not in ("ema", "loss"):
            raise ValueError(f'codebook must be "ema" or "loss", got "{codebook}"')
        if not 2 <= codebook_size <= 2**14 or min(code_size, prior_planes, prior_layers) < 1:
            got = f"{codebook_size=}, {code_size=}, {prior_planes=}, {prior_layers=}"
            raise ValueError(f"codebook_size must be 2 to 16384, the sizes of codes and prior at least 1, got {got}")
        if beta < 0 or restart < 0 or not 0 <= gamma <= 1 or not 0 <= prior_from <= 1:
            raise ValueError(
                f"beta and restart must be at least 0, gamma and prior_from 0 to 1, got {beta=}, {restart=}, {gamma=}, {prior_from=}"
            )
        channels = input_channels(encoder)
        self.encoder = encoder
        self.projection = nn.Conv2d(encoder.width, code_size, 1)
        self.codebook = nn.Embedding(codebook_size, code_size)
        nn.init.uniform_(self.codebook.weight, -1 / codebook_size, 1 / codebook_size)
        self.codebook.requires_grad_(codebook == "loss")
        self.decoder = VQDecoder(code_size, downsample, channels)
        self.prior = PixelCNN(codebook_size, prior_planes, prior_layers)
        self.register_buffer("usage", torch.zeros(codebook_size))  # N of appendix A.1: running mean of a code's vectors in a step
        self.register_buffer("sums", torch.zeros(codebook_size, code_size))  # m of appendix A.1: running mean of their sum
        layer = getattr(encoder, "normalize", None)
        self.normalize = layer if isinstance(layer, Normalize) else Normalize(channels, [0.0] * channels, [1.0] * channels)
        self.image_size, self.codebook_size, self.downsample = image_size, codebook_size, downsample
        self.moved_by, self.beta, self.gamma, self.restart, self.prior_from = codebook, beta, gamma, restart, prior_from
        self.views = Whole(image_size)
        self._seen: list[tuple[Tensor, Tensor, Tensor]] = []  # of this step's micro-batches: counts and sums of codes, vectors to restart

    def players(self) -> dict[str, nn.Module]:
        """The autoencoder, and the prior over its codes."""
        return {"main": nn.ModuleList([self.encoder, self.projection, self.codebook, self.decoder]), "prior": self.prior}

    def loss(self, views: Batch) -> Tensor:
        """Equation 3, the first player's."""
        return next(self.updates(views)).loss

    def updates(self, views: Batch) -> Iterator[Update]:
        """Equation 3 of the autoencoder, then the prior's cross entropy; `views` has "image" (B, C, S, S) in [0, 1]."""
        z_e = self._z_e(views["image"])
        codes = nearest(z_e, self.codebook.weight)
        e = self.codebook(codes).permute(0, 3, 1, 2)
        z_q = z_e + (e - z_e).detach()  # straight through: the decoder's gradient goes to z_e as it is
        height, width = views["image"].shape[2:]
        x_hat = self.decoder(z_q)[:, :, :height, :width]
        x = self.normalize(views["image"])
        counts = torch.bincount(codes.flatten(), minlength=self.codebook_size).float()
        if self.training:
            self._collect(z_e, codes, counts)
        error = F.mse_loss(x_hat.detach().float(), x)
        metrics = {"perplexity": perplexity(sum_over_processes(counts)), "reconstruction": error}
        loss = equation_3(x, x_hat, z_e, e, self.beta, codebook_loss=self.moved_by == "loss")
        yield Update(loss, "main", metrics)
        if self.progress >= self.prior_from:
            bits = F.cross_entropy(self.prior(codes).float(), codes) / math.log(2)
            yield Update(bits, "prior", {"bits of a code": bits.detach()})

    def _z_e(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        return self.projection(feature_map(self.encoder, x)).float()

    @torch.no_grad()
    def _collect(self, z_e: Float[Tensor, "B D h w"], codes: Int[Tensor, "B h w"], counts: Float[Tensor, " K"]) -> None:
        z = z_e.detach().permute(0, 2, 3, 1).flatten(0, 2)
        sums = torch.zeros_like(self.sums).index_add_(0, codes.flatten(), z)
        # For each code a position of the batch of all processes, drawn by the first of them; those that are mine, zeros for the others.
        drawn = gather(torch.randint(len(z) * world_size(), (self.codebook_size,), device=z.device))[: self.codebook_size]
        mine = drawn // len(z) == rank()
        self._seen.append((counts, sums, z[drawn % len(z)] * mine[:, None]))

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Appendix A.1 where the codes are running means, then the restart of dead codes."""
        if not self._seen:
            return
        counts, sums = (sum_over_processes(torch.stack(parts).sum(dim=0)) for parts in list(zip(*self._seen, strict=True))[:2])
        vectors = sum_over_processes(self._seen[-1][2])
        self._seen.clear()
        self.usage.lerp_(counts, 1 - self.gamma)
        self.sums.lerp_(sums, 1 - self.gamma)
        e = self.codebook.weight
        if self.moved_by == "ema":
            e.copy_(torch.where(self.usage[:, None] > 0, self.sums / self.usage.clamp(min=1e-12)[:, None], e))
        average = self.usage.mean()
        dead = self.usage < self.restart * average
        e.copy_(torch.where(dead[:, None], vectors, e))
        self.usage.copy_(torch.where(dead, average, self.usage))
        self.sums.copy_(torch.where(dead[:, None], average * vectors, self.sums))

    @torch.no_grad()
    def quantise(self, x: Float[Tensor, "B C H W"]) -> Int[Tensor, "B h w"]:
        """Images of any size -> codes, 0 to K - 1."""
        h, w = (-(-side // self.downsample) for side in x.shape[2:])
        return torch.cat([nearest(self._z_e(part), self.codebook.weight)[:real] for part, real in _alike(x, h * w)])

    @torch.no_grad()
    def from_codes(self, codes: Int[Tensor, "B h w"], size: tuple[int, int] | None = None) -> Float[Tensor, "B C H W"]:
        """Codes -> images in [0, 1].

        Args:
            codes: 0 to K - 1.
            size: height and width of the images; None for S where the map is that of such an image, else the map's times `downsample`.

        Raises:
            ValueError: a code out of range.
        """
        if int(codes.min()) < 0 or int(codes.max()) >= self.codebook_size:
            raise ValueError(f"codes must be 0 to {self.codebook_size - 1}, got {int(codes.min())} to {int(codes.max())}")
        side = -(-self.image_size // self.downsample)
        default = (self.image_size,) * 2 if codes.shape[1:] == (side, side) else tuple(self.downsample * n for n in codes.shape[1:])
        height, width = size or default
        mean, std = self.normalize.mean.view(-1, 1, 1), self.normalize.std.view(-1, 1, 1)
        parts = _alike(codes, codes[0].numel())
        images = torch.cat([self.decoder(self.codebook(part).permute(0, 3, 1, 2).contiguous())[:real] for part, real in parts])
        return (images[:, :, :height, :width].float() * std + mean).clamp(0, 1)

    def reconstruct(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Images of any size -> what their codes keep of them."""
        return self.from_codes(self.quantise(x), (x.shape[2], x.shape[3]))

    @torch.no_grad()
    def sample(self, n: int) -> Float[Tensor, "{n} C S S"]:
        """n images from codes that the prior draws one after another, with random numbers of torch's global generator."""
        side = -(-self.image_size // self.downsample)
        codes = torch.zeros(n, side, side, dtype=torch.int64, device=self.usage.device)
        for i, j, logits in ExactPixelCNN(self.prior).walk(codes):
            codes[:, i, j] = (logits.float() / LOGIT).softmax(dim=1).multinomial(1)[:, 0]
        return self.from_codes(codes)

    @torch.no_grad()
    def explain(self, x: Float[Tensor, "B C H W"]) -> Mapping[str, Tensor]:
        """How often each code is used in these images."""
        codes = self.quantise(x)
        return {"codebook use, share of positions": torch.bincount(codes.flatten(), minlength=self.codebook_size) / codes.numel()}


@torch.no_grad()
@full_precision
def nearest(z: Float[Tensor, "B D h w"], codebook: Float[Tensor, "K D"]) -> Int[Tensor, "B h w"]:
    """Equation 1: the number of the codebook's vector that is nearest to each position's, the first of equals."""
    rows = z.permute(0, 2, 3, 1).flatten(0, 2)
    lengths = (codebook**2).sum(dim=1)  # of |z - e|^2, |z|^2 is the same for all codes
    codes = [torch.addmm(lengths, part, codebook.T, alpha=-2).argmin(dim=1) for part in rows.split(ROWS)]
    return torch.cat(codes).view(len(z), *z.shape[2:])


@full_precision
def equation_3(
    x: Float[Tensor, "B C H W"],
    x_hat: Float[Tensor, "B C H W"],
    z_e: Float[Tensor, "B D h w"],
    e: Float[Tensor, "B D h w"],
    beta: float,
    *,
    codebook_loss: bool,
) -> Float[Tensor, ""]:
    """(x - x_hat)^2 + |sg(z_e) - e|^2 + beta |z_e - sg(e)|^2, each a mean over all its numbers, as in the authors' example.

    Args:
        x, x_hat: standardised images, so that the error is a share of the data's variance, and what is made of them.
        z_e: the encoder's vectors.
        e: of each, the nearest of the codebook.
        beta: weight of the commitment.
        codebook_loss: whether the second term is there; running means take its place (appendix A.1).
    """
    loss = F.mse_loss(x_hat, x) + beta * F.mse_loss(z_e, e.detach())
    return loss + F.mse_loss(e, z_e.detach()) if codebook_loss else loss


def perplexity(counts: Float[Tensor, " K"]) -> Float[Tensor, ""]:
    """exp of the entropy of the codes' frequencies: 1 where one is used, K where all are used alike."""
    return torch.special.entr(counts / counts.sum()).sum().exp()


def _alike(x: Tensor, positions: int) -> Iterator[tuple[Tensor, int]]:
    """Parts of equal length, the last filled up with its first item, and how many of each are real.

    The last bits of a convolution depend on how many images go through it together, and so might a pixel or a code.
    """
    length = max(1, POSITIONS // positions)
    for part in x.split(length):
        yield torch.cat([part, part[:1].expand(length - len(part), *part.shape[1:])]), len(part)
