"""I-JEPA: Self-Supervised Learning from Images with a Joint-Embedding Predictive Architecture.

Assran, Duval, Misra, Bojanowski, Vincent, Rabbat, LeCun and Ballas, CVPR 2023. https://arxiv.org/abs/2301.08243

Modality   images
Hidden     four blocks of patches, of which a slowly moving copy of the encoder, seeing the whole image, says what they mean.
Shown      one large block of patches without the four.
Predicted  the copy's vector of every hidden patch, from the shown ones and the hidden one's position.

Axes: B images, C channels, S side of an image, N patches, n of them shown, M target blocks, K patches of a block.
"""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from selfsup.losses import full_precision
from selfsup.method import Batch, Encoder, Method, Recipe
from selfsup.models.teacher import follow, frozen_copy
from selfsup.models.vit import Block, ViT, initialise_linear, only_vit, places, sincos_positions, take
from selfsup.views.patches import BlocksOfPatches


class IJEPA(Method):
    """Context encoder, its slowly moving copy for the targets, and a narrow predictor (section 3).

    What is kept is the target encoder, and the vector of an image the mean of its patches' tokens, as in the paper's evaluations
    (appendix A). Encoders have no class token and fixed sines and cosines for positions.

    Args:
        encoder: a ViT, maps (B, C, S, S) to (B, encoder.width).
        blocks: M, target blocks of an image; the paper's is 4.
        smallest_target: smallest area of a target block, as a fraction of the image; the paper's is 0.15.
        largest_target: largest area of a target block, as a fraction of the image, at most 0.3; the paper's is 0.2.
        smallest_context: smallest area of the context's block before the targets are taken out, as a fraction of the image, 0.75 to 1; the
            paper's is 0.85, and the largest the whole image.
        momentum: share of the target encoder that stays at each step, 0 to 1; it climbs to 1 in a straight line. The paper's is 0.996.
        distance: l2, the mean over values of the squared difference, which is the paper's divided by K and the width; or smooth_l1, as in
            the authors' code: below a difference of 1 half of its square, above it its size less 1/2.
        normalised_target: layer-normalise each target vector, without scale and shift, as the authors' code does; the paper does not say.
        predictor_width: a multiple of 32, one attention head for each 32 (the paper's has as many heads as its encoder); the paper's is
            384, for encoders 768 wide and more.
        predictor_depth: blocks of the predictor, at least 1; the paper's is 6 for the smallest encoder, 12 for others.
        smallest_crop: smallest area of the random crop, as a fraction of the image, above 0 to 1; the authors' is 0.3.
    """

    # The paper: AdamW, lr from 1e-4 to 1e-3 for batches of 2048 in 15 epochs of warm-up, weight decay from 0.04 to 0.4.
    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=5e-4, batch_size=64, weight_decay=5e-2, warmup=0.1, encoder="vit_tiny")

    encoder: ViT  # type: ignore[assignment] - whatever others take

    def __init__(
        self,
        encoder: Encoder,
        *,
        blocks: int = 4,
        smallest_target: float = 0.15,
        largest_target: float = 0.2,
        smallest_context: float = 0.85,
        momentum: float = 0.996,
        distance: Literal["l2", "smooth_l1"] = "l2",
        normalised_target: bool = True,
        predictor_width: int = 96,
        predictor_depth: int = 4,
        smallest_crop: float = 0.3,
    ) -> None:
        super().__init__()
        vit = only_vit(encoder, "ijepa")
        if vit.grid < 2:
            raise ValueError(f"ijepa needs at least 2 x 2 patches, got {vit.image_size} pixels and patches of {vit.patch_size}")
        if blocks < 1 or not 0 < smallest_target <= largest_target <= 0.3 or not 0.75 <= smallest_context <= 1:
            raise ValueError(
                "blocks must be at least 1, 0 < smallest_target <= largest_target <= 0.3 and 0.75 <= smallest_context <= 1, "
                f"got {blocks}, {smallest_target}, {largest_target} and {smallest_context}"
            )
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be between 0 and 1, got {momentum}")
        if distance not in ("l2", "smooth_l1"):
            raise ValueError(f'distance must be "l2" or "smooth_l1", got {distance!r}')
        vit.drop_class_token()
        vit.fix_positions()
        self.context_encoder, self.encoder = vit, frozen_copy(vit)  # the latter makes the targets
        self.predictor = Predictor(vit.width, predictor_width, predictor_depth, vit.grid)
        self.momentum, self.distance, self.normalised_target = momentum, distance, normalised_target
        self.views = BlocksOfPatches(
            vit.image_size,
            vit.grid,
            blocks,
            target_scale=(smallest_target, largest_target),
            context_scale=(smallest_context, 1.0),
            smallest_crop=smallest_crop,
        )

    def loss(self, views: Batch) -> Tensor:
        """Distance between predicted and target vectors, a mean over images, blocks, patches and values (section 3, "loss")."""
        image, targets = views["image"], views["targets"]
        which = places(targets.flatten(0, 1)).unflatten(0, targets.shape[:2])  # (B, M, K)
        shown, absent = padded_places(~views["hidden"])
        context = self.context_encoder.forward_tokens(take(self.context_encoder.patches(image), shown), absent)
        predicted = self.predictor(context, shown, absent, which)
        return distance(predicted, self._targets(image, which), self.distance)

    @torch.no_grad()
    def _targets(self, image: Float[Tensor, "B C S S"], which: Int[Tensor, "B M K"]) -> Float[Tensor, "B M K width"]:
        """Cut from the output, not from the input: each target vector has seen the whole image (section 3, "targets")."""
        s = self.encoder.forward_tokens(self.encoder.patches(image))
        s = F.layer_norm(s, s.shape[-1:]) if self.normalised_target else s
        return take(s, which.flatten(1)).unflatten(1, which.shape[1:])

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """The target encoder follows the context encoder, by a momentum that climbs to 1 (appendix A)."""
        follow(self.encoder, self.context_encoder, self.momentum + (1 - self.momentum) * progress)


class Predictor(nn.Module):
    """Narrow transformer over the context's tokens and one learned token at each position of a target block; each block for itself.

    Args:
        encoded: width of the encoders' tokens.
        width, depth: of the predictor.
        grid: patches in a row.
    """

    positions: Tensor

    def __init__(self, encoded: int, width: int, depth: int, grid: int) -> None:
        super().__init__()
        if width < 32 or width % 32 or depth < 1:
            raise ValueError(f"predictor_width must be a multiple of 32 and predictor_depth at least 1, got {width} and {depth}")
        self.embed = nn.Linear(encoded, width)
        self.mask_token = nn.Parameter(torch.empty(1, 1, 1, width).normal_(std=0.02))
        self.register_buffer("positions", sincos_positions(grid, width), persistent=False)
        self.blocks = nn.ModuleList([Block(width, width // 32) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.predict = nn.Linear(width, encoded)
        initialise_linear(self)

    def forward(
        self,
        context: Float[Tensor, "B n encoded"],
        shown: Int[Tensor, "B n"],
        absent: Bool[Tensor, "B n"],
        which: Int[Tensor, "B M K"],
    ) -> Float[Tensor, "B M K encoded"]:
        """Predicted vectors of the patches in each block.

        Args:
            context: the context encoder's tokens.
            shown: numbers of their patches.
            absent: True where a token only fills its row.
            which: numbers of the patches of each target block.
        """
        b, m, k = which.shape
        x = self.embed(context).to(self.mask_token.dtype) + self.positions[shown]
        asked = (self.mask_token + self.positions[which]).flatten(0, 1)  # (B M, K, width)
        x = torch.cat([x.repeat_interleave(m, dim=0), asked], dim=1)
        absent = F.pad(absent.repeat_interleave(m, dim=0), (0, k))
        for block in self.blocks:
            x = block(x, absent)
        return self.predict(self.norm(x[:, -k:])).view(b, m, k, -1)


def padded_places(shown: Bool[Tensor, "B N"]) -> tuple[Int[Tensor, "B n"], Bool[Tensor, "B n"]]:
    """Numbers of the shown patches in order, n being the most that an image shows, and True where others fill the row."""
    n = int(shown.sum(dim=1).max())
    order = (~shown).byte().argsort(dim=1, stable=True)[:, :n]
    return order, ~shown.gather(1, order)


@full_precision
def distance(predicted: Float[Tensor, "*shape"], target: Float[Tensor, "*shape"], kind: str) -> Float[Tensor, ""]:
    """Mean over all values of d^2 ("l2"), or of d^2 / 2 where |d| < 1 and |d| - 1/2 elsewhere ("smooth_l1")."""
    return F.mse_loss(predicted, target) if kind == "l2" else F.smooth_l1_loss(predicted, target)
