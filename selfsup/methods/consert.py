"""ConSERT: A Contrastive Framework for Self-Supervised Sentence Representation Transfer.

Yan, Li, Wang, Zhang, Wu and Xu, ACL 2021. https://arxiv.org/abs/2105.11741
The attack's loss, where there are no labels: Ho and Vasconcelos, NeurIPS 2020. https://arxiv.org/abs/2010.12050

Modality   text
Hidden     which other vector of the batch is that of the same sentence.
Shown      every sentence twice, changed in two ways where its tokens have become vectors: their positions shuffled, tokens or features
           cut off, elements dropped, or pushed to where the loss is larger (section 3.2).
Predicted  the partner of every view: softmax over cosine similarities (equation 1).

Axes: B sentences in the batch, T tokens of a sentence, D width of a token's vector.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from selfsup.distributed import world_size
from selfsup.losses import nt_xent
from selfsup.method import Batch, Encoder, Layout, Method, Recipe, Vocabulary
from selfsup.models.text import only_text
from selfsup.views.sampling import uniform

Change = Literal["none", "adversarial", "shuffle", "token_cutoff", "feature_cutoff", "dropout"]
SIDES = ("first", "second")


class Changes:
    """What each of the two views is to lose: "text" (B, T), and for each side "places" (B, T) int64 or "kept" bool where it needs them.

    Args:
        pad: number of the padding.
        length: most tokens of a sentence; so many numbers are drawn however long a batch's longest is, so that every process draws alike.
        width: D.
        chosen: the change of each side.
        cutoff: probabilities of a token and of a feature to be cut off.
    """

    def __init__(self, pad: int, length: int, width: int, chosen: tuple[Change, Change], cutoff: tuple[float, float]) -> None:
        self.pad, self.length, self.width, self.chosen, self.cutoff = pad, length, width, chosen, cutoff

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Draws for every sentence; dropout draws its own in the loss."""
        ids = batch["text"]
        views: Batch = {"text": ids}
        for side, change in zip(SIDES, self.chosen, strict=True):
            if change == "shuffle":
                views[f"{side}_places"] = self._shuffled(ids, generator)
            elif change == "token_cutoff":
                views[f"{side}_kept"] = (self._numbers(ids, generator) >= self.cutoff[0])[:, :, None]
            elif change == "feature_cutoff":
                lost = uniform(len(ids), generator, 0.0, 1.0, self.width).to(ids.device) < self.cutoff[1]
                views[f"{side}_kept"] = ~lost[:, None, :]
        return views

    def _shuffled(self, ids: Int[Tensor, "B T"], generator: torch.Generator) -> Int[Tensor, "B T"]:
        """A place for each token: those of the sentence in any order, padding behind them."""
        keys = torch.where(ids == self.pad, 2.0, self._numbers(ids, generator))
        return keys.argsort(dim=1, stable=True)

    def _numbers(self, ids: Int[Tensor, "B T"], generator: torch.Generator) -> Float[Tensor, "B T"]:
        return uniform(len(ids), generator, 0.0, 1.0, self.length)[:, : ids.shape[1]].to(ids.device)


class ConSERT(Method):
    """BERT whose embeddings of tokens are changed in two ways; the paper's unsupervised training, of a pretrained encoder: `--start RUN`.

    The recipe is for short runs of small networks; the paper's for BERT-base is lr 5e-7, batches of 96 sentences of up to 64 tokens and a
    warm-up over a tenth.

    Args:
        encoder: transformer, one of bert_tiny to bert_base.
        vocabulary: of the tokenizer.
        first: change of the first view: none, adversarial, shuffle (positions in any order), token_cutoff, feature_cutoff or dropout. The
            paper's best without labels are feature_cutoff and shuffle. It makes adversarial examples with labels only, from the gradient
            of their loss; here the gradient is that of the contrast itself, as in CLAE.
        second: change of the second view.
        temperature: tau, no unit; the paper's is 0.1.
        token_cutoff: probability of a token to become zero, 0 to 1; the paper's is 0.15.
        feature_cutoff: probability of a feature to become zero in all tokens of a sentence, 0 to 1; the paper's is 0.2.
        drop: probability of dropout on the embeddings, 0 to 1; the paper's is 0.2.
        attack: length of an adversarial step, as a fraction of the length of the sentence's embeddings.
        dropout: probability in the transformer; the paper's is 0 without labels, as dropout is a change of its own.
        pool: what becomes of the tokens, and stays the encoder's way: the mean of the last_two layers' tokens, as in the paper; the mean
            of the last layer's; or class, the vector of the first token.
    """

    recipe: ClassVar[Recipe] = Recipe(
        optimizer="adamw",
        lr=1e-4,
        batch_size=64,
        weight_decay=0.0,
        warmup=0.1,
        clip=1.0,
        encoder="bert_mini",
        tokenizer="wordpiece",
        sequence_length=64,
    )

    def __init__(
        self,
        encoder: Encoder,
        *,
        vocabulary: Vocabulary,
        first: Change = "feature_cutoff",
        second: Change = "shuffle",
        temperature: float = 0.1,
        token_cutoff: float = 0.15,
        feature_cutoff: float = 0.2,
        drop: float = 0.2,
        attack: float = 0.1,
        dropout: float = 0.0,
        pool: Literal["last_two", "mean", "class"] = "last_two",
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        for name, p in {"token_cutoff": token_cutoff, "feature_cutoff": feature_cutoff, "drop": drop}.items():
            if not 0 <= p < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, got {p}")
        if attack <= 0:
            raise ValueError(f"attack must be positive, got {attack}")
        transformer = only_text(encoder, "consert", causal=False)
        transformer.set_dropout(dropout)
        transformer.set_pool(pool)
        self.encoder = self.transformer = transformer
        self.chosen, self.temperature, self.drop, self.attack = (first, second), temperature, drop, attack
        self.views = Changes(vocabulary.pad, transformer.length, transformer.width, self.chosen, (token_cutoff, feature_cutoff))

    @classmethod
    def layout(cls, options: Mapping[str, Any]) -> Layout:  # noqa: ARG003
        """Sentence by sentence."""
        return "sentences"

    def loss(self, views: Batch) -> Tensor:
        """Equation 1, NT-Xent of the two views; both go through the layers in one pass."""
        ids = views["text"]
        first, second = (self._changed(views, side, change) for side, change in zip(SIDES, self.chosen, strict=True))
        pushed = (
            self._attacked(ids, first, second) if self.chosen[0] == "adversarial" else first,
            self._attacked(ids, second, first) if self.chosen[1] == "adversarial" else second,
        )
        r_first, r_second = self.transformer.vector(torch.cat([ids, ids]), embedded=torch.cat(pushed)).chunk(2)
        return nt_xent(r_first, r_second, self.temperature)

    def candidates(self, views: Batch) -> int:
        return 2 * len(views["text"]) * world_size() - 1  # all views but the one that looks

    def _changed(self, views: Batch, side: str, change: Change) -> Float[Tensor, "B T D"]:
        e = self.transformer.embed_tokens(views["text"], places=views.get(f"{side}_places"))
        if f"{side}_kept" in views:
            e = e * views[f"{side}_kept"]
        return F.dropout(e, self.drop, self.training) if change == "dropout" else e

    def _attacked(self, ids: Int[Tensor, "B T"], e: Float[Tensor, "B T D"], partner: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """The embeddings, a step along the gradient of the loss away (the fast gradient value of section 3.2)."""
        with torch.no_grad():
            r_partner = self.transformer.vector(ids, embedded=partner)
        with torch.enable_grad():
            x = e.detach().requires_grad_()
            loss = nt_xent(self.transformer.vector(ids, embedded=x), r_partner, self.temperature)
            (gradient,) = torch.autograd.grad(loss, x)
        there = (ids != self.transformer.pad)[:, :, None]
        length = (e.detach() * there).flatten(1).norm(dim=1)
        step = self.attack * length / gradient.flatten(1).norm(dim=1).clamp(min=1e-30)
        return e + step[:, None, None] * gradient
