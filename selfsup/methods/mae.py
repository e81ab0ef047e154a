"""MAE: Masked Autoencoders Are Scalable Vision Learners.

He, Chen, Xie, Li, Dollar and Girshick, CVPR 2022. https://arxiv.org/abs/2111.06377

Modality   images
Hidden     most patches of every image, at random (75 %).
Shown      the other patches, the only ones that the encoder sees.
Predicted  the hidden patches' pixels, each patch normalised by its own mean and deviation.

Axes: B images, C channels, S side of an image, N patches, n of them visible, P values of a patch.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from selfsup.losses import full_precision
from selfsup.method import Batch, Encoder, Method, Recipe
from selfsup.models import input_channels
from selfsup.models.vit import Block, ViT, initialise_linear, only_vit, places, sincos_positions, take
from selfsup.views.patches import RandomPatches


class MAE(Method):
    """Encoder of the visible patches, and a light decoder of all (section 3).

    Positions of both are fixed sines and cosines, as in the paper. Linear layers begin as N(0, 0.02^2), where its appendix A.1 has Xavier's
    uniform weights.

    Args:
        encoder: a ViT, maps (B, C, S, S) to (B, encoder.width).
        hidden_share: share of the patches that is hidden, above 0 to below 1; the paper's is 0.75.
        pool: what becomes of the encoder's tokens: their mean, without a class token, or a class token that rides along. The paper's is
            "class", and it finds the mean to work as well (appendix A.1); short runs want the mean.
        decoder_width: a multiple of 32, one attention head for each 32; the paper's is 512.
        decoder_depth: blocks of the decoder, at least 1; the paper's is 8.
        normalised_target: normalise each patch by its own mean and deviation; otherwise the target are the standardised pixels. The
            paper's best has it.
        smallest_crop: smallest area of the random crop, as a fraction of the image, above 0 to 1; the paper's is 0.2.
    """

    # The paper: AdamW, lr 1.5e-4 for batches of 256, beta_2 0.95, weight decay 0.05, 40 epochs of warm-up of 800 or 1600.
    recipe: ClassVar[Recipe] = Recipe(
        optimizer="adamw", lr=1e-3, batch_size=128, weight_decay=5e-2, beta2=0.95, warmup=0.05, encoder="vit_tiny"
    )

    encoder: ViT  # type: ignore[assignment] - whatever others take

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden_share: float = 0.75,
        pool: Literal["mean", "class"] = "mean",
        decoder_width: int = 128,
        decoder_depth: int = 2,
        normalised_target: bool = True,
        smallest_crop: float = 0.2,
    ) -> None:
        super().__init__()
        vit = only_vit(encoder, "mae")
        n = vit.grid**2
        hidden = round(n * hidden_share)
        if not 0 < hidden < n:
            raise ValueError(f"hidden_share must leave patches to see and to predict, got {hidden_share}, which hides {hidden} of {n}")
        if pool not in ("mean", "class") or (pool == "class" and vit.pool == "mean"):
            raise ValueError(f'pool must be "mean", or "class" where the encoder has a class token, got {pool!r}')
        if pool == "mean":
            vit.drop_class_token()
        vit.fix_positions()
        self.encoder = vit
        self.decoder = Decoder(vit.width, decoder_width, decoder_depth, vit.grid, input_channels(vit) * vit.patch_size**2)
        self.normalised_target = normalised_target
        self.views = RandomPatches(vit.image_size, vit.grid, hidden, smallest_crop)

    def loss(self, views: Batch) -> Tensor:
        """Mean squared error over the values of hidden patches, all images having equally many; about 1 for a constant where normalised."""
        image, hidden = views["image"], views["hidden"]
        visible = places(~hidden)
        tokens = take(self.encoder.patches(image), visible)  # hidden ones go no further
        predicted = self.decoder(self.encoder.forward_tokens(tokens), visible)
        target = split(self.encoder.normalize(image), self.encoder.patch_size)
        return error(predicted, normalise(target) if self.normalised_target else target, hidden)


class Decoder(nn.Module):
    """Transformer over all patches: encoded ones where they were visible, one learned token everywhere else, each with its position.

    Args:
        encoded: width of the encoder's tokens.
        width, depth: of the decoder.
        grid: patches in a row.
        values: P.
    """

    positions: Tensor

    def __init__(self, encoded: int, width: int, depth: int, grid: int, values: int) -> None:
        super().__init__()
        if width < 32 or width % 32 or depth < 1:
            raise ValueError(f"decoder_width must be a multiple of 32 and decoder_depth at least 1, got {width} and {depth}")
        self.embed = nn.Linear(encoded, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, width).normal_(std=0.02))
        self.register_buffer("positions", sincos_positions(grid, width), persistent=False)
        self.blocks = nn.Sequential(*(Block(width, width // 32) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.predict = nn.Linear(width, values)
        initialise_linear(self)

    def forward(self, tokens: Float[Tensor, "B m encoded"], visible: Int[Tensor, "B n"]) -> Float[Tensor, "B N P"]:
        """Values of every patch from the visible ones' tokens, m being n, or n + 1 with a class token first."""
        x = self.embed(tokens).to(self.mask_token.dtype)
        m, n = x.shape[1], visible.shape[1]
        every = self.mask_token.expand(len(x), len(self.positions), -1)
        every = every.scatter(1, visible[:, :, None].expand(-1, -1, x.shape[2]), x[:, m - n :]) + self.positions
        return self.predict(self.norm(self.blocks(torch.cat([x[:, : m - n], every], dim=1))))[:, m - n :]


def split(images: Float[Tensor, "B C S S"], patch_size: int) -> Float[Tensor, "B N P"]:
    """Patches of images, row by row; the values of one are pixels row by row, channels innermost."""
    b, c, side, _ = images.shape
    grid = side // patch_size
    return images.reshape(b, c, grid, patch_size, grid, patch_size).permute(0, 2, 4, 3, 5, 1).reshape(b, grid**2, patch_size**2 * c)


@full_precision
def normalise(patches: Float[Tensor, "B N P"]) -> Float[Tensor, "B N P"]:
    """Each patch minus its mean, over its deviation (section 3, "reconstruction target")."""
    mean, variance = patches.mean(dim=-1, keepdim=True), patches.var(dim=-1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


@full_precision
def error(predicted: Float[Tensor, "B N P"], target: Float[Tensor, "B N P"], hidden: Bool[Tensor, "B N"]) -> Float[Tensor, ""]:
    """Mean squared error over hidden patches only (section 3)."""
    each = (predicted - target).square().mean(dim=-1)  # (B, N)
    return (each * hidden).sum() / hidden.sum()
