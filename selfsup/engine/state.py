"""What a checkpoint holds: where a run is, every tensor of the method, and those of its optimisers."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from selfsup.distributed import is_parallel, world_size
from selfsup.engine.checkpoint import DamagedError, checkpoint_path, load_tensors, read_json, steps_saved, verify_folder
from selfsup.engine.log import Progress
from selfsup.method import Method


@dataclass
class State:
    """Where a run is: what a checkpoint holds beside the tensors."""

    step: int = 0
    images: int = 0
    seconds: float = 0.0
    best_step: int = -1
    best_value: float = -math.inf


def unique_state(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer under its first name only, as a network that two players share has several."""
    seen: dict[tuple[int, torch.Size], str] = {}
    for name, tensor in module.state_dict().items():
        seen.setdefault((tensor.data_ptr() or id(tensor), tensor.shape), name)
    names = set(seen.values())
    return {name: tensor for name, tensor in module.state_dict().items() if name in names}


def copy_state(module: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Copy stored tensors into a module, keeping its memory layout.

    Raises:
        ValueError: names or shapes differ.
    """
    own = unique_state(module)
    wrong = [name for name in {**own, **tensors} if name not in own or name not in tensors or own[name].shape != tensors[name].shape]
    if wrong:
        raise ValueError(
            f'{source}: "{wrong[0]}" does not fit {type(module).__name__} ({len(wrong)} tensors differ); was it written by another version?'
        )
    for name, tensor in own.items():
        tensor.copy_(tensors[name])


def optimizer_tensors(optimizers: dict[str, Optimizer]) -> dict[str, Tensor]:
    """Momenta and step counts of all players, by name."""
    tensors = {}
    for player, optimizer in optimizers.items():
        for i, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                tensors[f"{player}.{i}.{key}"] = value
    return tensors


@torch.no_grad()
def restore(method: Method, optimizers: dict[str, Optimizer], checkpoints: Path, progress: Progress) -> State:
    """Load the newest whole checkpoint; a damaged one is named and the one before is used.

    Raises:
        DamagedError: there are checkpoints, and all are damaged.
    """
    damaged: list[str] = []
    for step in reversed(steps_saved(checkpoints)):
        folder = checkpoint_path(checkpoints, step)
        try:
            verify_folder(folder)
        except DamagedError as error:
            damaged.append(str(error))
            progress.say(f"warning: {error}; using the checkpoint before it")
            continue
        copy_state(method, load_tensors(folder, "model"), folder)
        _restore_optimizers(optimizers, load_tensors(folder, "optimizer"))
        saved = read_json(folder / "state.json")
        if saved.pop("processes") != world_size() and not is_parallel():
            progress.say("note: the checkpoint was written by another number of processes; the curve goes on, though not bit for bit")
        best = saved.pop("best_value")
        return State(**saved, best_value=-math.inf if best is None else best)
    if damaged:
        raise DamagedError(f"every checkpoint in {checkpoints} is damaged: {'; '.join(damaged)}")
    return State()


def _restore_optimizers(optimizers: dict[str, Optimizer], tensors: dict[str, Tensor]) -> None:
    for player, optimizer in optimizers.items():
        whole = optimizer.state_dict()
        whole["state"] = {}
        for name, value in tensors.items():
            owner, i, key = name.rsplit(".", 2)
            if owner == player:
                whole["state"].setdefault(int(i), {})[key] = value
        optimizer.load_state_dict(whole)
        for p, state in optimizer.state.items():
            for key, value in state.items():
                if value.shape == p.shape:  # fused kernels walk weight and state in one order: keep channels-last where the weight has it
                    state[key] = torch.empty_like(p, dtype=value.dtype).copy_(value)
