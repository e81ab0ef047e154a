"""Gradient caching: the loss sees the whole batch, the encoder a few rows at a time, and the gradient is that of the whole batch.

Gao, Zhang, Han and Callan, 2021. https://arxiv.org/abs/2101.06983. The encoder runs part by part and forgets what it computed on the way;
the loss gives every vector its gradient; then each part runs again and hands its gradient to the weights. The vectors are all that is kept
of the batch, for a third more arithmetic. Papers know nothing of it, so it serves every loss that compares items with each other.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from selfsup.method import Encoder


class MicroBatches:
    """Lets the encoders of a method run over `rows` rows at a time while they train.

    Batch statistics are then those of the rows that run together, as on as many devices; they are recorded once.

    Args:
        method: its `Encoder` modules are changed, teachers' too; of an encoder within another, such as that of patches, the inner one.
        rows: of the encoder's input at a time, all views counted.
    """

    def __init__(self, method: nn.Module, rows: int) -> None:
        if rows < 1:
            raise ValueError(f"a micro-batch needs at least 1 row, got {rows}")
        self.rows, self.called, self.method = rows, False, type(method).__name__
        self.encoders = list(_innermost(method))
        for encoder in self.encoders:
            vars(encoder)["forward"] = self._in_parts(encoder, encoder.forward)

    def undo(self) -> None:
        """Leave the encoders as they were: a copy of one would else run the one that it was copied from."""
        for encoder in self.encoders:
            vars(encoder).pop("forward", None)

    def check(self) -> None:
        """Raise ValueError where a step has passed the encoders by, so that nothing was saved."""
        if not self.called:
            raise ValueError(
                f"--micro-batch cannot serve {self.method}, which trains its encoder otherwise than by whole inputs to vectors, by some "
                "patches or by tokens, say; --accumulate is exact where a loss is of single items, and compares fewer of them elsewhere"
            )

    def _in_parts(self, encoder: Encoder, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), _again(encoder, [(m, m.track_running_stats) for m in encoder.modules() if isinstance(m, _BatchNorm)])

        def in_parts(x: Tensor) -> Tensor:
            self.called |= torch.is_grad_enabled()  # passes that only bring statistics up to date save nothing
            if not encoder.training or len(x) <= self.rows:
                return forward(x)
            parts = x.split(self.rows)
            if not torch.is_grad_enabled():
                return torch.cat([forward(part) for part in parts])
            return torch.cat([checkpoint(forward, part, use_reentrant=False, context_fn=contexts) for part in parts])

        return in_parts


def _innermost(module: nn.Module) -> Iterator[Encoder]:
    within = [encoder for child in module.children() for encoder in _innermost(child)]
    yield from within
    if isinstance(module, Encoder) and not within:
        yield module


@contextmanager
def _again(network: nn.Module, tracking: Sequence[tuple[_BatchNorm, bool]]) -> Iterator[None]:
    """As the first time, with batch normalisation `tracking` as then; but running statistics stay, as this is not another batch."""
    before = [(m, name, b) for m in network.modules() for name, b in m.named_buffers(recurse=False)]
    now = [(m, m.track_running_stats) for m, _ in tracking]
    for module, name, buffer in before:
        setattr(module, name, buffer.clone())
    for module, tracked in tracking:
        module.track_running_stats = tracked
    try:
        yield
    finally:
        for module, name, buffer in before:
            setattr(module, name, buffer)
        for module, tracked in now:
            module.track_running_stats = tracked
