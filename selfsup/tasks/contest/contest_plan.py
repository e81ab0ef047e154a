"""What a contest asks: checked before hours are spent on it, kept in `contest.json`, and the same when it goes on."""

import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import selfsup
from selfsup.data import Items, open_data
from selfsup.engine.checkpoint import replace_file
from selfsup.methods import METHODS, describe, method_class
from selfsup.tasks.contest.judge import Judge
from selfsup.tasks.pretraining.plan import check_numbers, choose_device


def create_contest(
    data: str | Path | np.ndarray,
    methods: str | Sequence[str],
    *,
    minutes: float | None,
    images: int | None,
    seeds: int,
    test: str | Path | None,
    out: str | Path | None,
    settings: Mapping[str, Any],
) -> Path:
    """Check everything that can be checked before hours are spent, and write `contest.json`; see `compare` for the arguments.

    Returns:
        The contest's folder; nothing is left in it where this raises.
    Raises:
        ValueError: arguments that do not fit together or the data.
    """
    check_numbers({"minutes": minutes, "images": images, "seeds": seeds})
    if seeds != int(seeds):
        raise ValueError(f"--seeds must be a whole number, got {seeds}")
    choose_device(settings["device"])  # fails here for all, not later for each
    if (minutes is None) == (images is None):
        raise ValueError("a contest needs a budget: --minutes of training for each method, or --images that each run sees")
    folder = Path(out) if out else Path(f"contest-{time.strftime('%Y%m%d-%H%M%S')}")
    if (folder / "contest.json").exists():
        raise ValueError(f"{folder}: there is a contest already; go on with `selfsup compare --resume {folder}`, or choose another --out")
    items = open_data(data, image_size=settings["image_size"])
    if not isinstance(data, np.ndarray) and not Path(items.source).is_absolute():
        raise ValueError(f"compare takes data in files, or an array; got {items.source}")
    chosen = chosen_methods(methods, items)
    tested = None if test is None else str(Path(test).absolute())
    held_out = None if tested is None else open_part(tested, items.image_size, items)
    if held_out is not None and held_out.fingerprint == items.fingerprint:
        raise ValueError(f"{test}: the same items to learn from and to score on; leave out --test, and a fifth of those with labels scores")
    judge = Judge(items, held_out)
    if settings["encoder"]:
        judge.untrained(settings["encoder"])  # no such network, or none that takes this data
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(data, np.ndarray):
        np.save(folder / "data.npy", data, allow_pickle=False)  # each run is a process of its own, and opens it
        items = open_data(folder / "data.npy", image_size=settings["image_size"])
    plan = {
        "data": {
            "source": items.source,
            "items": len(items),
            "classes": list(items.classes),
            "kind": items.kind,
            "image_size": items.image_size,
        },
        "test": tested,
        "fingerprints": fingerprints(items, held_out),
        "methods": chosen,
        "budget": {"images": images} if minutes is None else {"minutes": minutes / seeds},
        "seeds": seeds,
        "encoder": settings["encoder"],
        "device": settings["device"],
        "labelled": judge.counts is not None,
        "evaluated_on": judge.counts,
        "watched": judge.watched,
        "versions": {"selfsup": selfsup.__version__, "python": platform.python_version()},
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "command": shlex.join(["selfsup", *sys.argv[1:]]) if Path(sys.argv[0]).name in ("selfsup", "__main__.py") else "python",
    }
    replace_file(folder / "contest.json", json.dumps(plan, indent=1).encode())
    return folder


def chosen_methods(methods: str | Sequence[str], items: Items) -> list[str]:
    """The ids that are asked for; "all" are those that learn from such data without labels. ValueError for one that does not."""
    kind = "tables" if items.table else f"{items.kind}s"
    fitting = [m for m in METHODS if kind in describe(m).modality]
    if methods == "all":
        return [m for m in fitting if "label" not in describe(m).shown]  # a contest is among those that need none
    chosen = [m.strip() for m in methods.split(",")] if isinstance(methods, str) else list(methods)
    for method in chosen:
        method_class(method)
        if method not in fitting:
            raise ValueError(f"{method} learns from {describe(method).modality}, but {items.source} holds {kind}")
    if len(set(chosen)) < len(chosen) or not chosen:
        raise ValueError(f"a contest needs methods, each of them once; got {', '.join(chosen) or 'none'}")
    return chosen


def open_part(source: str, image_size: int, like: Items | None = None) -> Items:
    """The data to learn from, or those to score on, in the columns of the former where they are a table."""
    return open_data(source, image_size=image_size or None, table=like.table if like else None)


def fingerprints(items: Items, test: Items | None) -> list[str]:
    """By which a contest that goes on knows that its data are the same."""
    return [part.fingerprint for part in (items, test) if part is not None]


def options_of(plan: Mapping[str, Any], method: str) -> list[str]:
    """What `selfsup pretrain METHOD DATA` is told of the plan: budget, device, encoder, size of images."""
    budget, options = plan["budget"], ["--device", plan["device"]]
    if "minutes" in budget:
        options += ["--minutes", str(budget["minutes"])]
    else:
        own = min(method_class(method).recipe.batch_size, plan["data"]["items"])
        batch = max(2, min(own, budget["images"]))  # a smaller one where a single step would be more than the budget
        options += ["--steps", str(max(1, round(budget["images"] / batch))), *(["--batch-size", str(batch)] if batch < own else [])]
    if plan["encoder"]:
        options += ["--encoder", plan["encoder"]]
    if plan["data"]["image_size"]:
        options += ["--image-size", str(plan["data"]["image_size"])]
    return options
