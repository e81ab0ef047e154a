"""BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding.

Devlin, Chang, Lee and Toutanova, NAACL 2019. https://arxiv.org/abs/1810.04805

Modality   text
Hidden     15 % of the tokens: replaced by [MASK] (80 %), by any token (10 %), or left as they are (10 %) (section 3.1, task 1).
Shown      the rest, on both sides; several documents share a row, each sees itself only.
Predicted  the tokens that were there; if asked, whether the second of two texts follows the first (task 2).

Axes: B rows, T tokens of a row, M hidden tokens in the batch, V tokens in the vocabulary.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from selfsup.distributed import sum_over_processes, world_size
from selfsup.losses import full_precision
from selfsup.method import Batch, Encoder, Layout, Method, Recipe, Update, Vocabulary
from selfsup.models.text import only_text
from selfsup.models.vit import initialise_linear
from selfsup.views.sampling import chance
from selfsup.views.token_masks import mask_tokens

SHORT = 0.7
SHORTEST = 32  # tokens


class Holes:
    """Rows of text with hidden tokens: "shown" and "text" (B, T) int64, "hidden" (B, T) bool.

    For pairs of texts, START first END second END, half of the second ones are exchanged for those of other rows: "follows" (B,) bool is
    True where the second text is the first one's own.

    Args:
        vocabulary: of the tokenizer.
        fraction: of tokens that are hidden, 0 to 1.
        whole_words: hide all tokens of a word or none.
        pairs: whether rows are pairs.
    """

    def __init__(self, vocabulary: Vocabulary, fraction: float, *, whole_words: bool, pairs: bool) -> None:
        self.vocabulary, self.fraction, self.whole_words, self.pairs = vocabulary, fraction, whole_words, pairs

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Exchanges second texts, then hides tokens."""
        v, ids = self.vocabulary, batch["text"]
        views: Batch = {}
        if self.pairs:
            ids, views["follows"] = exchange(ids, generator, v)
        special, continues = v.special.to(ids.device), v.continues.to(ids.device)
        found = mask_tokens(
            ids, generator, fraction=self.fraction, mask=v.mask, special=special, continues=continues if self.whole_words else None
        )
        return {**views, "text": ids, "shown": found.shown, "hidden": found.hidden}


def exchange(ids: Int[Tensor, "B T"], generator: torch.Generator, v: Vocabulary) -> tuple[Int[Tensor, "B T"], Bool[Tensor, " B"]]:
    """Give each row the second text of the row before it in the batch, for every other row by chance; what is too long is cut.

    Returns the rows, and True where the second text is still the row's own.
    """
    b, t = ids.shape
    follows = chance(b, generator, 0.5).to(ids.device)
    at = torch.arange(t, device=ids.device).expand(b, t)
    split = (ids == v.end).int().argmax(dim=1) + 1  # where the second text begins
    other = split.roll(1)
    source = (at - split[:, None] + other[:, None]).clamp(0, t - 1)
    lent = ids.roll(1, dims=0).gather(1, source)
    inside = at - split[:, None] + other[:, None] < t
    mixed = torch.where(at < split[:, None], ids, torch.where(inside, lent, v.pad))
    last = mixed[:, -1]
    mixed[:, -1] = torch.where((last == v.pad) | (last == v.end), last, v.end)  # a text that was cut still ends
    return torch.where(follows[:, None], ids, mixed), follows


class BERT(Method):
    """Transformer encoder with a head that names hidden tokens, and one that says whether two texts belong together.

    The recipe is for short runs. The paper's is Adam with lr 1e-4, beta_2 0.999, batches of 256 rows of 512 tokens, a million steps, weight
    decay 0.01, warm-up over 10,000 steps and linear decay.

    Args:
        encoder: transformer, one of bert_tiny to bert_base.
        vocabulary: of the tokenizer.
        fraction: of tokens that are hidden, above 0 and below 1; the paper's is 0.15.
        whole_words: hide all tokens of a word or none, as the authors' later models do; the paper's is no.
        next_sentence: also ask whether the second of two texts follows the first (task 2); the paper's is yes, later work found it no help.
        dropout: probability in the transformer, 0 to 1; the paper's is 0.1, which runs of less than an epoch do better without.
        short: part of the training, 0 to 1, in which rows are cut into four, or into rows of 32 tokens where these are longer: attention
            finds a token's neighbours much sooner in them. The paper's is 0.9 (appendix A.2: 128 of 512 tokens); 0.7 when not given, as
            later the rate is too low here to learn the places behind; pairs of texts cannot be cut, so 0 with next_sentence.
    """

    recipe: ClassVar[Recipe] = Recipe(
        optimizer="adamw", lr=5e-4, batch_size=64, weight_decay=1e-2, warmup=0.1, clip=1.0, encoder="bert_mini", tokenizer="wordpiece"
    )

    def __init__(
        self,
        encoder: Encoder,
        *,
        vocabulary: Vocabulary,
        fraction: float = 0.15,
        whole_words: bool = False,
        next_sentence: bool = False,
        dropout: float = 0.0,
        short: float | None = None,
    ) -> None:
        super().__init__()
        if not 0 < fraction < 1:
            raise ValueError(f"fraction must be above 0 and below 1, got {fraction}")
        if short is not None and not 0 <= short <= 1:
            raise ValueError(f"short is a part of the training and must be between 0 and 1, got {short}")
        if short and next_sentence:
            raise ValueError(f"pairs of texts cannot be cut into short rows: short must be 0 with next_sentence, got {short}")
        if vocabulary.mask < 0:
            raise ValueError("bert needs a tokenizer with a token [MASK]; learn one from the text with --tokenizer wordpiece")
        transformer = only_text(encoder, "bert", causal=False)
        transformer.set_dropout(dropout)
        self.encoder = self.transformer = transformer
        width = transformer.width
        self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, eps=1e-12))
        self.bias = nn.Parameter(torch.zeros(vocabulary.size))  # the weight of the last layer is the table of tokens
        self.pooler = nn.Sequential(nn.Linear(width, width), nn.Tanh()) if next_sentence else None
        self.follows = nn.Linear(width, 2) if next_sentence else None
        for part in (self.transform, self.pooler, self.follows):
            if part is not None:
                initialise_linear(part)
        self.views = Holes(vocabulary, fraction, whole_words=whole_words, pairs=next_sentence)
        self.short = (0.0 if next_sentence else SHORT) if short is None else short

    @classmethod
    def layout(cls, options: Mapping[str, Any]) -> Layout:
        """Pairs of texts where it is asked whether one follows the other."""
        return "pairs" if options.get("next_sentence") else "packed"

    def updates(self, views: Batch) -> Iterator[Update]:
        """The sum of both tasks' losses (appendix A.2)."""
        shown, missing, where = views["shown"], views["text"], views["hidden"]
        if self.training and self.progress < self.short:
            t = self.transformer
            shown, missing, where = cut(shown, t.start, t.pad), cut(missing, t.start, t.pad), cut(where, False, False)
        hidden = self.transformer.hidden(shown)
        named = masked_loss(self.scores(hidden[where]), missing[where])
        loss, metrics = named, {"nats a token": named.detach()}
        if self.pooler is not None and self.follows is not None:
            related = F.cross_entropy(self.follows(self.pooler(hidden[:, 0])).float(), views["follows"].long())
            loss, metrics = loss + related, {**metrics, "next sentence": related.detach()}
        yield Update(loss, metrics=metrics)

    def scores(self, hidden: Float[Tensor, "M width"]) -> Float[Tensor, "M V"]:
        """Logits of every token of the vocabulary, from the vectors at hidden places only: a tenth of the work of all places."""
        return F.linear(self.transform(hidden), self.transformer.tokens.weight, self.bias.to(hidden.dtype))


def cut(rows: Tensor, first: int, fill: int) -> Tensor:
    """(B, T) -> (B n, S), rows of S = max(T / 4, 32) tokens, rounded up; each begins with `first` instead of its token.

    The last of a row is filled up with `fill`. Rows of up to 32 tokens stay as they are.
    """
    t = rows.shape[1]
    size = max(math.ceil(t / 4), SHORTEST)
    if t <= size:
        return rows
    rows = F.pad(rows, (0, -t % size), value=fill).reshape(-1, size).clone()
    rows[:, 0] = first
    return rows


@full_precision
def masked_loss(scores: Float[Tensor, "M V"], missing: Int[Tensor, " M"]) -> Float[Tensor, ""]:
    """-log p(missing token), the mean over the hidden tokens of all processes, in nats; 0 where nothing is hidden."""
    total = F.cross_entropy(scores, missing, reduction="sum")
    hidden = sum_over_processes(torch.tensor(float(len(missing)), device=scores.device))
    return total * world_size() / hidden.clamp(min=1)  # the engine takes the mean over processes
