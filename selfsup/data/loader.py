"""Batches for training, in an order that is a function of (seed, epoch), and for one pass in order.

The batch of step t needs nothing but t: no state, no history, no number of workers.
"""

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator
from itertools import count, repeat
from typing import Any

import numpy as np

from selfsup.data.images.prepare import run_task
from selfsup.data.items import Items, StreamedStore
from selfsup.data.workers import Pool
from selfsup.method import Batch

_AHEAD = 2  # batches that are made ready while the network works


class Loader:
    """Shuffled batches without end, from step `start_step` on.

    In every epoch each item comes at most once over all processes; the remainder that fills no batch is another random one each time.
    Step t's global batch is the same for every number of processes: process r has its rows r * batch_size to (r + 1) * batch_size.

    Args:
        items: what `open_data` gives.
        batch_size: items of this process in a step.
        seed: of the order, 0 or more.
        rank, world_size: this process among all.
        start_step: where to go on, 0 at first.
        workers: decoding processes where images are decoded on the fly; mapped ones are gathered by a thread in any case.

    Attributes:
        steps_per_epoch: len(items) // (batch_size * world_size).

    Raises:
        ValueError: a global batch larger than the data; a number out of range.
    """

    def __init__(
        self, items: Items, batch_size: int, *, seed: int = 0, rank: int = 0, world_size: int = 1, start_step: int = 0, workers: int = 0
    ) -> None:
        if batch_size < 1 or world_size < 1 or not 0 <= rank < world_size or min(seed, start_step, workers) < 0:
            raise ValueError(
                f"expected batch_size and world_size >= 1, 0 <= rank < world_size, and seed, start_step, workers >= 0; "
                f"got {batch_size=}, {world_size=}, {rank=}, {seed=}, {start_step=}, {workers=}"
            )
        if batch_size * world_size > len(items):
            over = f" ({batch_size} in each of {world_size} processes)" if world_size > 1 else ""
            raise ValueError(
                f"the batch of {batch_size * world_size} items{over} is larger than the data set of {len(items)}: "
                f"choose --batch-size {len(items)} or less, or add data"
            )
        self._items, self._batch_size, self._seed = items, batch_size, seed
        self._rank, self._world_size, self._start, self._workers = rank, world_size, start_step, workers
        self.steps_per_epoch = len(items) // (batch_size * world_size)
        self._order = (-1, np.empty(0, np.int64))  # of one epoch; a pair, so that threads never see half of a change

    def index(self, step: int) -> np.ndarray:
        """(batch_size,) numbers of the items that this process sees at a step."""
        epoch, within = divmod(step, self.steps_per_epoch)
        known, order = self._order
        if epoch != known:
            generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((self._seed, epoch))))
            order = generator.permutation(len(self._items))
            self._order = (epoch, order)
        first = (within * self._world_size + self._rank) * self._batch_size
        return order[first : first + self._batch_size]

    def __iter__(self) -> Iterator[Batch]:
        return _batches(self._items, (self.index(step) for step in count(self._start)), self._workers)


def sequential(items: Items, batch_size: int, *, workers: int = 0) -> Iterator[Batch]:
    """Every item once, in order; the last batch is what is left.

    Raises:
        ValueError: batch_size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, got {batch_size}")
    starts = range(0, len(items), batch_size)
    return _batches(items, (np.arange(start, min(start + batch_size, len(items))) for start in starts), workers)


def _batches(items: Items, indices: Iterator[np.ndarray], workers: int) -> Iterator[Batch]:
    """Make batches ready ahead of their use, by processes where they have to be decoded and may be sent, else by a thread."""
    store = items.store
    if workers > 0 and isinstance(store, StreamedStore) and store.source.portable:
        return _ahead(_by_processes(items, store, indices, workers))
    return _ahead(items.batch(index) for index in indices)


def _by_processes(items: Items, store: StreamedStore, indices: Iterator[np.ndarray], workers: int) -> Iterator[Batch]:
    sent: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()

    def tasks() -> Iterator[tuple]:
        for index in indices:
            sent.put(index)
            yield "batch", items.rows[index], store.target

    with Pool(run_task, store.source, workers) as pool:
        for images in pool.map(tasks()):
            yield items.complete(images, sent.get())


_END = object()


def _ahead(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The same batches, made by a thread that stays a few ahead."""
    made: queue.Queue[Any] = queue.Queue(_AHEAD)
    stop = threading.Event()

    def put(what: Any) -> None:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                made.put(what, timeout=0.1)
                return

    def work() -> None:
        iterator = iter(batches)
        try:
            for batch in iterator:
                put(batch)
                if stop.is_set():
                    return
            put(_END)
        except BaseException as error:  # raised where the batch is asked for
            put(error)
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()  # ends the decoding processes

    thread = threading.Thread(target=work, daemon=True, name="selfsup-loader")
    thread.start()
    try:
        for what in map(queue.Queue.get, repeat(made)):
            if what is _END:
                return
            if isinstance(what, BaseException):
                raise what
            yield what
    finally:
        stop.set()
        thread.join(timeout=5)
