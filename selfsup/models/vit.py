"""Vision transformer: An Image is Worth 16x16 Words (Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929).

Widths of the tiny and small ones are DeiT's (https://arxiv.org/abs/2012.12877). Reading order: `forward` is `patches`, then
`forward_tokens`; a method that hides patches calls the two itself and drops tokens between them.

Axes: B images, C channels, N patches, n tokens shown, width of a token.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from selfsup.method import Encoder
from selfsup.models.attention import attend
from selfsup.models.normalize import Normalize

SIZES = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}
"""Width and number of heads; all have 12 layers."""
DEPTH = 12


class Block(nn.Module):
    """Attention and a two-layer network, each on normalised tokens and added to them (pre-norm; equations 2 and 3)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.qkv, self.out = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm2, self.up, self.down = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "B n width"], absent: Bool[Tensor, "B n"] | None = None) -> Float[Tensor, "B n width"]:
        """Contextual tokens, added to what came in. `absent` is True for filling that no token looks at."""
        x = x + self.attention(self.norm1(x), absent)
        return x + self.down(F.gelu(self.up(self.norm2(x))))

    def attention(self, x: Float[Tensor, "B n width"], absent: Bool[Tensor, "B n"] | None = None) -> Float[Tensor, "B n width"]:
        """Every token looks at every other that is there (appendix A)."""
        b, n, width = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)  # each (B, heads, n, width / heads)
        present = None if absent is None else ~absent[:, None, None, :]
        return self.out(attend(q, k, v, present).transpose(1, 2).reshape(b, n, width))


class ViT(Encoder):
    """Transformer over the patches of an image: (B, C, image_size, image_size) in [0, 1] -> (B, width).

    Args:
        size: "tiny", "small" or "base": 192, 384 or 768 wide.
        channels: C of the input.
        image_size: side in pixels, fixed, since positions are learned; a multiple of the patch.
        patch_size: side of a patch in pixels; None for 4 up to 40 pixels, 8 up to 112, 16 above.
        pool: what becomes the vector, once the last layer has normalised it: the class token, or the mean of the patches' tokens;
            there is then no class token.
        mean, std: of the data, for each channel.

    Raises:
        ValueError: another size's or pool's name, or an image that is not a whole number of patches.
    """

    def __init__(
        self,
        size: str = "small",
        *,
        channels: int = 3,
        image_size: int = 224,
        patch_size: int | None = None,
        pool: Literal["class", "mean"] = "class",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if size not in SIZES:
            raise ValueError(f"size must be one of {', '.join(SIZES)}, got {size!r}")
        if pool not in ("class", "mean"):
            raise ValueError(f'pool must be "class" or "mean", got {pool!r}')
        if patch_size is None:
            patch_size = 4 if image_size <= 40 else 8 if image_size <= 112 else 16
        if patch_size < 1 or image_size < patch_size or image_size % patch_size:
            below = max(image_size // max(patch_size, 1), 1) * patch_size
            raise ValueError(
                f"a vit of patch_size={patch_size} needs an image_size that is a multiple of it, got {image_size}; "
                f"choose --image-size {below} or {below + patch_size}"
            )
        self.width, heads = SIZES[size]
        self.image_size, self.patch_size, self.pool = image_size, patch_size, "class"
        self.grid = image_size // patch_size  # patches in a row
        self.normalize = Normalize(channels, mean, std)
        self.embed_patch = nn.Conv2d(channels, self.width, patch_size, patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, self.width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + self.grid**2, self.width))  # the class token's comes first
        self.blocks = nn.Sequential(*(Block(self.width, heads) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(self.width, eps=1e-6)
        self._initialise()
        if pool == "mean":
            self.drop_class_token()

    def drop_class_token(self) -> None:
        """From now on the vector is the mean of the patches' tokens (`pool="mean"`); the same network as if built so, whatever it was."""
        if self.pool == "class":
            self.pool = "mean"
            del self.class_token
            self.positions = nn.Parameter(self.positions.detach()[:, 1:].clone())
        if "spec" in vars(self):
            self.spec = {**self.spec, "pool": "mean"}

    def fix_positions(self) -> None:
        """Replace learned positions by sines and cosines that no optimiser moves, as MAE and I-JEPA have them; a class token's is 0."""
        with torch.no_grad():
            self.positions.zero_()[:, -(self.grid**2) :] = sincos_positions(self.grid, self.width)
        self.positions.requires_grad_(False)

    def patches(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N width"]:
        """One token for each patch, row by row, with its position added; between the learned positions for a smaller image.

        Raises:
            ValueError: the image is neither image_size x image_size nor a smaller square of whole patches.
        """
        _, _, height, width = x.shape
        if height != width or height > self.image_size or height % self.patch_size:
            expected = f"(B, C, {self.image_size}, {self.image_size})"
            raise ValueError(
                f"expected {expected}, got {tuple(x.shape)}; positions are learned for one size, and serve smaller squares of whole patches"
            )
        return self.embed_patch(self.normalize(x)).flatten(2).transpose(1, 2) + self._positions(height // self.patch_size)

    def _positions(self, side: int) -> Float[Tensor, "1 N width"]:
        """Those of side x side patches: the learned ones, bicubically resized where there are fewer (as DINO's code does)."""
        learned = self.positions[:, -(self.grid**2) :]
        if side == self.grid:
            return learned
        # By a matrix, as the gradient of torch's own resizing is not the same twice on a GPU.
        each = torch.eye(self.grid**2, device=learned.device).view(1, -1, self.grid, self.grid)
        shares = F.interpolate(each, size=(side, side), mode="bicubic").flatten(2).transpose(1, 2)  # (1, side^2, grid^2)
        return (shares @ learned).to(learned.dtype)  # not in autocast's bfloat16, which the sum with the tokens would inherit

    def forward_tokens(self, tokens: Float[Tensor, "B n width"], absent: Bool[Tensor, "B n"] | None = None) -> Float[Tensor, "B m width"]:
        """Any n of the tokens that `patches` made -> n of them, contextual and normalised, after the class token where there is one.

        `absent` is True for tokens that only fill a row, where images show different numbers of patches; what comes out for them is void.
        """
        if self.pool == "class":
            first = (self.class_token + self.positions[:, :1]).expand(len(tokens), -1, -1)
            tokens = torch.cat([first.to(tokens.dtype), tokens], dim=1)
            absent = None if absent is None else F.pad(absent, (1, 0))
        for block in self.blocks:
            tokens = block(tokens, absent)
        return self.norm(tokens)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B width"]:
        """(B, C, image_size, image_size) in [0, 1] -> (B, width)."""
        tokens = self.forward_tokens(self.patches(x))
        return tokens[:, 0] if self.pool == "class" else tokens.mean(dim=1)

    def _initialise(self) -> None:
        """Weights and positions N(0, 0.02^2), biases 0; the patches' kernel N(0, 1 / fan_in), as the layer sees raw pixels."""
        initialise_linear(self)
        nn.init.zeros_(self.embed_patch.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.embed_patch.weight, std=self.embed_patch.weight[0].numel() ** -0.5)
        nn.init.normal_(self.positions, std=0.02)
        nn.init.normal_(self.class_token, std=0.02)


def initialise_linear(network: nn.Module) -> None:
    """Weights of its linear layers N(0, 0.02^2), biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def sincos_positions(grid: int, width: int) -> Float[Tensor, "N width"]:
    """Fixed positions of grid x grid patches, row by row: half of the width says the column, half the row (2111.06377, appendix A.1).

    Each half is the one of 1706.03762: width / 4 sines, then as many cosines, of place / 10000^(i / (width / 4)).

    Raises:
        ValueError: a width that is not a multiple of 4.
    """
    if width < 4 or width % 4:
        raise ValueError(f"sines and cosines of rows and columns need a width that is a multiple of 4, got {width}")
    speed = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angle = torch.arange(grid, dtype=torch.float64)[:, None] * speed
    place = torch.cat([angle.sin(), angle.cos()], dim=1).float()  # (grid, width / 2)
    return torch.cat([place.repeat(grid, 1), place.repeat_interleave(grid, dim=0)], dim=1)


def places(shown: Bool[Tensor, "B N"]) -> Int[Tensor, "B n"]:
    """Numbers of the patches where `shown` is True, in order; every row must have equally many."""
    return shown.nonzero()[:, 1].view(len(shown), -1)


def take(tokens: Float[Tensor, "B N width"], which: Int[Tensor, "B n"]) -> Float[Tensor, "B n width"]:
    """The tokens of these patches."""
    return tokens.gather(1, which[:, :, None].expand(-1, -1, tokens.shape[2]))


def only_vit(encoder: Encoder, method: str) -> ViT:
    """The encoder itself, for methods that hide patches.

    Raises:
        ValueError: it is not a ViT.
    """
    if not isinstance(encoder, ViT):
        name = vars(encoder).get("spec", {}).get("name", type(encoder).__name__)
        raise ValueError(f"{method} hides patches from a transformer, so its encoder must be a ViT, got {name}; choose --encoder vit_tiny")
    return encoder
