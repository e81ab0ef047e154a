"""Checkpoints that survive: written beside, flushed, checksummed, then renamed; safetensors and JSON only, nothing that executes.

A folder of tensors here is `model.safetensors` and perhaps others, JSON files, and `checksums.json`: a digest of every file, and of every
tensor so that damage is named. One flipped bit in a safetensors file loads silently otherwise.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

CHECKSUMS = "checksums.json"
STEP = "step-"


class DamagedError(ValueError):
    """A stored file is not what was written; the message names the file and the tensor."""


def _digest(*parts: bytes | memoryview) -> str:
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(part)
    return found.hexdigest()


def _tensor_digest(tensor: Tensor) -> str:
    head = f"{tensor.dtype} {list(tensor.shape)} ".encode()
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return _digest(head, flat.numpy().data)


def write_file(path: Path, data: bytes) -> None:
    """Write and flush to the disk itself; the folder entry is flushed by `rename_into_place`."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_file(path: Path, data: bytes) -> None:
    """Replace a single file so that at every moment either the old or the new one is there, whole."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_file(beside, data)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save_tensors(
    folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], documents: Mapping[str, Any], loose: Mapping[str, str] | None = None
) -> None:
    """Write a folder of tensors in one atomic step, replacing one that is there.

    Args:
        folder: where; its parent must exist.
        tensors: file stem -> name -> tensor, each stem one safetensors file.
        documents: file stem -> what JSON can hold, covered by the checksums.
        loose: file name, perhaps in a folder in it -> text that people may edit later, not covered.

    Raises:
        OSError: the disk is full or not writable; `folder` is then as it was.
    """
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        files: dict[str, str] = {}
        digests: dict[str, dict[str, str]] = {}
        for stem, named in tensors.items():
            flat = {name: t.detach().cpu().contiguous() for name, t in named.items()}
            data = save(flat, metadata={"format": "pt"})  # other programs ask for it
            write_file(beside / f"{stem}.safetensors", data)
            files[f"{stem}.safetensors"] = _digest(data)
            digests[f"{stem}.safetensors"] = {name: _tensor_digest(t) for name, t in flat.items()}
        for stem, document in documents.items():
            data = json.dumps(document, indent=1).encode()
            write_file(beside / f"{stem}.json", data)
            files[f"{stem}.json"] = _digest(data)
        for name, text in (loose or {}).items():
            (beside / name).parent.mkdir(exist_ok=True)
            write_file(beside / name, text.encode())
        manifest: dict[str, Any] = {"files": files, "tensors": digests}
        manifest["digest"] = _digest(json.dumps(manifest, sort_keys=True).encode())
        write_file(beside / CHECKSUMS, json.dumps(manifest, indent=1).encode())
        _flush_folder(beside)
        _rename_into_place(beside, folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _rename_into_place(beside: Path, folder: Path) -> None:
    if folder.exists():  # a folder cannot be renamed over a full one: step aside first, so that one of the two is always whole
        old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        beside.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    else:
        beside.rename(folder)
    _flush_folder(folder.parent)


def verify_folder(folder: Path) -> int:
    """Check every byte of a folder of tensors against its checksums.

    Returns:
        The number of tensors.

    Raises:
        DamagedError: something is missing, cut short or changed; names the file, and the tensor where it can be told.
    """
    try:
        manifest = json.loads((folder / CHECKSUMS).read_bytes())
        claimed = manifest.pop("digest")
        if claimed != _digest(json.dumps(manifest, sort_keys=True).encode()):
            raise KeyError
        files, tensors = manifest["files"], manifest["tensors"]
    except FileNotFoundError:
        raise DamagedError(f"{folder}: no {CHECKSUMS}; this is not a folder that selfsup has finished writing") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise DamagedError(f"{folder / CHECKSUMS}: damaged, it does not match its own digest") from None
    for name, digest in files.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise DamagedError(f"{path}: missing")
        if _digest(path.read_bytes()) != digest:
            raise DamagedError(f"{path}: damaged, {_blame(path, tensors.get(name, {}))}")
    return sum(len(named) for named in tensors.values())


def _blame(path: Path, expected: Mapping[str, str]) -> str:
    try:
        found = load_file(path) if expected else {}
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        return f"unreadable ({error})"
    changed = [name for name, digest in expected.items() if name not in found or _tensor_digest(found[name]) != digest]
    return (
        f'tensor "{changed[0]}" differs from what was written' + (f" ({len(changed)} tensors)" if len(changed) > 1 else "")
        if changed
        else "its header differs"
    )


def load_tensors(folder: Path, stem: str) -> dict[str, Tensor]:
    """Tensors of a verified folder's safetensors file, by name."""
    return load_file(folder / f"{stem}.safetensors")


def read_json(path: Path, largest: int = 1 << 24) -> Any:
    """A JSON file of bounded size.

    Raises:
        DamagedError: too large, or not JSON.
    """
    if path.stat().st_size > largest:
        raise DamagedError(f"{path}: {path.stat().st_size} bytes, more than the {largest} that selfsup ever writes")
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise DamagedError(f"{path}: not JSON ({error})") from None


def steps_saved(checkpoints: Path) -> list[int]:
    """Step numbers of the finished checkpoints in a run's `checkpoints/`, oldest first."""
    found = []
    for folder in checkpoints.glob(f"{STEP}*"):
        with contextlib.suppress(ValueError):
            found.append(int(folder.name.removeprefix(STEP)))
    return sorted(found)


def checkpoint_path(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return checkpoints / f"{STEP}{step:08d}"


def remove_leftovers(parent: Path) -> None:
    """Delete what a killed process left half-written, and put back a folder that was being replaced."""
    for old in parent.glob(".*.old"):
        whole = parent / old.name[1:].rsplit(".", 2)[0]
        if whole.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(whole)
    for beside in parent.glob(".*.tmp"):
        shutil.rmtree(beside, ignore_errors=True) if beside.is_dir() else beside.unlink(missing_ok=True)


def prune(checkpoints: Path, keep: set[int], newest: int = 2) -> None:
    """Delete all but the newest checkpoints and those to keep; call only after the newest has been written whole."""
    for step in steps_saved(checkpoints)[:-newest]:
        if step not in keep:
            shutil.rmtree(checkpoint_path(checkpoints, step), ignore_errors=True)
