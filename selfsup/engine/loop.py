"""The only training loop: feed, hide, step, watch, keep. It knows no method and no data format."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from selfsup.distributed import agree, rank, world_size
from selfsup.engine.checkpoint import checkpoint_path, prune, remove_leftovers, save_tensors, steps_saved
from selfsup.engine.log import MetricsFile, Progress, peak_mib, write_status
from selfsup.engine.micro import MicroBatches
from selfsup.engine.optim import learning_rate, make_optimizers, set_learning_rate
from selfsup.engine.signals import handling
from selfsup.engine.state import State, optimizer_tensors, restore, unique_state
from selfsup.engine.step import NotFiniteError, channels_last, chunk_views, train_step
from selfsup.locks import alone
from selfsup.method import Batch, Method, Recipe

MONITORS_A_RUN = 10
MONITORS_SHARE = 0.2  # of a budget of time, which is for training; the last one is made whatever it takes
EARLIEST_BEST = 0.2  # of the run
LINES_A_RUN = 20_000  # of metrics.jsonl; longer runs log every so many steps


@dataclass(frozen=True)
class Training:
    """How long and how, with nothing left to choose; `steps` or `minutes` ends the run, whichever is given.

    Attributes:
        recipe: optimiser settings, with the learning rate already at this batch size.
        batch_size: items of one step, over all processes.
        steps: optimiser steps of the whole run.
        minutes: budget of wall time; the schedule follows elapsed / budget.
        accumulate: parts that each process's batch is split into, each with a loss of its own.
        micro_batch: rows that an encoder takes at a time under one loss, none for all (see engine/micro.py).
        seed: of the data order, the views and the method's own randomness.
        bf16: autocast the forward passes to bfloat16.
        checkpoint_minutes: wall time between checkpoints.
    """

    recipe: Recipe
    batch_size: int
    steps: int | None = None
    minutes: float | None = None
    accumulate: int = 1
    micro_batch: int | None = None
    seed: int = 0
    bf16: bool = False
    checkpoint_minutes: float = 5.0


class Stopped(Exception):
    """A signal asked the run to stop; it has been saved."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.signal_number = signal_number


def fit(
    method: Method,
    training: Training,
    run: Path,
    *,
    batches: Callable[[int], Iterator[Batch]],
    device: torch.device,
    monitor: Callable[[Method], dict[str, Any]] | None = None,
    progress: Progress | None = None,
) -> State:
    """Train, from the newest whole checkpoint in `run` where there is one.

    Args:
        method: what is trained; moved to `device` and left there, in training mode.
        training: how long and how.
        run: the run's folder; `checkpoints/`, `metrics.jsonl` and `status.json` are written in it.
        batches: step -> this process's raw batches from that step on, endless.
        device: where views and networks run.
        monitor: figures about the method, called ten times a run, or less often where it would take more than a fifth of
            `training.minutes`; "rankme" among them chooses the best checkpoint, and "warning", a text, is said at once, and again when
            it comes back.
        progress: where progress goes; silent when none.

    Returns:
        Where the run ended.

    Raises:
        ValueError: another process is training this run.
        NotFiniteError: says which update; the last good checkpoint is kept.
        Stopped: a signal came; the run has been saved.
        OSError: the last checkpoint could not be written.
    """
    progress = progress or Progress(quiet=True)
    method.to(device=device)
    channels_last(method)
    optimizers = make_optimizers(method, training.recipe)
    with alone(run, "training it") if rank() == 0 else nullcontext(), _catch_signals() as caught:
        checkpoints = run / "checkpoints"
        if rank() == 0:
            checkpoints.mkdir(exist_ok=True)
            remove_leftovers(checkpoints)
        state = restore(method, optimizers, checkpoints, progress)
        metrics = MetricsFile(run / "metrics.jsonl", state.step) if rank() == 0 else None
        keeper = _Keeper(method, optimizers, training, run, state, metrics, progress)
        micro = MicroBatches(method, training.micro_batch) if training.micro_batch else None
        try:
            _steps(method, optimizers, training, keeper, batches, device, monitor, caught, micro)
        except NotFiniteError as error:
            keeper.status("failed", f"update {state.step + 1}: {error}")
            raise NotFiniteError(
                f"update {state.step + 1} is not finite: {error}. {keeper.kept()} Try a smaller --lr, or --precision fp32"
            ) from None
        except Stopped:
            raise
        except Exception as error:
            keeper.status("failed", f"update {state.step + 1}: {error}")
            raise
        finally:
            if micro:
                micro.undo()
            if metrics:
                metrics.flush()
            progress.close()
        keeper.status("finished")
    return state


def _steps(
    method: Method,
    optimizers: dict[str, Optimizer],
    training: Training,
    keeper: "_Keeper",
    batches: Callable[[int], Iterator[Batch]],
    device: torch.device,
    monitor: Callable[[Method], dict[str, Any]] | None,
    caught: list[int],
    micro: MicroBatches | None,
) -> None:
    state = keeper.state
    generator = torch.Generator(device)
    # torch.manual_seed formats a traceback for the sake of devices that are not in use: 1 ms a step.
    seed_torch = torch.default_generator.manual_seed if device.type == "cpu" else torch.manual_seed
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=training.bf16)
    log_every = math.ceil((training.steps or 1) / LINES_A_RUN)
    start, begun_at = time.monotonic() - state.seconds, state.images
    begun = time.monotonic()
    method.train()
    feed = batches(state.step)
    while (before := _progress(training, state)) < 1:
        batch = {key: value.to(device, non_blocking=True) for key, value in next(feed).items()}
        lr = learning_rate(training.recipe, _progress(training, state, half_step=True))
        set_learning_rate(optimizers, lr)
        method.learning_rate, method.progress = lr, before
        # Randomness is a function of (seed, step, rank), so a resumed run needs no generator state.
        generator.manual_seed(_mix(training.seed, state.step, 0))
        seed_torch(_mix(training.seed, state.step, 1 + rank()))
        with torch.no_grad():
            views = {key: _layout(value) for key, value in method.views(batch, generator).items()}
        values = train_step(method, chunk_views(views, training.accumulate), optimizers, autocast=autocast, clip=training.recipe.clip)
        if micro:
            micro.check()
        state.step += 1
        state.images += training.batch_size
        stop, state.seconds = agree(caught[0] if caught else 0, time.monotonic() - start)
        now = _progress(training, state)
        method.after_step(min(1.0, now))
        rate = (state.images - begun_at) / (time.monotonic() - begun)
        keeper.log(values, lr, rate, now, log=state.step % log_every == 0)
        keeper.watch(monitor, before, now)
        if stop:
            keeper.save()
            keeper.status("stopped", signal.Signals(stop).name)
            raise Stopped(stop)
        keeper.save_if_due(last=now >= 1)


def _progress(training: Training, state: State, half_step: bool = False) -> float:
    if training.minutes is not None:
        return state.seconds / (60 * training.minutes)
    assert training.steps is not None
    return (state.step + 0.5 * half_step) / training.steps


def _mix(*numbers: int) -> int:
    # splitmix64: neighbouring seeds and steps must not give neighbouring generator states
    x = 0
    for n in numbers:
        x = (x + n + 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        x ^= x >> 31
    return x % 2**63


def _layout(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 and x.is_floating_point() else x


@contextmanager
def _catch_signals() -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGUSR1, so that the step is finished first; a second SIGINT ends at once."""
    caught: list[int] = []

    def handle(number: int, _frame: Any) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(int(number))

    with handling(handle, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        yield caught


class _Keeper:
    """What the loop keeps of a run: metrics, status, checkpoints; rank 0 writes, the others only keep step."""

    def __init__(
        self,
        method: Method,
        optimizers: dict[str, Optimizer],
        training: Training,
        run: Path,
        state: State,
        metrics: MetricsFile | None,
        progress: Progress,
    ) -> None:
        self.method, self.optimizers, self.training = method, optimizers, training
        self.run, self.state, self.metrics, self.progress = run, state, metrics, progress
        self.saved_at = time.monotonic()
        self.saved_step = state.step
        self.warned = ""  # what the monitor warned of last
        self.watching = 0.0  # seconds that monitors have taken
        self.status("running")

    def log(self, values: dict[str, Tensor], lr: float, rate: float, progress: float, *, log: bool) -> None:
        state = self.state
        if self.metrics and log:
            line = {
                "step": state.step,
                "images": state.images,
                "seconds": round(state.seconds, 3),
                "lr": lr,
                "items_per_second": round(rate, 1),
            }
            self.metrics.add(**line, **values)
        if self.metrics and self.progress.due():
            figures = {"loss": float(values["loss"]), "items/s": rate}
            self.progress.show(
                progress=min(1.0, progress), step=state.step, steps=self.training.steps, seconds=state.seconds, values=figures
            )

    def watch(self, monitor: Callable[[Method], dict[str, Any]] | None, before: float, now: float) -> None:
        """Call the monitor each time another tenth of the run is done, unless the last ones took too much of its time."""
        if monitor is None or self.metrics is None or math.floor(min(1.0, now) * MONITORS_A_RUN) == math.floor(before * MONITORS_A_RUN):
            return
        state, begun = self.state, time.monotonic()
        if self.training.minutes is not None and now < 1 and self.watching > MONITORS_SHARE * state.seconds:
            return
        self.method.eval()
        try:
            with torch.no_grad():
                figures = monitor(self.method)
        finally:
            self.method.train()
        self.metrics.add(step=state.step, images=state.images, seconds=round(state.seconds, 3), **figures)
        warning = figures.get("warning", "")
        if warning and warning != self.warned:
            self.progress.say(f"warning: {warning}")
        self.warned = warning
        self.progress.monitors = {k: v for k, v in figures.items() if isinstance(v, float)}
        self.watching += time.monotonic() - begun
        # The rank of an almost untrained network is high and means nothing: a best checkpoint is looked for when the rate has come up.
        if now >= EARLIEST_BEST and figures.get("rankme", -math.inf) > state.best_value:
            state.best_step, state.best_value = state.step, figures["rankme"]
            self.save()

    def save_if_due(self, *, last: bool) -> None:
        if last and self.saved_step != self.state.step:
            self.save(must=True)
        elif time.monotonic() - self.saved_at > 60 * self.training.checkpoint_minutes:
            self.save()

    def save(self, *, must: bool = False) -> None:
        """Write a checkpoint; a full disk is said and tried again later unless it `must` be written now."""
        self.saved_at = time.monotonic()
        if self.metrics is None or self.saved_step == self.state.step:
            return
        self.metrics.flush()
        checkpoints, state = self.run / "checkpoints", self.state
        try:
            save_tensors(
                checkpoint_path(checkpoints, state.step),
                {"model": unique_state(self.method), "optimizer": optimizer_tensors(self.optimizers)},
                {"state": {**vars(state), "best_value": state.best_value if state.best_step >= 0 else None, "processes": world_size()}},
            )
        except OSError as error:
            self.progress.say(f"warning: checkpoint of step {state.step} not written: {error}. {self.kept()}")
            if must:
                raise
            return
        self.saved_step = state.step
        prune(checkpoints, keep={state.best_step})
        self.status("running")

    def kept(self) -> str:
        steps = steps_saved(self.run / "checkpoints")
        return f"The checkpoint of step {steps[-1]} is kept in {self.run}." if steps else "No checkpoint had been written yet."

    def status(self, now: str, message: str = "") -> None:
        if self.metrics is None:
            return
        s = self.state
        best = {"step": s.best_step, "measure": "rankme", "value": s.best_value} if s.best_step >= 0 else None
        how_far = {"step": s.step, "steps": self.training.steps, "seconds": round(s.seconds, 1), "best": best}
        write_status(self.run, state=now, **how_far, peak_mib=peak_mib(self.run), message=message)
