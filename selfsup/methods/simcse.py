"""SimCSE: Simple Contrastive Learning of Sentence Embeddings.

Gao, Yao and Chen, EMNLP 2021. https://arxiv.org/abs/2104.08821

Modality   text
Hidden     which other vector of the batch is that of the same sentence, or of one that follows from it.
Shown      the same sentence twice, each time with other units of the network dropped (section 3); or, supervised, a premise, a sentence
           that it entails, and if there is one a sentence that contradicts it (section 4).
Predicted  the partner of every sentence: softmax over cosine similarities (equations 4 and 5).

Axes: B sentences in the batch, n texts that belong together, T tokens of a text.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from selfsup.distributed import gather, world_size
from selfsup.losses import full_precision, log_partition
from selfsup.method import Batch, Encoder, Layout, Method, Recipe, Vocabulary
from selfsup.models.text import only_text
from selfsup.models.vit import initialise_linear

ROLES = ("premise", "entailed", "contradicting")


class Sentences:
    """Nothing is drawn: "text" (B, T) as it is; supervised, each of `ROLES` that the rows have, (B, T), taken apart.

    Args:
        vocabulary: of the tokenizer.
        supervised: whether rows are texts that belong together.
    """

    def __init__(self, vocabulary: Vocabulary, *, supervised: bool) -> None:
        self.vocabulary, self.supervised = vocabulary, supervised

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Rows of START text END START text END -> a row for each text."""
        if not self.supervised:
            return {"text": batch["text"]}
        return dict(zip(ROLES, take_apart(batch["text"], self.vocabulary), strict=False))


def take_apart(ids: Int[Tensor, "B T"], vocabulary: Vocabulary) -> Int[Tensor, "n B t"]:
    """The n texts of each row, each from its START on, filled up with padding; every row has as many."""
    begins, there = ids == vocabulary.start, ids != vocabulary.pad
    at = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    which = begins.cumsum(dim=1) - 1
    place = at - torch.where(begins, at, 0).cummax(dim=1).values
    texts = ids.new_full((int(which.max()) + 1, len(ids), int(place[there].max()) + 1), vocabulary.pad)
    row = torch.arange(len(ids), device=ids.device)[:, None].expand_as(ids)
    texts[which[there], row[there], place[there]] = ids[there]
    return texts


class SimCSE(Method):
    """BERT with a head that only training sees, for which dropout is all the augmentation there is.

    Begin with a pretrained encoder, as the paper does: `--start RUN`. The recipe is for short runs of small networks; the paper's is Adam
    without weight decay, 1 epoch over 10^6 sentences of up to 32 tokens, batches of 64 and lr 3e-5 for BERT-base; supervised 3 epochs
    over 275,602 triples, batches of 512 and lr 5e-5.

    Args:
        encoder: transformer, one of bert_tiny to bert_base.
        vocabulary: of the tokenizer.
        supervised: learn from rows of texts that belong together: two or three columns of .tsv, .csv, .jsonl or .parquet, chosen with
            --column premise,entailed,contradicting; the third may be missing.
        temperature: tau, no unit; the paper's is 0.05.
        dropout: probability in the transformer, 0 to 1; the paper's is 0.1, and 0 makes both views the same.
        pool: what becomes of the tokens, and stays the encoder's way: "class", the vector of the first one, is the paper's (its head,
            dense and tanh, is thrown away here also where supervised, which the paper found to make no difference); "mean" of all
            tokens, or of those of the last_two layers.
    """

    recipe: ClassVar[Recipe] = Recipe(
        optimizer="adamw",
        lr=1e-4,
        batch_size=64,
        weight_decay=0.0,
        warmup=0.05,
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
        supervised: bool = False,
        temperature: float = 0.05,
        dropout: float = 0.1,
        pool: Literal["class", "mean", "last_two"] = "class",
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        transformer = only_text(encoder, "simcse", causal=False)
        transformer.set_dropout(dropout)
        transformer.set_pool(pool)
        self.encoder = transformer
        self.head = nn.Sequential(nn.Linear(encoder.width, encoder.width), nn.Tanh())
        initialise_linear(self.head)
        self.temperature, self.supervised = temperature, supervised
        self.views = Sentences(vocabulary, supervised=supervised)

    @classmethod
    def layout(cls, options: Mapping[str, Any]) -> Layout:
        """Sentence by sentence, or rows of texts that belong together."""
        return "related" if options.get("supervised") else "sentences"

    def loss(self, views: Batch) -> Tensor:
        """Equation 4; supervised, equation 5. All texts go through in one pass, and no two of them lose the same units."""
        texts = [views[role] for role in ROLES if role in views] if self.supervised else [views["text"]] * 2
        z, z_plus, *z_minus = self.head(self.encoder(torch.cat(texts))).chunk(len(texts))
        return contrast(z, z_plus, z_minus[0] if z_minus else None, self.temperature)

    def candidates(self, views: Batch) -> int:
        of_each = sum(role in views for role in ROLES[1:]) if self.supervised else 1  # what follows, and what contradicts
        return of_each * len(views["premise" if self.supervised else "text"]) * world_size()


@full_precision
def contrast(
    h: Float[Tensor, "B D"], h_plus: Float[Tensor, "B D"], h_minus: Float[Tensor, "B D"] | None, temperature: float
) -> Float[Tensor, ""]:
    """-log of the softmax of the cosine with the partner, among those of all processes' partners and contradictions.

    Equation 5, and without contradictions equation 4; a mean over the B, in nats: log of the number of candidates where all are the same.

    Args:
        h, h_plus: vectors of sentences and their partners; they are normalised here.
        h_minus: vectors of their contradictions, None where there are none.
        temperature: tau.
    """
    h, h_plus = F.normalize(h, dim=1) / temperature, F.normalize(h_plus, dim=1)
    candidates = gather(h_plus)
    if h_minus is not None:
        candidates = torch.cat([candidates, gather(F.normalize(h_minus, dim=1))])
    return (log_partition(h, candidates) - (h * h_plus).sum(dim=1)).mean()
