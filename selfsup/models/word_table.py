"""A table of words' vectors, on token numbers; and memory for tables that a kernel walks through fast.

Axes: B texts, T tokens, V tokens in the vocabulary, width of a word's vector.
"""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from selfsup.method import Encoder

LANES = 16  # numbers that the kernel takes at a time, 64 bytes; the compiler makes of it what the machine has
ENDS = 1 << 33  # among the chances to be kept: this token ends a sentence
_LINE = 64  # bytes of a cache line


class WordTable(Encoder):
    """A vector for every word; that of a text is the mean over its words, without those that the table does not know.

    Args:
        width: numbers of a vector.
        vocabulary_size: V.
        left_out: token numbers that are no words; -1 is none.

    Attributes:
        vectors: (V, width); of tokens that are left out, zero.
        known: (V,) bool, False for tokens that are left out.
    """

    known: Tensor

    def __init__(self, width: int, vocabulary_size: int, left_out: Iterable[int] = ()) -> None:
        super().__init__()
        self.width = width
        self.vectors = nn.Parameter(new_table(vocabulary_size, width))
        self.register_buffer("known", torch.ones(vocabulary_size, dtype=torch.bool))
        nn.init.uniform_(self.vectors, -0.5 / width, 0.5 / width)  # as the authors of word2vec have it
        left_out = [i for i in left_out if i >= 0]
        self.leave_out(torch.zeros(vocabulary_size, dtype=torch.bool).index_fill_(0, torch.tensor(left_out, dtype=torch.int64), 1))

    @torch.no_grad()
    def leave_out(self, tokens: Bool[Tensor, " V"]) -> None:
        """These tokens are no words of the table."""
        self.known &= ~tokens.to(self.known.device)
        self.vectors[~self.known] = 0

    def forward(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B width"]:
        """(B, T) -> (B, width); zero for a text without a known word."""
        there = self.known[ids].to(self.vectors.dtype)
        return F.embedding_bag(ids, self.vectors, mode="sum", per_sample_weights=there) / there.sum(dim=1, keepdim=True).clamp(min=1)


def new_table(rows: int, width: int) -> Float[Tensor, "rows width"]:
    """Zeros, each row followed by unused ones up to a multiple of 16, at the beginning of a cache line."""
    stride = -(-width // LANES) * LANES
    memory = np.zeros(rows * stride * 4 + _LINE, np.uint8)  # numpy asks the system for large pages, torch does not
    begin = -memory.ctypes.data % _LINE
    return torch.from_numpy(memory[begin : begin + rows * stride * 4].view(np.float32).reshape(rows, stride))[:, :width]


def flat(table: Float[Tensor, "rows width"]) -> np.ndarray:
    """The memory of a table of `new_table`, unused numbers and all: (rows * stride,) float32.

    Raises:
        ValueError: it is another tensor, or not on the processor.
    """
    rows, stride = table.shape[0], table.stride(0)
    if table.device.type != "cpu" or table.dtype != torch.float32 or stride % LANES or table.stride(1) != 1:
        raise ValueError(f"expected a float32 table of words made by new_table, got {table.dtype} on {table.device}, {table.stride()=}")
    return table.detach().as_strided((rows * stride,), (1,)).numpy()


def only_words(encoder: Encoder, method: str) -> WordTable:
    """The encoder itself, for methods that learn a table of words.

    Raises:
        ValueError: it is another network.
    """
    if not isinstance(encoder, WordTable):
        name = vars(encoder).get("spec", {}).get("name", type(encoder).__name__)
        raise ValueError(f"{method} learns a table of words, got encoder {name}; choose words_100, or words_N for N numbers a word")
    return encoder
