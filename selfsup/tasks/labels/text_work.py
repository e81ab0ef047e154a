"""Trainings on labelled text that have data, task and budget in common: which examples, at which rate, and what each is worth."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from selfsup.data.text.labelled import Labelled
from selfsup.data.text.tokenizer import Tokenizer
from selfsup.engine.log import Progress
from selfsup.evaluation.linear import held_out
from selfsup.method import Encoder
from selfsup.tasks.labels.finetune_settings import HELD_OUT, How, draw
from selfsup.tasks.labels.text_tasks import Classes, Rows, Said, TextTask
from selfsup.tasks.labels.text_training import BATCH, TextNetwork, loss_of, outputs_of, train_text
from selfsup.tasks.pretraining.plan import has_fast_bf16
from selfsup.tasks.saved.trained_encoder import TrainedEncoder, untrained

GRID = (1e-4, 3e-4, 1e-3)  # learning rates to choose from, and of a linear layer on a frozen encoder
GRID_FROZEN = (1e-3, 3e-3, 1e-2)
FALLBACK, FALLBACK_FROZEN = 3e-4, 3e-3  # where there is nothing to choose by
EPOCHS, LEAST_STEPS = 4, 200


class Budget(NamedTuple):
    """How long to train: passes over the rows, or steps; without both 4 passes, and at least 200 steps."""

    epochs: float | None
    steps: int | None

    def steps_for(self, rows: int) -> int:
        """Steps of 32 rows."""
        if self.steps is not None:
            return self.steps
        return max(math.ceil((self.epochs or EPOCHS) * rows / BATCH), 1 if self.epochs else LEAST_STEPS)


class Tuned(NamedTuple):
    """One training.

    Attributes:
        network: of the first seed, on the CPU; None of the others.
        lr: peak learning rate.
        said: what it says of the test data, by their names.
        scores: how good that is.
        notes: what happened to the test data.
    """

    network: TextNetwork | None
    lr: float
    said: dict[str, Said]
    scores: dict[str, dict[str, float]]
    notes: dict[str, dict[str, int]]


@dataclass(frozen=True)
class TextWork:
    """What all trainings on the same data have in common.

    Attributes:
        trained: the encoder to begin with.
        task: what is asked.
        train: labelled data.
        budget: how long.
        lr: peak learning rate; chosen when None.
        device: where.
        progress: where progress goes.
    """

    trained: TrainedEncoder
    task: TextTask
    train: Labelled
    budget: Budget
    lr: float | None
    device: torch.device
    progress: Progress

    @cached_property
    def rows(self) -> Rows:
        """The training data as the network takes it."""
        return self.task.rows(self.train, self.tokenizer, self.length)

    @property
    def tokenizer(self) -> Tokenizer:
        """Of the encoder."""
        assert self.trained.tokenizer is not None
        return self.trained.tokenizer

    @property
    def length(self) -> int:
        """Most tokens of a row."""
        return self.trained.config["encoder"]["text"]["length"]

    @property
    def bf16(self) -> bool:
        """Whether to compute in bfloat16."""
        return has_fast_bf16(self.device)

    def repeat(
        self,
        draws: Sequence[np.ndarray],
        seed: int,
        tests: Mapping[str, Labelled],
        how: How,
        decay: float,
        *,
        from_scratch: bool = False,
    ) -> list[Tuned]:
        """One network for each draw of examples, and what it is worth; the learning rate is chosen with the first."""
        lr, found = self.lr, []
        laid_out = {name: self.task.rows(data, self.tokenizer, self.length) for name, data in tests.items()}
        for k, examples in enumerate(draws):
            name = f"{'from scratch' if from_scratch else how}, seed {k + 1} of {len(draws)}"
            if lr is None:
                lr = self.choose(examples, seed, how, decay, name, from_scratch=from_scratch)
            network = self.train_one(examples, seed + k, how, decay, lr, f"{name}, rate {lr:g}", from_scratch=from_scratch)
            said, scores = {}, {}
            for which, data in tests.items():
                rows = laid_out[which]
                every = np.arange(len(rows.ids))
                outputs = outputs_of(network, rows, every, self.tokenizer.pad, device=self.device)
                said[which] = self.task.read(outputs, rows, data)
                scores[which] = self.task.score(said[which], data)
            notes = {which: rows.notes for which, rows in laid_out.items()}
            found.append(Tuned(network.cpu() if k == 0 else None, lr, said, scores, notes))
        return found

    def train_one(
        self,
        examples: np.ndarray,
        seed: int,
        how: How,
        decay: float,
        lr: float,
        name: str = "",
        *,
        from_scratch: bool = False,
        of: int | None = None,
        watch: Callable[[int, TextNetwork], None] | None = None,
        every: int = 1,
    ) -> TextNetwork:
        """A network trained on these examples.

        Args:
            examples: their numbers.
            seed, how, decay, lr: see `train_text`.
            name: for the progress.
            from_scratch: begin with random weights.
            of: rows that the budget counts; those of the examples when not given.
            watch, every: see `train_text`.
        """
        index = self.rows.of(examples)
        return train_text(
            self._untrained if from_scratch else self._pretrained,
            self.task,
            self.rows,
            index,
            pad=self.tokenizer.pad,
            seed=seed,
            steps=self.budget.steps_for(len(index) if of is None else of),
            lr=lr,
            frozen=how == "frozen",
            layer_decay=decay,
            device=self.device,
            bf16=self.bf16,
            progress=lambda done, total: self.progress.note(f"{name}: step {done}/{total}") if self.progress.due() else None,
            watch=watch,
            every=every,
        )

    def choose(self, examples: np.ndarray, seed: int, how: How, decay: float, name: str = "", *, from_scratch: bool = False) -> float:
        """The rate with the least loss on held-out examples."""
        grid, fallback = (GRID_FROZEN, FALLBACK_FROZEN) if how == "frozen" else (GRID, FALLBACK)
        held = held_out_examples(self.task, self.train, examples, seed)
        if not held.any() or held.all():
            return fallback
        kept, all_rows = self.rows.of(examples[held]), len(self.rows.of(examples))
        losses = []
        for lr in grid:
            said = f"{name}, trying rate {lr:g}"
            network = self.train_one(examples[~held], seed, how, decay, lr, said, from_scratch=from_scratch, of=all_rows)
            losses.append(loss_of(network, self.task, self.rows, kept, self.tokenizer.pad, self.device))
        return grid[int(np.argmin(losses))]

    def _pretrained(self) -> Encoder:
        return copy.deepcopy(self.trained.network).cpu().requires_grad_(True)

    def _untrained(self) -> Encoder:
        return untrained(self.trained)


def drawn(task: TextTask, data: Labelled, labels: int | None, fraction: float | None, seed: int) -> np.ndarray:
    """Numbers of the examples to learn from; where there are classes, some of each.

    Raises:
        ValueError: too few of a class, or no classes to have some of.
    """
    if isinstance(task, Classes):
        return np.sort(draw(_numbers(task, data), task.classes, labels, fraction, seed).numpy())
    if labels is not None:
        raise ValueError(f"--labels counts texts of each class; of {data.source}, which holds no classes of texts, take a --fraction")
    if fraction is None:
        return np.arange(len(data))
    kept = max(1, round(fraction * len(data)))
    return np.sort(np.random.default_rng(seed).permutation(len(data))[:kept])


def held_out_examples(task: TextTask, data: Labelled, examples: np.ndarray, seed: int) -> np.ndarray:
    """(n,) bool, True for a fifth of these examples: of each class; of questions, whole passages."""
    if isinstance(task, Classes):
        return held_out(_numbers(task, data)[examples], HELD_OUT, seed).numpy()
    groups = data.groups()[examples]
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    kept = names[: max(1, round(HELD_OUT * len(names)))] if len(names) > 1 else []
    return np.isin(groups, kept)


def _numbers(task: Classes, data: Any) -> Tensor:
    number = {name: i for i, name in enumerate(task.classes)}
    return torch.tensor([number[name] for name in data.labels])
