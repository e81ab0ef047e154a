"""A whole trained method, decoder and all, for what people do with it beside vectors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from selfsup.data import Items
from selfsup.data.text.tokenizer import Tokenizer, load_tokenizer
from selfsup.engine.checkpoint import load_tensors, read_json, verify_folder
from selfsup.engine.state import copy_state
from selfsup.method import Encoder, Method
from selfsup.tasks.pretraining.plan import build_method
from selfsup.tasks.saved.trained_encoder import checkpoint_tensors, open_like


class TrainedMethod:
    """A frozen method in evaluation mode.

    Attributes:
        method: the method; see `selfsup.abilities` for what it may be able to do.
        config: of its run.
        image_size: side of the square that it sees, in pixels; 0 for vectors.
        channels: of images, or the length of vectors.
        tokenizer: of text.
    """

    def __init__(self, method: Method, config: Mapping[str, Any], tokenizer: Tokenizer | None = None) -> None:
        self.method = method.eval().requires_grad_(False)
        self.config, self.tokenizer = config, tokenizer
        self.image_size: int = config["encoder"]["image_size"]
        self.channels: int = config["encoder"]["channels"]

    def open(self, data: Any, **settings: Any) -> Items:
        """The data as the method takes it; settings are those of `selfsup.data.open_data`."""
        return open_like(self.config, data, self.tokenizer, **settings)

    def require(self, ability: type, verb: str) -> None:
        """Raise ValueError where the method cannot do what is asked; names the methods that can.

        Args:
            ability: one of `selfsup.abilities`.
            verb: what the user asked for, such as "inpaint".
        """
        if not isinstance(self.method, ability):
            able = ", ".join(methods_with(ability))
            raise ValueError(f"a run of {self.config['method']} cannot {verb}; runs of these methods can: {able}")


def methods_with(ability: type) -> list[str]:
    """Ids of the methods that have an ability of `selfsup.abilities`."""
    from selfsup.methods import METHODS, method_class

    names = [name for name in vars(ability) if not name.startswith("_") and callable(getattr(ability, name))]
    return [method for method in METHODS if all(hasattr(method_class(method), name) for name in names)]


@torch.no_grad()
def load_method(run: str | Path, *, best: bool = False, network: Encoder | None = None) -> TrainedMethod:
    """The method of a run as its last checkpoint has it; every byte is checked first.

    Args:
        run: a run's folder, or that of a language model that `selfsup import` has written; another encoder folder does not do, as it has
            the encoder only.
        best: the checkpoint with the best label-free measure instead of the last.
        network: for a run on a user's own module: the same module, whose weights are replaced.

    Raises:
        ValueError: it is no run, or has no checkpoint.
        DamagedError: a checkpoint is not what was written; names the tensor.
    """
    run = Path(run)
    imported = (run / "head.safetensors").is_file()
    if not (imported or (run / "checkpoints").is_dir()):
        raise ValueError(f"{run}: no checkpoints/ in it; expected the folder of a run of `selfsup pretrain`")
    if imported:
        verify_folder(run)
        tensors = {**{f"encoder.{name}": t for name, t in load_tensors(run, "model").items()}, **load_tensors(run, "head")}
    else:
        tensors = checkpoint_tensors(run, best=best)
    config = read_json(run / "config.json")
    if config["encoder"]["name"] == "own" and network is None:
        raise ValueError(f"{run}: its encoder is your own module: pass it, built in the same way, as load_method(run, network=...)")
    tokenizer = load_tokenizer(run) if "text" in config["encoder"] else None
    with torch.random.fork_rng(devices=[]):
        method = build_method(config, None, network, tokenizer=tokenizer)
    copy_state(method, tensors, run)
    return TrainedMethod(method, config, tokenizer)
