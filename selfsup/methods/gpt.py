"""GPT: Language Models are Few-Shot Learners, the causal language model of GPT-2 and GPT-3.

Brown et al., NeurIPS 2020. https://arxiv.org/abs/2005.14165
Radford et al., Language Models are Unsupervised Multitask Learners, 2019 (GPT-2), whose network it is.

Modality   text
Hidden     every token from those before it.
Shown      for each token, all that came before it in the row, back to the row's beginning.
Predicted  the next token: softmax over the vocabulary, its log-likelihood.

Axes: B rows, T tokens of a row, V tokens in the vocabulary.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from selfsup.losses import full_precision
from selfsup.method import Batch, Encoder, Layout, Method, Recipe, Update, Vocabulary
from selfsup.models.text import only_text


class NextToken:
    """What is shown of rows of T tokens, "shown" (B, T - 1), and what comes next, "next" (B, T - 1)."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Nothing random: what is hidden is hidden by a shift."""
        return {"shown": batch["text"][:, :-1], "next": batch["text"][:, 1:]}


class GPT(Method):
    """Transformer decoder whose last layer is the table of tokens.

    The recipe is for short runs. GPT-3's is Adam with betas 0.9 and 0.95, lr 6e-4 for its smallest model and 6e-5 for its largest, batches
    of 0.5 to 3.2 M tokens, weight decay 0.1, gradients clipped at 1, warm-up, then a cosine to a tenth.

    Args:
        encoder: transformer, one of gpt_nano, gpt_mini and gpt2.
        vocabulary: of the tokenizer.
        dropout: probability in the transformer, 0 to 1; GPT-2's is 0.1, runs of few epochs do better without.
    """

    recipe: ClassVar[Recipe] = Recipe(
        optimizer="adamw",
        lr=1e-3,
        batch_size=32,
        weight_decay=0.1,
        beta2=0.99,
        warmup=0.05,
        clip=1.0,
        encoder="gpt_mini",
        tokenizer="bpe",
        sequence_length=128,
    )

    def __init__(self, encoder: Encoder, *, vocabulary: Vocabulary, dropout: float = 0.0) -> None:
        super().__init__()
        transformer = only_text(encoder, "gpt", causal=True)
        transformer.set_dropout(dropout)
        self.encoder = self.transformer = transformer  # in this order: checkpoints call its tensors by the first name
        self.end = vocabulary.end
        self.views = NextToken()

    @classmethod
    def layout(cls, options: Mapping[str, Any]) -> Layout:  # noqa: ARG003
        """Rows of the corpus as it runs on, documents joined by the token that ends a text."""
        return "stream"

    def updates(self, views: Batch) -> Iterator[Update]:
        """Mean of -log p(next token | those before), in nats, with "bits a token"."""
        loss = next_token_loss(self.scores(self.transformer.hidden(views["shown"])), views["next"])
        yield Update(loss, metrics={"bits a token": loss.detach() / torch.log(torch.tensor(2.0))})

    def scores(self, hidden: Float[Tensor, "B T width"]) -> Float[Tensor, "B T V"]:
        """Logits of every token of the vocabulary."""
        return F.linear(hidden, self.transformer.tokens.weight.to(hidden.dtype))

    def log_likelihood(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T1"]:
        """log p of each token but a row's first, given those before it, in nats: (B, T - 1)."""
        scores = self.scores(self.transformer.hidden(ids[:, :-1])).float()
        return scores.log_softmax(dim=2).gather(2, ids[:, 1:, None])[:, :, 0]

    @torch.no_grad()
    def go_on(
        self, prompt: Int[Tensor, "B T"], n: int, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, cached: bool = True
    ) -> Int[Tensor, "B N"]:
        """The prompt and n more tokens, drawn one by one from torch's global generator.

        What was computed for earlier tokens is kept, until the encoder's positions are used up; from there on the last `length` tokens are
        looked at anew for each.

        Args:
            prompt: (B, T) token numbers, T at least 1; `end` alone begins a text.
            n: tokens to add, 0 or more.
            temperature: scores are divided by it, 0 or more; at 0 the likeliest token is taken.
            top_k: draw from the k likeliest tokens only; 0 for all.
            top_p: draw from the likeliest tokens that together have this probability (nucleus sampling, 1904.09751), above 0 to 1.
            cached: whether to keep what was computed; the tokens are the same either way.

        Raises:
            ValueError: an empty prompt, or a number out of range.
        """
        check_sampling(prompt.shape[1], n, temperature, top_k, top_p)
        ids, length = prompt, self.transformer.length
        room = min(length, prompt.shape[1] + n)
        dtype = self.transformer.tokens.weight.dtype
        cache = self.transformer.new_cache(len(prompt), room, dtype) if cached and prompt.shape[1] <= length else None
        new = prompt
        for _ in range(n):
            if cache is not None and cache.filled + new.shape[1] <= room:
                hidden = self.transformer.hidden(new, cache)
                cache = cache.moved(new.shape[1])
            else:
                cache = None
                hidden = self.transformer.hidden(ids[:, -length:])
            scores = self.scores(hidden[:, -1:])[:, 0].float()
            new = draw(scores, temperature, top_k, top_p)
            ids = torch.cat([ids, new], dim=1)
        return ids


def check_sampling(prompt: int, n: int, temperature: float, top_k: int, top_p: float) -> None:
    """Raise ValueError for settings of `GPT.go_on` that are out of range."""
    if prompt < 1 or n < 0:
        raise ValueError(f"a text goes on from at least 1 token and by 0 or more, got a prompt of {prompt} and n={n}")
    if temperature < 0 or top_k < 0 or not 0 < top_p <= 1:
        raise ValueError(f"expected temperature and top_k of at least 0, and top_p above 0 to 1, got {temperature=}, {top_k=}, {top_p=}")


def draw(scores: Float[Tensor, "B V"], temperature: float, top_k: int, top_p: float) -> Int[Tensor, "B 1"]:
    """One token for each row of scores; see `GPT.go_on`."""
    if temperature == 0:
        return scores.argmax(dim=1, keepdim=True)
    return torch.multinomial(kept(scores / temperature, top_k, top_p).softmax(dim=1), 1)


def kept(scores: Float[Tensor, "B V"], top_k: int, top_p: float) -> Float[Tensor, "B V"]:
    """The scores, minus infinity where a token is neither among the k likeliest nor in the smallest set that has probability p."""
    if top_k:
        least = scores.topk(min(top_k, scores.shape[1]), dim=1).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    if top_p < 1:
        ordered, order = scores.sort(dim=1, descending=True)
        p = ordered.softmax(dim=1)
        beyond = p.cumsum(dim=1) - p >= top_p  # what comes before it has the probability already; the first never is
        scores = scores.masked_fill(torch.zeros_like(beyond).scatter(1, order, beyond), -torch.inf)
    return scores


@full_precision
def next_token_loss(scores: Float[Tensor, "B T V"], following: Int[Tensor, "B T"]) -> Float[Tensor, ""]:
    """-log p(next token), the mean over all places, in nats."""
    return F.cross_entropy(scores.flatten(0, 1), following.flatten())
