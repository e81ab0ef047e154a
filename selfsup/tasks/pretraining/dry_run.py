"""`--dry-run`: what would be done, measured on a few real steps, and a picture of the views."""

import json
import resource
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from selfsup.data import Items, Loader
from selfsup.engine.loop import fit
from selfsup.method import Method
from selfsup.tasks.pretraining.page_data import EXAMPLES, example_views, pictures
from selfsup.tasks.pretraining.plan import build_method, in_words, training_of
from selfsup.views.crops import clean

STEPS = 3


def rehearse(config: Mapping[str, Any], items: Items, network: nn.Module | None, device: torch.device, out: str | Path | None) -> Path:
    """Train three steps in a throw-away folder, and write the plan and the views.

    Returns:
        A folder with `plan.json` and `views.png`: OUT-plan, or runs/METHOD-plan where no OUT was given.
    """
    from dataclasses import replace

    method = build_method(config, items, network)
    training = training_of(config)
    share = training.batch_size // config["training"]["devices"]
    with tempfile.TemporaryDirectory() as folder:
        rehearsal = replace(training, steps=STEPS, minutes=None, batch_size=share)
        fit(
            method,
            rehearsal,
            Path(folder),
            batches=lambda step: iter(Loader(items, share, seed=training.seed, start_step=step)),
            device=device,
        )
        lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    a_step = lines[-1]["seconds"] - lines[-2]["seconds"]
    seconds = 60 * training.minutes if training.minutes else a_step * (training.steps or 0)
    folder_out = Path(f"{out}-plan") if out else Path("runs") / f"{config['method']}-plan"
    folder_out.mkdir(parents=True, exist_ok=True)
    plan = {
        **{key: config[key] for key in ("method", "options", "encoder", "training")},
        "data": {**config["data"], "skipped_files": [[s.name, s.reason] for s in items.skipped]},
        "parameters": sum(p.numel() for p in method.encoder.parameters()),
        "parameters_in_training": sum(p.numel() for p in method.parameters() if p.requires_grad),
        "peak_memory_mib": _peak_memory(device),
        "seconds_per_step": round(a_step, 4),
        "seconds": round(seconds),
    }
    (folder_out / "plan.json").write_text(json.dumps(plan, indent=1))
    if items.kind == "image":
        _draw_views(method.cpu(), items, config, folder_out / "views.png")
    elif items.tokenizer is not None:
        _write_views(method.cpu(), items, config, folder_out / "views.txt")
    return folder_out


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit >> 20


def _draw_views(method: Method, items: Items, config: Mapping[str, Any], path: Path) -> None:
    batch = items.batch(np.linspace(0, len(items) - 1, min(EXAMPLES, len(items))).astype(np.int64))
    size = config["encoder"]["image_size"]
    columns = [pictures(clean(batch, size)), *example_views(method, batch, config["training"]["seed"]).values()]
    scale, gap = max(1, 96 // size), 4
    rows = []
    for views in zip(*columns, strict=True):
        cells = [np.repeat(np.repeat(np.broadcast_to(v, (*v.shape[:2], 3)), scale, 0), scale, 1) for v in views]
        tall = max(c.shape[0] for c in cells)
        rows.append(
            np.concatenate([np.pad(c, ((0, tall - c.shape[0] + gap), (0, gap), (0, 0)), constant_values=255) for c in cells], axis=1)
        )
    Image.fromarray(np.concatenate(rows)).save(path)


def _write_views(method: Method, items: Items, config: Mapping[str, Any], path: Path) -> None:
    """What is shown of some items of text, token by token."""
    assert items.tokenizer is not None
    batch = items.batch(np.linspace(0, len(items) - 1, min(EXAMPLES, len(items))).astype(np.int64))
    views = method.views(batch, torch.Generator().manual_seed(config["training"]["seed"]))
    lines = []
    for i in range(len(batch["text"])):
        for name, ids in {"text": batch["text"], **{f"view {name}": x for name, x in views.items()}}.items():
            if ids.ndim == 2 and ids.dtype == torch.int64 and i < len(ids):
                there = ids[i][(ids[i] >= 0) & (ids[i] != items.tokenizer.pad)].tolist()
                lines.append(f"{name}: {' '.join(items.tokenizer.tokens(there))}")
        lines.append("")
    path.write_text("\n".join(lines), encoding="utf-8")


def _first(skipped: list[list[str]], most: int = 10) -> str:
    lines = [f"\n{'':<13}{name}: {reason}" for name, reason in skipped[:most]]
    return "".join(lines) + (f"\n{'':<13}and {len(skipped) - most} more, all in plan.json" if len(skipped) > most else "")


def describe_plan(plan: Mapping[str, Any]) -> str:
    """The plan in a few lines."""
    d, (shape, how) = plan["data"], in_words(plan)
    classes = f", {len(d['classes'])} classes" if d["classes"] else ""
    minutes, seconds = divmod(plan["seconds"], 60)
    lines = [
        ("method", f"{plan['method']} {plan['options'] or ''}".strip()),
        ("data", f"{d['source']}: {d['items']} items{classes}"),
        ("skipped", f"{d['skipped']} files{_first(d['skipped_files'])}"),
        ("input", shape),
        ("network", f"{plan['encoder']['name']}, {plan['parameters']:,} parameters ({plan['parameters_in_training']:,} while training)"),
        ("training", how),
        ("memory", f"{plan['peak_memory_mib']} MiB at its peak in {STEPS} steps"),
        ("time", f"{minutes}:{seconds:02d} ({plan['seconds_per_step']:.3g} s a step)"),
    ]
    return "\n".join(f"{name:<11}  {text}" for name, text in lines)
