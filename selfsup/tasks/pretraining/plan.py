"""From what the user said to a run's `config.json`, with nothing left to choose."""

import inspect
import math
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import selfsup
from selfsup.data import Items, open_data
from selfsup.data.tables.schema import Schema, column_statistics
from selfsup.data.text.texts import open_text
from selfsup.data.text.tokenizer import Tokenizer
from selfsup.data.text.tokens import TextStore
from selfsup.engine.loop import Training
from selfsup.engine.optim import scaled_lr
from selfsup.method import Method, Recipe
from selfsup.methods import describe, method_class
from selfsup.models import OF_VECTORS, build_encoder, wrap
from selfsup.views.crops import clean

IMAGES_BY_DEFAULT, MOST_EPOCHS = 1_000_000, 200
MODALITIES = {"image": "images", "vector": "vectors", "text": "text"}
GIVEN_BY_THE_DATA = ("self", "encoder", "image_size", "items", "vocabulary", "categories", "counts")
OF_A_TOKENIZER = ("vocabulary_size", "min_count")  # the tokenizer lies in the run
STATISTICS_IMAGES, STATISTICS_VECTORS = 2048, 65_536


def method_options(method: str) -> dict[str, inspect.Parameter]:
    """A method's own options: the keyword arguments of its constructor that the data does not decide."""
    parameters = inspect.signature(method_class(method).__init__).parameters
    return {name: p for name, p in parameters.items() if name not in GIVEN_BY_THE_DATA}


def check_options(method: str, options: Mapping[str, Any]) -> None:
    """Raise ValueError for an option that the method does not have, naming the nearest, and for one that is no number."""
    import difflib

    known = method_options(method)
    for name, value in options.items():
        if isinstance(value, float) and math.isnan(value):
            raise ValueError(f"--{name.replace('_', '-')} must be a number, got nan")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f'did you mean "{near[0]}"?' if near else f"it has {', '.join(known)}"
            raise ValueError(f'{method} has no option "{name}"; {hint}')


def check_numbers(numbers: Mapping[str, float | int | None]) -> None:
    """Raise ValueError for a given number that is not finite and positive."""
    for name, value in numbers.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"--{name.replace('_', '-')} must be a positive finite number, got {value}")


def choose_device(device: str) -> torch.device:
    """ "auto" is the GPU where there is one; under torchrun, this process's own.

    Raises:
        ValueError: no device of that name here.
    """
    if device != "auto":
        try:
            chosen = torch.device(device)
        except RuntimeError:
            raise ValueError(f'--device must be auto, cpu, cuda or cuda:N, got "{device}"') from None
        here = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if chosen.type == "cuda" and (chosen.index or 0) >= here:
            raise ValueError(f"--device {device}: torch finds {here} GPUs here, numbered from 0; choose another, or leave it out")
        return chosen
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("cpu")


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the machine multiplies bfloat16 faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    can = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return bool(can.get("amx_bf16") or can.get("avx512_bf16"))


def make_config(
    items: Items,
    method: str,
    options: Mapping[str, Any],
    *,
    encoder: str | nn.Module | None,
    epochs: float | None,
    steps: int | None,
    minutes: float | None,
    batch_size: int | None,
    recipe: Mapping[str, Any],
    seed: int,
    devices: int,
    precision: str,
    device: torch.device,
    accumulate: int,
    micro_batch: int | None,
    checkpoint_minutes: float,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that a run is, as JSON can hold it; see `pretrain` for the arguments.

    Raises:
        ValueError: arguments that contradict each other, the method or the data.
    """
    check_options(method, options)
    lengths = {"epochs": epochs, "steps": steps, "minutes": minutes}
    check_numbers(
        {
            **lengths,
            "batch_size": batch_size,
            "accumulate": accumulate,
            "micro_batch": micro_batch,
            "checkpoint_minutes": checkpoint_minutes,
            "lr": recipe["lr"],
        }
    )
    decay = recipe["weight_decay"]
    if decay is not None and not (math.isfinite(decay) and decay >= 0):
        raise ValueError(f"--weight-decay must be a finite number, at least 0, got {decay}")
    if not 0 <= seed < 2**63:
        raise ValueError(f"--seed must be at least 0 and below 2^63, got {seed}")
    if sum(x is not None for x in lengths.values()) > 1:
        raise ValueError("--epochs, --steps and --minutes each say how long to train; give one of them")
    chosen = chosen_recipe(items, method, recipe, batch_size, devices, accumulate)
    if minutes is None and steps is None:
        if epochs is None:
            epochs = chosen.epochs or min(MOST_EPOCHS, math.ceil(IMAGES_BY_DEFAULT / len(items)))
        steps = max(1, round(epochs * (len(items) // chosen.batch_size)))
    bf16 = precision == "bf16" or (precision == "auto" and has_fast_bf16(device))
    channels, size = items.shape[0] if items.tokenizer is None else items.tokenizer.size, items.image_size
    name = encoder if isinstance(encoder, str) else "own" if encoder is not None else default_encoder(chosen, items)
    return {
        "method": method,
        "options": {**{name: p.default for name, p in method_options(method).items()}, **options},  # a later default changes no run
        "encoder": {"name": name, "channels": channels, "image_size": size, **text_spec(items)},
        "data": {
            "source": items.source,
            "items": len(items),
            "skipped": len(items.skipped),
            "classes": list(items.classes),
            "fingerprint": items.fingerprint,
            "image_size": size,
            "channels": channels,
            "value_range": items.value_range,
            "table": items.table.to_json() if items.table else None,
            "settings": dict(settings),
        },
        "training": {
            **{key: value for key, value in asdict(chosen).items() if key not in ("encoder", *OF_A_TOKENIZER)},
            "clip": chosen.clip if math.isfinite(chosen.clip) else None,
            "steps": steps,
            "epochs": epochs,
            "minutes": minutes,
            "accumulate": accumulate,
            "micro_batch": micro_batch,
            "checkpoint_minutes": checkpoint_minutes,
            "precision": "bf16" if bf16 else "fp32",
            "seed": seed,
            "devices": devices,
            "device": str(device),
            "threads": torch.get_num_threads(),
        },
        "versions": {
            "selfsup": selfsup.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "command": shlex.join(["selfsup", *sys.argv[1:]]) if Path(sys.argv[0]).name in ("selfsup", "__main__.py") else "python",
    }


def chosen_recipe(items: Items, method: str, given: Mapping[str, Any], batch_size: int | None, devices: int, accumulate: int) -> Recipe:
    """The method's recipe with what was given instead, its learning rate for this batch.

    Raises:
        ValueError: the method learns from other data, or the batch does not fit.
    """
    facts = describe(method)
    kind = "tables" if items.table else MODALITIES[items.kind]
    if kind not in facts.modality:
        raise ValueError(f"{method} learns from {facts.modality}, but {items.source} holds {kind}; `selfsup methods` says what each takes")
    recipe: Recipe = method_class(method).recipe
    parts = devices * accumulate
    batch = batch_size or min(recipe.batch_size, len(items)) // parts * parts
    if batch > len(items):
        raise ValueError(f"--batch-size {batch} is larger than the data, {len(items)} items; choose at most {len(items)}")
    if batch < 2 or batch % parts:
        raise ValueError(
            f"--batch-size must be at least 2 and a multiple of --devices {devices} times --accumulate {accumulate}, got {batch}"
        )
    given = {key: value for key, value in given.items() if value is not None}
    if recipe.optimizer == "own" and given.keys() - {"lr"}:
        raise ValueError(f"{method} makes its steps itself: leave out --optimizer and --weight-decay")
    decided: dict[str, Any] = {"lr": scaled_lr(recipe, batch), **given, "batch_size": batch}
    return replace(recipe, **decided)


def text_spec(items: Items) -> dict[str, Any]:
    """What an encoder of text has to know of its tokenizer; nothing for other data."""
    t = items.tokenizer
    return {} if t is None else {"text": {"length": items.shape[0], "pad": t.pad, "start": t.start, "end": t.end}}


def default_encoder(recipe: Recipe, items: Items) -> str:
    """The network that a method is known for; for rows of tables "table", for vectors "mlp" where that takes images only."""
    if items.table:
        return "table"
    return "mlp" if items.kind == "vector" and recipe.encoder not in OF_VECTORS else recipe.encoder


def table_of(config: Mapping[str, Any]) -> Schema | None:
    """What the columns of a run's table are; None where its data was no table."""
    said = config["data"].get("table")  # runs from before tables do not say
    return Schema.from_json(said) if said else None


def training_of(config: Mapping[str, Any]) -> Training:
    """The engine's part of a configuration."""
    t = config["training"]
    names = ("optimizer", "lr", "batch_size", "weight_decay", "momentum", "beta2", "schedule", "warmup")
    recipe = Recipe(**{name: t[name] for name in names}, clip=math.inf if t["clip"] is None else t["clip"])
    names = ("batch_size", "steps", "minutes", "accumulate", "micro_batch", "seed", "checkpoint_minutes")
    return Training(recipe, **{name: t[name] for name in names}, bf16=t["precision"] == "bf16")


def build_method(
    config: Mapping[str, Any], items: Items | None, network: nn.Module | None = None, *, tokenizer: Tokenizer | None = None
) -> Method:
    """The method, initialised from the run's seed; `network` is the user's own encoder where there is one.

    Without items, the statistics of the data are left to the tensors of a checkpoint, and the tokenizer of text is given.
    """
    tokenizer = tokenizer if items is None else items.tokenizer
    torch.manual_seed(config["training"]["seed"])
    spec = config["encoder"]
    if network is None:
        mean, std = statistics(items) if items is not None and items.kind != "text" else (None, None)
        encoder = build_encoder(**spec, mean=mean, std=std)
    else:
        encoder = wrap(network, spec["channels"], spec["image_size"])
    cls = method_class(config["method"])
    wanted = inspect.signature(cls.__init__).parameters
    table = table_of(config)
    given: dict[str, Any] = {
        "image_size": spec["image_size"],
        "items": config["data"]["items"] if items is None else len(items),
        "vocabulary": tokenizer.vocabulary if tokenizer else None,
        "categories": table.blocks if table else (),
    }
    if "counts" in wanted and items is not None and isinstance(items.store, TextStore):
        given["counts"] = torch.from_numpy(items.store.counts(spec["channels"]))
    return cls(encoder, **{name: value for name, value in given.items() if name in wanted}, **config["options"])


def statistics(items: Items) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel (or dimension), in units of the encoder's input, over an even sample.

    Of rows of tables, what is missing does not count, and the places of categories have 0 and 1; see `column_statistics`. The deviation of
    a channel that never changes is 1: what it is worth elsewhere would otherwise be magnified beyond all measure.
    """
    most = STATISTICS_IMAGES if items.image_size else STATISTICS_VECTORS
    index = np.unique(np.linspace(0, len(items) - 1, min(len(items), most)).astype(np.int64))
    x = clean(items.batch(index), items.image_size)
    if items.kind == "vector":
        mean, std = column_statistics(x.numpy(), items.table.blocks if items.table else ())
        return mean.tolist(), std.tolist()
    dims = [d for d in range(x.ndim) if d != 1]
    std = torch.where(x.amin(dims) == x.amax(dims), 1.0, x.std(dims, correction=0).clamp(min=1e-3))
    return x.mean(dims).tolist(), std.tolist()


def in_words(config: Mapping[str, Any]) -> tuple[str, str]:
    """What goes into the network, and how it is trained: two short lines."""
    t, e = config["training"], config["encoder"]
    shape = f"{e['channels']} x {e['image_size']} x {e['image_size']}" if e["image_size"] else f"{e['channels']} numbers"
    table = table_of(config)
    if table:
        shape = f"{len(table.columns)} columns, {len(table.blocks)} of them categories: {shape}"
    if "text" in e:
        shape = f"{e['text']['length']} tokens, a vocabulary of {e['channels']:,}"
    epochs = f" ({t['epochs']:.3g} epochs)" if t["epochs"] else ""
    long = f"{t['minutes']:g} minutes" if t["minutes"] else f"{t['steps']} steps{epochs}"
    where = f"{t['devices']} x {t['device']}, {t['precision']}, seed {t['seed']}"
    return shape, f"{long} of {t['batch_size']}, {t['optimizer']} lr {t['lr']:.3g}, {where}"


def open_again(
    config: Mapping[str, Any], data: Any = None, *, tokenizer: Tokenizer | None = None, allow_change: bool = False, progress: Any = None
) -> Items:
    """A run's data, opened as it was; text with the run's tokenizer.

    Raises:
        ValueError: it was an array in memory and is not given again, or it has changed since.
    """
    said = config["data"]
    source = said["source"] if data is None else data
    size = said["image_size"] or None
    if data is None and not Path(said["source"]).is_absolute():
        raise ValueError(f"this run's data was {said['source']} in memory; go on from Python: selfsup.pretrain(data, resume=...)")
    if isinstance(data, Items):
        items = data
    elif tokenizer is not None:
        items = open_text(source, tokenizer=tokenizer, progress=progress, **said["settings"])
    else:
        seen = {"image_size": size, "channels": said["channels"] if size else None, "table": table_of(config)}
        values = said["settings"].get("value_range")
        settings: dict[str, Any] = {**said["settings"], "value_range": tuple(values) if values else None}
        items = open_data(source, progress=progress, **seen, **settings)
    if items.fingerprint != said["fingerprint"] and not allow_change:
        was, now = f"{said['items']} items, fingerprint {said['fingerprint']}", f"{len(items)}, {items.fingerprint}"
        raise ValueError(
            f"{said['source']} has changed since the run began (was {was}; is {now}); put it back, or accept with --allow-data-change"
        )
    return items
