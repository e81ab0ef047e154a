"""`--start`: an encoder that has been trained already is where a run begins, instead of random weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from selfsup.data import Items
from selfsup.data.tables.schema import Schema
from selfsup.engine.checkpoint import CHECKSUMS, checkpoint_path, read_json, steps_saved
from selfsup.method import Encoder
from selfsup.methods import describe
from selfsup.tasks.saved.trained_encoder import load


class Start:
    """What a run takes over from an encoder.

    Args:
        path: a run or an encoder folder.
        method: of the new run.
        encoder, image_size, channels, tokenizer: what the user has said of the same; it must be nothing, or agree.

    Attributes:
        image_size, channels: of images, for `open_data`; None for other data.
        tokenizer: of text.
        value_range, table: how `open_data` has to read other data so that they mean the same.

    Raises:
        ValueError: nothing is there, it is an encoder of other data, or the user has said otherwise.
        DamagedError: it is not what was written.
    """

    def __init__(
        self,
        path: str | Path,
        method: str,
        *,
        encoder: str | nn.Module | None,
        image_size: int | None,
        channels: int | None,
        tokenizer: Any,
    ) -> None:
        self.path = Path(path).expanduser().resolve()
        trained = load(self.path)
        self.spec, data = dict(trained.config["encoder"]), trained.config["data"]
        of_text = "text" in self.spec
        if of_text != (describe(method).modality == "text"):
            raise ValueError(
                f"{method} learns from {describe(method).modality}, but the encoder to start from, {path}, "
                f"takes {'text' if of_text else 'other data'}"
            )
        if tokenizer is not None:
            raise ValueError("--start brings its own tokenizer, as its token numbers mean nothing in another; leave out --tokenizer")
        own = {"encoder": self.spec["name"], "image_size": self.spec["image_size"], "channels": self.spec["channels"]}
        for name, said in {"encoder": encoder, "image_size": image_size, "channels": channels}.items():
            if said is not None and said != own[name]:
                raise ValueError(
                    f"--start {path} has {name.replace('_', ' ')} {own[name]}, got --{name.replace('_', '-')} {said}; leave it out"
                )
        self.tokenizer: Any = trained.tokenizer
        self.image_size = self.spec["image_size"] or None
        self.channels = self.spec["channels"] if self.image_size else None
        values, table = data.get("value_range"), data.get("table")
        self.value_range = tuple(values) if values else None
        self.table = Schema.from_json(table) if table else None
        self.fingerprint = _fingerprint(self.path)

    def length(self, said: int | None, usual: int) -> int:
        """Tokens in an item of text: what the user has said, or what the method is used to as far as the encoder knows positions.

        Raises:
            ValueError: more than it knows.
        """
        most = self.spec["text"]["length"]
        if said is not None and said > most:
            raise ValueError(f"--start {self.path} knows texts of up to {most} tokens, got --sequence-length {said}")
        return said or min(usual, most)

    def taken_over(self, config: Mapping[str, Any], items: Items) -> dict[str, Any]:
        """A run's configuration with this encoder in it.

        Raises:
            ValueError: the data have another number of channels, or are of another kind.
        """
        if items.tokenizer is not None and items.tokenizer.fingerprint != self.tokenizer.fingerprint:
            raise ValueError(f"{items.source} was opened with another tokenizer than that of the encoder to start from, {self.path}")
        got = config["encoder"]
        if (got["channels"], got["image_size"]) != (self.spec["channels"], self.spec["image_size"]):
            what = f"{got['channels']} channels and {got['image_size']} pixels a side" if items.image_size else f"{got['channels']} numbers"
            had = f"{self.spec['channels']} and {self.spec['image_size']}"
            raise ValueError(f"{items.source} has {what}, but the encoder to start from, {self.path}, takes {had}")
        start = {"path": str(self.path), "fingerprint": self.fingerprint, "encoder": self.spec}
        return {**config, "encoder": self.spec, "start": start}


def started(config: Mapping[str, Any]) -> Encoder:
    """The network that a run begins with, ready to be trained.

    Raises:
        ValueError: it is gone, or has changed since the run was begun.
    """
    said = config["start"]
    network = load(said["path"]).network
    if _fingerprint(Path(said["path"])) != said["fingerprint"]:
        raise ValueError(f"{said['path']}, where this run starts from, has changed since; begin a new run")
    return network.requires_grad_(True).train()


def _fingerprint(path: Path) -> str:
    """Hex digest of everything in the encoder's folder; of a run that has not ended, of its newest checkpoint."""
    folder = next((f for f in (path / "encoder", path) if (f / CHECKSUMS).is_file()), None)
    folder = folder or checkpoint_path(path / "checkpoints", steps_saved(path / "checkpoints")[-1])
    return read_json(folder / CHECKSUMS)["digest"]
