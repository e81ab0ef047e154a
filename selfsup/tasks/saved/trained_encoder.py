"""What the user keeps: an encoder in a folder, loaded by one line and needing nothing else."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import selfsup
from selfsup.data import Items, open_data
from selfsup.data.tables.schema import Schema
from selfsup.data.text.texts import open_sentences
from selfsup.data.text.tokenizer import Tokenizer, load_tokenizer
from selfsup.engine.checkpoint import checkpoint_path, load_tensors, read_json, save_tensors, steps_saved, verify_folder
from selfsup.engine.state import copy_state
from selfsup.evaluation.features import embed_items
from selfsup.method import Encoder
from selfsup.models import build_encoder, dress

FORMAT = 1


class TrainedEncoder:
    """A frozen encoder and what it needs to take a user's data.

    Attributes:
        network: the encoder, in evaluation mode.
        image_size: side of the square that it sees, in pixels; 0 for vectors.
        config: what `config.json` says: the network's arguments, the method, the data, the training.
        tokenizer: of text.
    """

    def __init__(self, network: Encoder, config: Mapping[str, Any], tokenizer: Tokenizer | None = None) -> None:
        self.network = network.eval().requires_grad_(False)
        self.config, self.tokenizer = config, tokenizer
        self.image_size: int = config["encoder"]["image_size"]
        self.channels: int = config["encoder"]["channels"]
        self.width = network.width

    def open(self, data: Any, *, cache: bool = False, **settings: Any) -> Items:
        """The data as this encoder takes it; settings are those of `selfsup.data.open_data`."""
        return open_like(self.config, data, self.tokenizer, cache=cache, **settings)

    def embed(self, data: Any, *, batch_size: int = 512) -> np.ndarray:
        """Vectors of all items, (N, width) float32, in the order of `open(data).names`.

        Args:
            data: anything that `selfsup.pretrain` takes.
            batch_size: items at a time.
        """
        items = self.open(data)
        return embed_items(self.network, items, self.image_size, batch_size=batch_size).numpy()

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W) images in [0, 1], (B, D) vectors, or (B, T) token numbers -> (B, width)."""
        with torch.no_grad():
            return self.network(x)


def open_like(config: Mapping[str, Any], data: Any, tokenizer: Tokenizer | None = None, *, cache: bool = False, **settings: Any) -> Items:
    """Data in the size, channels and range of values that a run has seen, unless `settings` of `selfsup.data.open_data` say otherwise.

    A table must have the columns that the run's table had, in any order. With a tokenizer: texts one by one, as
    `selfsup.data.text.texts.open_sentences` reads them.
    """
    if isinstance(data, Items):
        return data
    if tokenizer is not None:
        named = {name: settings[name] for name in ("column", "label") if name in settings}
        return open_sentences(data, tokenizer=tokenizer, length=config["encoder"]["text"]["length"], **named)
    size, values = config["encoder"]["image_size"] or None, config["data"]["value_range"]
    said: dict[str, Any] = {"image_size": size, "channels": config["encoder"]["channels"] if size else None, "cache": cache}
    table = config["data"].get("table")
    said |= {"value_range": tuple(values) if values else None, "table": Schema.from_json(table) if table else None, **settings}
    return open_data(data, **said)


def save_encoder(folder: Path, network: Encoder, config: Mapping[str, Any], tokenizer: Tokenizer | None = None) -> None:
    """Write `model.safetensors`, `config.json`, `checksums.json` and `README.md`, and the `tokenizer.json` of text, in one atomic step.

    Args:
        folder: where.
        network: the encoder; a user's own module is saved too, but `load` then needs a network of the same shape.
        config: of the run.
        tokenizer: of text.
    """
    documents: dict[str, Any] = {"config": {"format": FORMAT, "width": network.width, **config}}
    if tokenizer is not None:
        documents["tokenizer"] = json.loads(tokenizer.document)
    save_tensors(folder, {"model": dict(network.state_dict())}, documents, {"README.md": model_card(network, config)})


def load(path: str | Path, *, best: bool = False, network: Encoder | None = None) -> TrainedEncoder:
    """The encoder of a run, or of an `encoder/` folder; every byte is checked first.

    Args:
        path: a run folder or an encoder folder.
        best: of a run, the checkpoint with the best label-free measure instead of the last.
        network: for an encoder that was a user's own module: the same module, whose weights are replaced.

    Raises:
        ValueError: nothing is there to load, or it does not fit.
        DamagedError: it is not what was written; names the tensor.
    """
    path = run = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: no such folder; expected a run of `selfsup pretrain` or the encoder/ folder in one")
    if (path / "encoder").is_dir() and not best:
        path = path / "encoder"
    if (path / "model.safetensors").is_file():
        verify_folder(path)
        config, tensors = read_json(path / "config.json"), load_tensors(path, "model")
    elif (path / "checkpoints").is_dir():
        config = read_json(path / "config.json")
        tensors = {
            name.removeprefix("encoder."): t for name, t in checkpoint_tensors(path, best=best).items() if name.startswith("encoder.")
        }
    else:
        raise ValueError(
            f"{path}: neither model.safetensors nor checkpoints/ in it; expected a run of `selfsup pretrain` or an encoder folder"
        )
    around = {key: config["encoder"].get(key) for key in ("patches", "head", "sees", "split")}
    network = network_of(config) if network is None else dress(network, **around)
    with torch.no_grad():
        copy_state(network, tensors, path)
    return TrainedEncoder(
        network, config, load_tokenizer(path if (path / "tokenizer.json").is_file() else run) if "text" in config["encoder"] else None
    )


def network_of(config: Mapping[str, Any]) -> Encoder:
    """The same network, untrained.

    Raises:
        ValueError: it was a user's own module, which no configuration can build.
    """
    spec = config["encoder"]
    if spec["name"] == "own":
        raise ValueError("this encoder was your own module: pass it, built in the same way, as load(path, network=...)")
    return build_encoder(**spec)


@torch.no_grad()
def untrained(trained: TrainedEncoder) -> Encoder:
    """The same network with initial weights from torch's global generator, and with the data's statistics, which are no training.

    Raises:
        ValueError: it was a user's own module, which no configuration can build.
    """
    fresh = network_of(trained.config)
    for name, tensor in trained.network.named_buffers():
        if "normalize" in name.split("."):
            fresh.get_buffer(name).copy_(tensor)
    return fresh


def checkpoint_tensors(run: Path, *, best: bool = False) -> dict[str, Tensor]:
    """Every tensor of a run's method, from its last or its best checkpoint.

    Raises:
        ValueError: there is none.
        DamagedError: it is not what was written.
    """
    steps = steps_saved(run / "checkpoints")
    if not steps:
        raise ValueError(f"{run}: no checkpoint yet; wait for the first, or go on with `selfsup pretrain --resume {run}`")
    step = steps[-1]
    if best:
        status = read_json(run / "status.json")
        if not status.get("best"):
            raise ValueError(f"{run}: no best checkpoint is marked, as no monitor has run yet; load the last one")
        step = status["best"]["step"]
    folder = checkpoint_path(run / "checkpoints", step)
    verify_folder(folder)
    return load_tensors(folder, "model")


def model_card(network: Encoder, config: Mapping[str, Any]) -> str:
    """README.md of an encoder folder, with the front matter that model hubs read."""
    data, training = config["data"], config["training"]
    size, text = config["encoder"]["image_size"], config["encoder"].get("text")
    what = f"{config['encoder']['channels']}-channel {size} x {size} pixels" if size else f"vectors of {config['encoder']['channels']}"
    what, example = ("texts", "texts.txt") if text else (what, "photos/" if size else "table.npy")
    tuned = config.get("finetuning")
    begun = f"| began with | {config['start']['path']} |\n" if "start" in config else ""
    after = ""
    if tuned:
        of = f" of {len(tuned['classes'])} classes" if tuned["classes"] else ""
        after = f"| fine-tuning | {tuned['how']}, on {tuned['labels']} labels{of} |\n"
    return f"""---
library_name: selfsup
tags: [self-supervised, {config["method"]}, feature-extraction]
---
# {config["encoder"]["name"]} trained with {config["method"]}

Maps {what} to vectors of {network.width}.

```python
import selfsup
encoder = selfsup.load("path/to/this/folder")
vectors = encoder.embed("{example}")      # (N, {network.width}) float32
```

| | |
|---|---|
| data | {data["items"]} items, fingerprint {data["fingerprint"]} |
| method | {config["method"]} {json.dumps(config["options"])} |
| training | {training["steps"] or f"{training['minutes']} minutes"} steps of {training["batch_size"]}, seed {training["seed"]} |
{begun}{after}| selfsup | {selfsup.__version__} |

`checksums.json` holds a digest of every tensor: `selfsup verify FOLDER` checks them. What it is worth on your task is for
`selfsup evaluate FOLDER --train LABELLED --test LABELLED` to say.
"""
