"""The transformers of BERT (Devlin et al. 2018, https://arxiv.org/abs/1810.04805) and GPT-2 (Radford et al. 2019), on token numbers.

Several documents may share a row: each begins with the START token, sees itself only and counts its own positions, so that a packed row
gives the same vectors as a row for each. Reading order: `forward` is `hidden`, then one vector of a row's tokens.

Axes: B rows, T tokens, V tokens in the vocabulary, width of a token's vector.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from selfsup.method import Encoder
from selfsup.models.attention import attend
from selfsup.models.vit import initialise_linear

SIZES = {
    "bert_tiny": (128, 2, 2),
    "bert_mini": (256, 4, 4),
    "bert_small": (512, 4, 8),
    "bert_medium": (512, 8, 8),
    "bert_base": (768, 12, 12),
    "gpt_nano": (128, 4, 4),
    "gpt_mini": (384, 6, 6),
    "gpt2": (768, 12, 12),
}
"""Width, layers, heads. BERT's are those of 1908.08962, GPT-2's of its paper, the two below it of nanoGPT's recipes."""

FAMILIES = ("bert", "gpt")
"""Names of networks of other shapes, which `selfsup import` gives."""


Pool = Literal["mean", "class", "last_two"]
"""How a row's tokens become one vector: their mean, the first one's ([CLS] of BERT), or the mean of the last two layers' tokens."""


class Cache(NamedTuple):
    """Keys and values that a causal transformer has computed already, filled up to `filled` tokens.

    keys, values: (layers, B, heads, room, width / heads).
    """

    keys: Tensor
    values: Tensor
    filled: int

    def moved(self, n: int) -> "Cache":
        """The same memory with n more tokens in it."""
        return self._replace(filled=self.filled + n)


class Layer(nn.Module):
    """Attention and a two-layer network of four times the width, each added to what came in.

    Args:
        width: of a token.
        heads: of the attention.
        causal: GPT-2's: normalised before each part (pre-norm), GELU by its tanh formula, no token sees a later one. Otherwise BERT's:
            normalised after each sum (post-norm).
    """

    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        eps = 1e-5 if causal else 1e-12
        self.heads, self.causal, self.dropout = heads, causal, 0.0
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=eps), nn.LayerNorm(width, eps=eps)

    def forward(self, x: Float[Tensor, "B T width"], seen: Tensor | None, past: tuple[Tensor, Tensor, int] | None = None) -> Tensor:
        """Contextual tokens.

        Args:
            x: tokens.
            seen: (B, 1, T, T) bool, True where a token (row) may look at another (column); None for all, or all before if causal.
            past: this layer's part of a cache and how much of it is filled; x are then the tokens after those.
        """
        if self.causal:
            x = x + self._drop(self.attention(self.norm1(x), seen, past))
            return x + self._drop(self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh")))
        x = self.norm1(x + self._drop(self.attention(x, seen, past)))
        return self.norm2(x + self._drop(self.down(F.gelu(self.up(x)))))

    def attention(self, x: Float[Tensor, "B T width"], seen: Tensor | None, past: tuple[Tensor, Tensor, int] | None) -> Tensor:
        """softmax(Q K^T / sqrt(d)) V in every head (1706.03762, equation 1)."""
        b, t, width = x.shape
        parts = self.qkv(x).chunk(3, dim=2)  # one view of all three would be slower in the backward pass (measured)
        q, k, v = (part.view(b, t, self.heads, width // self.heads).transpose(1, 2) for part in parts)  # each (B, heads, T, width / heads)
        causal = self.causal and seen is None
        if past is not None:
            keys, values, filled = past
            keys[:, :, filled : filled + t], values[:, :, filled : filled + t] = k, v
            k, v = keys[:, :, : filled + t], values[:, :, : filled + t]
            if filled:
                seen = torch.ones(t, filled + t, dtype=torch.bool, device=x.device).tril(filled)
                causal = False
        p = self.dropout if self.training else 0.0
        return self.out(attend(q, k, v, seen, dropout=p, causal=causal).transpose(1, 2).reshape(b, t, width))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class TextTransformer(Encoder):
    """Rows of token numbers (B, T) int64 -> (B, width), the mean of the last layer's vectors of all tokens but padding unless `set_pool`.

    Args:
        name: one of `SIZES`, or of `FAMILIES` for a network of another shape.
        vocabulary_size: V.
        length: most tokens of a document, since positions are learned.
        pad, start, end: numbers of the special tokens; padding may only follow what is there.
        shape: width, layers and heads of a network of `FAMILIES`.

    Attributes:
        causal: whether tokens see only those before them.
        dropout: probability, 0 to 1, in training mode; set by `set_dropout`.
        pooled: how a row's tokens become one vector; set by `set_pool`.

    Raises:
        ValueError: no such name, or a shape where there should be none, or none where there should be one.
    """

    def __init__(
        self, name: str, *, vocabulary_size: int, length: int, pad: int, start: int, end: int, shape: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        if name not in SIZES and (name not in FAMILIES or shape is None):
            raise ValueError(f"name must be one of {', '.join(SIZES)}, got {name!r}")
        if name in SIZES and shape is not None:
            raise ValueError(f"{name} has a shape of its own; call one of another shape {' or '.join(FAMILIES)}")
        self.width, depth, heads = shape or SIZES[name]
        self.heads, self.causal, self.dropout = heads, name.startswith("gpt"), 0.0
        self.pooled: Pool = "mean"
        self.vocabulary_size, self.length, self.pad, self.start, self.end = vocabulary_size, length, pad, start, end
        self.tokens = nn.Embedding(vocabulary_size, self.width)
        self.positions = nn.Embedding(length, self.width)
        if not self.causal:
            self.kinds = nn.Embedding(2, self.width)  # first or second text of a pair
        self.norm = nn.LayerNorm(self.width, eps=1e-5 if self.causal else 1e-12)  # BERT's before the first layer, GPT-2's after the last
        self.layers = nn.ModuleList(Layer(self.width, heads, causal=self.causal) for _ in range(depth))
        self._initialise()

    def set_dropout(self, p: float) -> None:
        """Probability of dropping an embedding, an attention or an output of a layer's parts; the papers' is 0.1.

        Raises:
            ValueError: p is not in [0, 1).
        """
        if not 0 <= p < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {p}")
        self.dropout = p
        for layer in self.layers:
            layer.dropout = p  # type: ignore[assignment]

    def set_pool(self, pool: Pool) -> None:
        """From now on a row's vector is made in this way.

        Raises:
            ValueError: no such way, or one that a causal transformer, whose first token sees nothing, does not have.
        """
        if pool not in ("mean", "class", "last_two"):
            raise ValueError(f'pool of text must be "mean", "class" or "last_two", got {pool!r}')
        if self.causal and pool != "mean":
            raise ValueError(f"a causal transformer's vector is the mean of its tokens, got pool={pool!r}")
        self.pooled = pool
        if "spec" in vars(self):
            others = {key: value for key, value in self.spec.items() if key != "pool"}
            self.spec = others if pool == "mean" else {**others, "pool": pool}

    def forward(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B width"]:
        """(B, T) -> (B, width)."""
        return self.vector(ids)

    def vector(self, ids: Int[Tensor, "B T"], *, embedded: Tensor | None = None) -> Float[Tensor, "B width"]:
        """One vector of each row; `embedded` as in `hidden`."""
        if self.pooled == "mean":
            return self.pool(self.hidden(ids, embedded=embedded), ids)
        before, last = self._last_two(ids, embedded=embedded)
        return last[:, 0] if self.pooled == "class" else self.pool((before + last) / 2, ids)

    def pool(self, hidden: Float[Tensor, "B T width"], ids: Int[Tensor, "B T"]) -> Float[Tensor, "B width"]:
        """Mean over tokens that are no padding."""
        there = (ids != self.pad).unsqueeze(2).to(hidden.dtype)
        return (hidden * there).sum(dim=1) / there.sum(dim=1).clamp(min=1)

    def hidden(self, ids: Int[Tensor, "B T"], cache: Cache | None = None, *, embedded: Tensor | None = None) -> Float[Tensor, "B T width"]:
        """The last layer's vector of every token.

        Args:
            ids: token numbers.
            cache: of a causal transformer, what went before; its memory is written, see `Cache.moved`.
            embedded: (B, T, width) to start from instead of `embed_tokens(ids)`, for methods that change it.

        Raises:
            ValueError: a document longer than `length`.
        """
        x = self._last_two(ids, cache, embedded)[1]
        return self.norm(x) if self.causal else x

    def _last_two(self, ids: Tensor, cache: Cache | None = None, embedded: Tensor | None = None) -> tuple[Tensor, Tensor]:
        before = x = self.embed_tokens(ids, cache.filled if cache else 0) if embedded is None else embedded
        seen = None if self.causal else self.may_see(ids)
        for i, layer in enumerate(self.layers):
            before, x = x, layer(x, seen, (cache.keys[i], cache.values[i], cache.filled) if cache else None)
        return before, x

    def embed_tokens(
        self, ids: Int[Tensor, "B T"], after: int = 0, *, places: Int[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B T width"]:
        """Token, position and, for BERT, first or second text: the sum, normalised for BERT.

        Args:
            ids: token numbers.
            after: how many tokens came before.
            places: the position of each token; None for those that it has.
        """
        positions = (self.places(ids) if places is None else places) + after
        if ids.shape[1] + after > self.length and int(positions.max()) >= self.length:
            raise ValueError(f"this encoder knows {self.length} positions, got a text of {int(positions.max()) + 1} tokens; cut it")
        x = self.tokens(ids) + self.positions(positions)
        if not self.causal:
            x = self.norm(x + self.kinds(self.which_text(ids)))
        return F.dropout(x, self.dropout, self.training) if self.dropout else x

    def places(self, ids: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
        """How many tokens of the same document come before each; from the row's beginning if causal."""
        at = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        return at if self.causal else at - torch.where(ids == self.start, at, 0).cummax(dim=1).values

    def documents(self, ids: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
        """Number of the document in its row, from 1."""
        return (ids == self.start).cumsum(dim=1)

    def which_text(self, ids: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
        """0 in the first text of a document, 1 in the second, which follows an END without a START."""
        ends = (ids == self.end).long()
        return (ends.cumsum(dim=1) - ends - (self.documents(ids) - 1)).clamp(0, 1)

    def may_see(self, ids: Int[Tensor, "B T"]) -> Bool[Tensor, "B 1 T T"]:
        """True where both tokens are of one document and the one that is seen is no padding."""
        document = self.documents(ids)
        seen = torch.where(ids == self.pad, -1, document)
        return document[:, None, :, None] == seen[:, None, None, :]

    def new_cache(self, rows: int, room: int, dtype: torch.dtype = torch.float32) -> Cache:
        """An empty cache for `rows` texts of up to `room` tokens."""
        shape = (len(self.layers), rows, self.heads, room, self.width // self.heads)
        keys, values = (torch.zeros(shape, dtype=dtype, device=self.tokens.weight.device) for _ in range(2))
        return Cache(keys, values, 0)

    def _initialise(self) -> None:
        """Weights N(0, 0.02^2), biases 0; GPT-2's projections back onto the tokens are smaller by sqrt(2 layers) (its section 2.3)."""
        initialise_linear(self)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        if self.causal:
            for layer in self.layers:
                for linear in (layer.out, layer.down):
                    nn.init.normal_(linear.weight, std=0.02 / (2 * len(self.layers)) ** 0.5)  # type: ignore[union-attr, arg-type]


def text_encoder(name: str, vocabulary_size: int, text: Mapping[str, Any]) -> TextTransformer:
    """The transformer of that name; `text` has "length", "pad", "start" and "end", and "shape" where the name tells none."""
    return TextTransformer(name, vocabulary_size=vocabulary_size, **text)


def only_text(encoder: Encoder, method: str, *, causal: bool | None = None) -> TextTransformer:
    """The encoder itself, for methods of text.

    Raises:
        ValueError: it is another network, or of the other family.
    """
    wanted = "a transformer" if causal is None else "a GPT" if causal else "a BERT"
    if not isinstance(encoder, TextTransformer) or (causal is not None and encoder.causal != causal):
        name = vars(encoder).get("spec", {}).get("name", type(encoder).__name__)
        some = ", ".join(size for size in SIZES if causal is None or size.startswith("gpt") == causal)
        raise ValueError(f"{method} learns from text with {wanted}, got encoder {name}; choose one of {some}")
    return encoder
