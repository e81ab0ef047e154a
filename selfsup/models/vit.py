"""Vision transformer: An Image is Worth 16x16 Words (Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929).

Widths of the tiny and small ones are DeiT's (https://arxiv.org/abs/2012.12877). Reading order: `forward` is `patches`, then
`forward_tokens`; a method that hides patches calls the two itself and drops tokens between them.

Axes: B images, C channels, N patches, n tokens shown, width of a token.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from selfsup.method import Encoder
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

    def forward(self, x: Float[Tensor, "B n width"]) -> Float[Tensor, "B n width"]:
        """Contextual tokens, added to what came in."""
        x = x + self.attention(self.norm1(x))
        return x + self.down(F.gelu(self.up(self.norm2(x))))

    def attention(self, x: Float[Tensor, "B n width"]) -> Float[Tensor, "B n width"]:
        """Every token looks at every other (appendix A)."""
        b, n, width = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)  # each (B, heads, n, width / heads)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, width))


class ViT(Encoder):
    """Transformer over the patches of an image: (B, C, image_size, image_size) in [0, 1] -> (B, width), the class token at the end.

    Args:
        size: "tiny", "small" or "base": 192, 384 or 768 wide.
        channels: C of the input.
        image_size: side in pixels, fixed, since positions are learned; a multiple of the patch.
        patch_size: side of a patch in pixels; None for 4 up to 40 pixels, 8 up to 112, 16 above.
        mean, std: of the data, for each channel.

    Raises:
        ValueError: another size's name, or an image that is not a whole number of patches.
    """

    def __init__(
        self,
        size: str = "small",
        *,
        channels: int = 3,
        image_size: int = 224,
        patch_size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if size not in SIZES:
            raise ValueError(f"size must be one of {', '.join(SIZES)}, got {size!r}")
        if patch_size is None:
            patch_size = 4 if image_size <= 40 else 8 if image_size <= 112 else 16
        if patch_size < 1 or image_size < patch_size or image_size % patch_size:
            below = max(image_size // max(patch_size, 1), 1) * patch_size
            raise ValueError(
                f"a vit of patch_size={patch_size} needs an image_size that is a multiple of it, got {image_size}; "
                f"choose --image-size {below} or {below + patch_size}"
            )
        self.width, heads = SIZES[size]
        self.image_size, self.patch_size = image_size, patch_size
        self.normalize = Normalize(channels, mean, std)
        self.embed_patch = nn.Conv2d(channels, self.width, patch_size, patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, self.width))
        self.positions = nn.Parameter(torch.zeros(1, 1 + (image_size // patch_size) ** 2, self.width))  # the class token's comes first
        self.blocks = nn.Sequential(*(Block(self.width, heads) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(self.width, eps=1e-6)
        self._initialise()

    def patches(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N width"]:
        """One token for each patch, row by row, with its position added.

        Raises:
            ValueError: the image is not image_size x image_size.
        """
        if x.shape[2:] != (self.image_size, self.image_size):
            expected = f"(B, C, {self.image_size}, {self.image_size})"
            raise ValueError(f"expected {expected}, got {tuple(x.shape)}; positions are learned for one size")
        return self.embed_patch(self.normalize(x)).flatten(2).transpose(1, 2) + self.positions[:, 1:]

    def forward_tokens(self, tokens: Float[Tensor, "B n width"]) -> Float[Tensor, "B m width"]:
        """Any n of the tokens that `patches` made -> n + 1 of them, contextual and normalised, the class token first."""
        first = (self.class_token + self.positions[:, :1]).expand(len(tokens), -1, -1)
        return self.norm(self.blocks(torch.cat([first.to(tokens.dtype), tokens], dim=1)))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B width"]:
        """(B, C, image_size, image_size) in [0, 1] -> (B, width)."""
        return self.forward_tokens(self.patches(x))[:, 0]

    def _initialise(self) -> None:
        """Weights and positions N(0, 0.02^2), biases 0; the patches' kernel N(0, 1 / fan_in), as the layer sees raw pixels."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.embed_patch.weight, std=self.embed_patch.weight[0].numel() ** -0.5)
        nn.init.normal_(self.positions, std=0.02)
        nn.init.normal_(self.class_token, std=0.02)
