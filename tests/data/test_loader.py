"""The order is a function of (seed, epoch); any step can be had at once; ranks share one global batch; workers change nothing."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from selfsup.data import Items, Loader, open_data, sequential


def numbered(n: int) -> Items:
    return open_data(np.arange(n * 2.0).reshape(n, 2))


def flat(steps: Iterable[list[int]]) -> list[int]:
    return [number for step in steps for number in step]


def seen(loader: Loader, steps: int) -> list[list[int]]:
    return [batch["index"].tolist() for batch in islice(loader, steps)]


def test_every_epoch_is_another_order_of_all_items() -> None:
    loader = Loader(numbered(20), 5, seed=3)
    assert loader.steps_per_epoch == 4
    steps = seen(loader, 8)
    for epoch in (steps[:4], steps[4:]):
        assert sorted(flat(epoch)) == list(range(20))
    assert steps[:4] != steps[4:]
    assert flat(steps[:4]) != list(range(20))
    assert steps == seen(Loader(numbered(20), 5, seed=3), 8)
    assert steps != seen(Loader(numbered(20), 5, seed=4), 8)


def test_the_remainder_is_another_one_each_epoch() -> None:
    loader = Loader(numbered(23), 10)
    steps = seen(loader, 40)
    left = [frozenset(range(23)) - {*steps[2 * e], *steps[2 * e + 1]} for e in range(20)]
    assert all(len(three) == 3 for three in left)
    assert len(set(left)) > 15


@pytest.mark.parametrize("start", [0, 1, 3, 4, 11])
def test_any_step_is_reached_at_once(start: int) -> None:
    items = numbered(21)
    assert seen(Loader(items, 5, seed=1, start_step=start), 6) == seen(Loader(items, 5, seed=1), start + 6)[start:]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_processes_share_one_global_batch(world_size: int) -> None:
    items = numbered(50)
    alone = seen(Loader(items, 12, seed=5), 9)
    ranks = [seen(Loader(items, 12 // world_size, seed=5, rank=r, world_size=world_size), 9) for r in range(world_size)]
    assert [flat(parts) for parts in zip(*ranks, strict=True)] == alone


def test_batches_are_what_items_give(photos: Callable[..., Path]) -> None:
    items = open_data(photos(per_class=6))
    for batch in islice(Loader(items, 4), 5):
        again = items.batch(batch["index"].numpy())
        assert set(batch) == {"image", "label", "index"}
        for name, values in batch.items():
            torch.testing.assert_close(values, again[name], rtol=0, atol=0)


def test_the_number_of_workers_changes_nothing(photos: Callable[..., Path]) -> None:
    folder = photos(per_class=6)
    (folder / "cat" / "2.png").write_bytes(b"bad")
    for items in (open_data(folder, cache=False, max_bad=0.1), open_data(folder, max_bad=0.1)):
        runs = [list(islice(Loader(items, 4, seed=2, workers=workers), 7)) for workers in (0, 1, 2)]
        for run in runs[1:]:
            for batch, truth in zip(run, runs[0], strict=True):
                for name, values in truth.items():
                    torch.testing.assert_close(batch[name], values, rtol=0, atol=0)


def test_a_killed_worker_is_replaced_at_the_same_place(photos: Callable[..., Path]) -> None:
    items = open_data(photos(per_class=6), cache=False)
    truth = Loader(items, 4, seed=2)
    before = children()
    loader = iter(Loader(items, 4, seed=2, workers=2))
    kills = 0
    for step, expected in enumerate(islice(truth, 60)):
        torch.testing.assert_close(next(loader)["image"], expected["image"], rtol=0, atol=0)
        # Batches made before may hide that both are dead: they are replaced when the next answer is waited for.
        if step % 3 == 2 and kills < 3 and (alive := children() - before):
            os.kill(min(alive), signal.SIGKILL)
            kills += 1
    assert kills == 3
    loader.close()  # type: ignore[attr-defined]
    assert children() <= before


def children() -> set[int]:
    """Of this process, zombies left out."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and fields[0] != "Z":
            found.add(int(status.parent.name))
    return found


def test_sequential_is_every_item_once_in_order(photos: Callable[..., Path]) -> None:
    batches = list(sequential(numbered(10), 4))
    assert [batch["index"].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    folder = photos(per_class=5)
    for items in (open_data(folder), open_data(folder, cache=False)):
        for workers in (0, 2):
            images = torch.cat([batch["image"] for batch in sequential(items, 4, workers=workers)])
            torch.testing.assert_close(images, items.batch(np.arange(10))["image"], rtol=0, atol=0)
    assert list(sequential(items.subset(np.arange(0)), 4)) == []


def test_errors_of_the_thread_are_raised_where_the_batch_is_asked_for(photos: Callable[..., Path]) -> None:
    folder = photos()
    items = open_data(folder, cache=False)
    (folder / "cat" / "0.png").unlink()
    for workers in (0, 2):
        with pytest.raises(ValueError, match=r"cat/0\.png could be read when"):
            list(sequential(items, 2, workers=workers))


def test_leaving_a_loader_ends_its_thread() -> None:
    before = threading.active_count()
    for _ in range(3):
        batches = iter(Loader(numbered(20), 5))
        next(batches)
        batches.close()  # type: ignore[attr-defined]
    end = time.time() + 5
    while threading.active_count() > before and time.time() < end:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"batch of 8 items \(4 in each of 2 processes\) is larger than the data set of 7.*--batch-size 7"):
        Loader(numbered(7), 4, world_size=2)
    with pytest.raises(ValueError, match="batch of 8 items is larger than the data set of 7"):
        Loader(numbered(7), 8)
    with pytest.raises(ValueError, match="batch_size=0"):
        Loader(numbered(7), 0)
    with pytest.raises(ValueError, match="rank=2"):
        Loader(numbered(7), 1, rank=2, world_size=2)
    with pytest.raises(ValueError, match="batch_size must be 1 or more"):
        list(sequential(numbered(7), 0))
