"""Folders that results are written to: a run's, and any other."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfsup.engine.checkpoint import replace_file


def new_run_folder(out: str | Path | None, method: str) -> Path:
    """Create the run's folder.

    Raises:
        ValueError: it holds something already, or cannot be written.
    """
    run = Path(out) if out else Path("runs") / f"{method}-{time.strftime('%Y%m%d-%H%M%S')}"
    if (run / "config.json").exists():
        raise ValueError(f"{run}: there is a run already; go on with `selfsup pretrain --resume {run}`, or choose another --out")
    (empty_folder(run) / "checkpoints").mkdir()
    return run


def empty_folder(out: str | Path) -> Path:
    """Create a folder for results, or take one that is empty.

    Raises:
        ValueError: it holds something already, or cannot be written.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        full = any(folder.iterdir())
        beside = folder / f".{os.getpid()}.tmp"
        beside.touch()
        beside.unlink()
    except OSError as error:
        raise ValueError(f"{folder}: cannot be written ({error.strerror}); choose another --out") from None
    if full:
        raise ValueError(f"{folder}: not empty; choose another --out")
    return folder


def write_config(run: Path, config: Mapping[str, Any]) -> None:
    """`config.json`, whole or not at all."""
    replace_file(run / "config.json", json.dumps(config, indent=1).encode())
