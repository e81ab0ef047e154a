"""word2vec: Efficient Estimation of Word Representations in Vector Space.

Mikolov, Chen, Corrado and Dean, 2013. https://arxiv.org/abs/1301.3781
Mikolov, Sutskever, Chen, Corrado and Dean, Distributed Representations of Words and Phrases, NIPS 2013. https://arxiv.org/abs/1310.4546

Modality   text
Hidden     cbow: a word; skip_gram: the words around one, up to c on each side, c drawn anew for each (1301.3781, section 3).
Shown      cbow: the mean of the words around it; skip_gram: the word; frequent words are left out by chance (1310.4546, equation 5).
Predicted  which word it was: told from noise words (negative sampling), or found in a Huffman tree (hierarchical softmax).

Axes: B rows of text, T tokens of a row, V tokens in the vocabulary, L inner nodes on the way to a word, width of a vector.
"""

import functools
import heapq
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Int, Int64, UInt32, UInt64
from torch import Tensor

from selfsup.distributed import gather, world_size
from selfsup.method import Batch, Encoder, Layout, Method, Recipe, Update, Vocabulary
from selfsup.models.word_table import ENDS, flat, new_table, only_words
from selfsup.views.sampling import integers

PARTS = 4  # of a batch, for each thread: few, as every call of the kernel holds the others up; several, as some take longer


class Rows:
    """Rows of text, "text" (B, T) int64, and a seed for each, "seed" (B,) int64: what is hidden of them is drawn where they are learned."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Draws the seeds."""
        return {"text": batch["text"], "seed": integers(len(batch["text"]), generator, 1 << 62)}


class Word2Vec(Method):
    """Two tables of words, inputs and outputs, learned by plain gradient descent, a word at a time; the inputs are kept.

    A sentence is a line, and no window goes beyond it. A kernel updates the tables in place on all cores, which do not wait for each other
    (Hogwild), so that two runs differ in rounding and in order. With threads=1 a run is the same bit for bit, resumed or not; several
    processes all make every step, with one thread each, and equal one process. A batch is only how often the learning rate comes down.

    Args:
        encoder: a table of words, words_N for N numbers a word; the paper's have 50 to 1,000.
        vocabulary: of the tokenizer.
        counts: how often each token occurs in the data, (V,); None where nothing is trained.
        model: skip_gram predicts the words around a word, cbow a word from those around it.
        objective: negative_sampling (1310.4546, section 2.2) or hierarchical_softmax (section 2.1).
        window: most words on each side, 1 or more; the paper's is 10 for skip-gram, the authors' code has 5.
        negatives: k, noise words for each hidden word, 1 or more; the paper's are 5 to 20 for little data, 2 to 5 for much.
        noise_power: noise words are drawn by their counts to this power, 0 or more; the paper's is 0.75.
        sample: t, a word whose share f of the text is larger is kept with probability sqrt(t/f) + t/f, as in the authors' code (equation 5
            has no second term); 0 keeps all. The paper's is 1e-5 for billions of words, the authors' code has 1e-3.
        threads: cores that learn, each for itself; 0 for all that torch uses. With 1, runs can be repeated bit for bit.
    """

    recipe: ClassVar[Recipe] = Recipe(
        optimizer="own",
        lr=0.025,
        batch_size=64,
        weight_decay=0.0,
        schedule="linear",
        warmup=0.0,
        encoder="words_100",
        tokenizer="word",
        sequence_length=1000,
        vocabulary_size=1_000_000,
        min_count=5,
        epochs=5,
    )
    on_cpu: ClassVar[bool] = True
    outputs: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        vocabulary: Vocabulary,
        counts: Tensor | None = None,
        model: Literal["skip_gram", "cbow"] = "skip_gram",
        objective: Literal["negative_sampling", "hierarchical_softmax"] = "negative_sampling",
        window: int = 5,
        negatives: int = 5,
        noise_power: float = 0.75,
        sample: float = 1e-3,
        threads: int = 0,
    ) -> None:
        super().__init__()
        if window < 1 or negatives < 1 or threads < 0:
            raise ValueError(
                f"expected window and negatives of at least 1, and threads of at least 0, got {window=}, {negatives=}, {threads=}"
            )
        if noise_power < 0 or sample < 0:
            raise ValueError(f"noise_power and sample must be at least 0, got {noise_power=}, {sample=}")
        self.encoder = self.table = only_words(encoder, "word2vec")
        self.table.leave_out(vocabulary.special)
        self.register_buffer("outputs", new_table(vocabulary.size, encoder.width))  # zero, as the authors have it
        self.vocabulary, self.counts = vocabulary, counts
        self.model, self.objective, self.window, self.threads = model, objective, window, threads
        self.negatives, self.noise_power, self.sample = negatives, noise_power, sample
        self.views = Rows()
        self._tables: _Tables | None = None

    @classmethod
    def layout(cls, options: Mapping[str, Any]) -> Layout:  # noqa: ARG003
        """Whole lines, each ended by END."""
        return "lines"

    def players(self) -> dict[str, torch.nn.Module]:
        """Nobody: the kernel makes the steps."""
        return {}

    def updates(self, views: Batch) -> Iterator[Update]:
        """A pass of the kernel over the batch; the loss is the mean over the examples, in nats, each before its own step."""
        text, seeds = (gather(views[key]).cpu().numpy() for key in ("text", "seed"))
        self._tables = self._tables or self._make_tables()
        threads = 1 if world_size() > 1 else self.threads or torch.get_num_threads()
        if threads == 1:
            loss, examples = self._learn(text, seeds)
        else:
            parts = min(len(text), PARTS * threads)
            found = list(_pool(threads).map(self._learn, np.array_split(text, parts), np.array_split(seeds, parts)))
            loss, examples = sum(loss for loss, _ in found), sum(examples for _, examples in found)
        yield Update(torch.tensor(loss / max(1, examples)), player=None)

    def _learn(self, text: Int64[np.ndarray, "B T"], seeds: Int64[np.ndarray, " B"]) -> tuple[float, int]:
        """The sum of the losses and the number of examples."""
        assert self._tables is not None
        keep, noise, paths, signs = self._tables
        inputs, outputs, stride = flat(self.table.vectors), flat(self.outputs), self.outputs.stride(0)
        negatives = self.negatives if self.objective == "negative_sampling" else 0
        how = (self.window, self.model == "cbow", np.float32(self.learning_rate))
        return _kernel().train_rows(text, seeds, inputs, outputs, stride, keep, noise, negatives, paths, signs, *how)

    def _make_tables(self) -> "_Tables":
        if self.counts is None or not bool(self.counts[~self.vocabulary.special].any()):
            raise ValueError("word2vec has met none of the vocabulary's words in the data; learn the tokenizer from it")
        counts = torch.where(self.vocabulary.special, 0, self.counts).numpy()
        keep = chances_to_stay(counts, self.sample)
        keep[[i for i in (self.vocabulary.pad, self.vocabulary.start, self.vocabulary.end) if i >= 0]] = ENDS
        paths, signs = np.zeros((len(counts), 0), np.int32), np.zeros((len(counts), 0), np.int8)
        if self.objective == "hierarchical_softmax":
            paths, signs = huffman(counts)
        return _Tables(keep, alias_table(counts**self.noise_power * (counts > 0)), paths, signs)


class _Tables(NamedTuple):
    keep: np.ndarray
    noise: np.ndarray
    paths: np.ndarray
    signs: np.ndarray


def chances_to_stay(counts: Int64[np.ndarray, " V"], sample: float) -> UInt64[np.ndarray, " V"]:
    """2^32 times the probability that a word is not left out; 0 for words that do not occur."""
    share = counts / counts.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = np.sqrt(sample / share) + sample / share if sample > 0 else np.ones(len(counts))
    return (np.where(counts > 0, np.minimum(kept, 1), 0) * 2.0**32).astype(np.uint64)


def alias_table(weights: np.ndarray) -> UInt32[np.ndarray, "V 2"]:
    """Walker's table for drawing from (V,) weights in constant time: a column c is drawn evenly, and with probability 1 - [c, 0] / 2^32
    its other word [c, 1] taken for it.
    """  # fmt: skip
    share = (weights / weights.sum() * len(weights)).tolist()
    own, other = [1.0] * len(share), list(range(len(share)))
    poor = [c for c, s in enumerate(share) if s < 1]
    rich = [c for c, s in enumerate(share) if s >= 1]
    while poor and rich:
        c, giver = poor.pop(), rich[-1]
        own[c], other[c] = share[c], giver
        share[giver] -= 1 - share[c]
        if share[giver] < 1:
            poor.append(rich.pop())
    return np.stack([np.minimum(np.array(own) * 2.0**32, 2.0**32 - 1), np.array(other)], axis=1).astype(np.uint32)


def huffman(counts: Int[np.ndarray, " V"]) -> tuple[Int[np.ndarray, "V L"], Int[np.ndarray, "V L"]]:
    """The inner nodes from the root to each word, int32 and -1 after the last, and the turns there, int8: 1 or -1.

    Words that do not occur have no path. Frequent words have short ones: no tree has a shorter mean over the text.
    """
    words = np.flatnonzero(counts).tolist()
    heap = [(int(counts[w]), i, w) for i, w in enumerate(words)]  # the second number makes the order certain among equals
    heapq.heapify(heap)
    parent: dict[int, tuple[int, int]] = {}  # of words, and of inner nodes as -1 - number: the inner node above and the turn
    for node in range(len(words) - 1):
        (a, _, left), (b, _, right) = heapq.heappop(heap), heapq.heappop(heap)
        parent[left], parent[right] = (node, 1), (node, -1)
        heapq.heappush(heap, (a + b, len(words) + node, -1 - node))
    ways: list[list[tuple[int, int]]] = []
    for word in words:
        way, at = [], word
        while at in parent:
            way.append(parent[at])
            at = -1 - way[-1][0]
        ways.append(way[::-1])
    longest = max(1, *map(len, ways)) if ways else 1
    paths, signs = np.full((len(counts), longest), -1, np.int32), np.zeros((len(counts), longest), np.int8)
    for word, way in zip(words, ways, strict=True):
        paths[word, : len(way)] = [node for node, _ in way]
        signs[word, : len(way)] = [turn for _, turn in way]
    return paths, signs


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def _kernel() -> Any:
    try:
        from selfsup.models import word_kernel
    except ImportError:
        raise ValueError("word2vec needs the numba library for its kernel; install selfsup[text]") from None
    return word_kernel
