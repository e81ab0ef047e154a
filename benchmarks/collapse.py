"""How often the monitors are right: warnings on healthy and on sabotaged runs, with precision and recall.

    python benchmarks/collapse.py cifar10.zip --out results/collapse.jsonl

Each run is 150 updates on CIFAR-10 at 16 pixels by the engine's own loop with its monitors; a run counts as caught when it has warned in
its second half. Healthy: every method below at its defaults, batch included. Sabotaged: what its papers say it needs is taken away, or a
setting is far off. The kNN accuracy at the end stands beside each, since some sabotages do no harm in a run this short.
"""

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from common import announce, append_line, inner_folder, read_lines, setting, table
from torch import Tensor, nn

from selfsup.data import Items, Loader, open_data
from selfsup.engine.loop import Training, fit
from selfsup.engine.step import NotFiniteError
from selfsup.method import Method
from selfsup.methods import method_class, simclr, simsiam, swav
from selfsup.models import build_encoder
from selfsup.tasks.pretraining.monitor import make_monitor
from selfsup.tasks.pretraining.plan import has_fast_bf16, statistics

SIZE, STEPS = 16, 150
HEALTHY = ("simclr", "moco", "byol", "simsiam", "barlow_twins", "vicreg", "swav", "dino", "rotation", "denoising")
Sabotage = Callable[[Method], None]


def no_predictor(method: Method) -> None:
    setattr(method, "predictor", nn.Identity())  # noqa: B010 - a method's own attribute


def no_stop_gradient(p: Tensor, z: Tensor) -> Tensor:
    return -F.cosine_similarity(p, z, dim=1).mean()


def no_negatives(z: Tensor, temperature: float) -> Tensor:
    z = F.normalize(z, dim=2)
    return -(z * z.roll(1, dims=0)).sum(dim=2).mean() / temperature


def no_equal_shares(scores: Tensor, epsilon: float, _iterations: int) -> Tensor:
    return (scores / epsilon).softmax(dim=1)


# name: method, its options, recipe and batch, what is replaced in the method's file, and what is done to the method
SABOTAGED: dict[str, dict[str, Any]] = {
    "simsiam, no stop-gradient": {"method": "simsiam", "patch": (simsiam, "distance", no_stop_gradient)},
    "simsiam, no predictor": {"method": "simsiam", "do": no_predictor},
    "simsiam, neither": {"method": "simsiam", "do": no_predictor, "patch": (simsiam, "distance", no_stop_gradient)},
    "byol, no predictor": {"method": "byol", "do": no_predictor},
    "byol, no predictor, momentum 0": {"method": "byol", "do": no_predictor, "options": {"tau_base": 0.0}},
    "byol, momentum 0": {"method": "byol", "options": {"tau_base": 0.0}},
    "vicreg, variance term off": {"method": "vicreg", "options": {"mu": 0.0}},
    "vicreg, variance and covariance off": {"method": "vicreg", "options": {"mu": 0.0, "nu": 0.0}},
    "vicreg, rate 300 times": {"method": "vicreg", "rate": 300.0},
    "barlow_twins, rate 300 times": {"method": "barlow_twins", "rate": 300.0},
    "simclr, no negatives": {"method": "simclr", "patch": (simclr, "poly_view", no_negatives)},
    "simclr, temperature 100": {"method": "simclr", "options": {"temperature": 100.0}},
    "simclr, batch of 2": {"method": "simclr", "batch": 2},
    "simclr, rate 300 times": {"method": "simclr", "rate": 300.0},
    "moco, temperature 100": {"method": "moco", "options": {"temperature": 100.0}},
    "moco, rate 300 times": {"method": "moco", "rate": 300.0},
    "swav, codes without equal shares": {"method": "swav", "patch": (swav, "sinkhorn", no_equal_shares)},
    "swav, codes flat (epsilon 10)": {"method": "swav", "options": {"epsilon": 10.0}},
    "dino, neither centre nor sharpening": {
        "method": "dino",
        "options": {"centre_momentum": 1.0, "teacher_temperature": 0.1, "first_teacher_temperature": 0.1},
    },
    "dino, no sharpening": {"method": "dino", "options": {"teacher_temperature": 1.0, "first_teacher_temperature": 1.0}},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="cifar10.zip")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of the healthy runs; sabotaged ones have the last")
    parser.add_argument("--only", nargs="+", help="names of runs, for a quick look")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; what is in it is not done again")
    arguments = parser.parse_args()
    runs = [(f"{method}, seed {seed}", {"method": method, "seed": seed}, True) for seed in arguments.seeds for method in HEALTHY]
    runs += [(name, {"seed": arguments.seeds[-1], **how}, False) for name, how in SABOTAGED.items()]
    names = [name for name, _, _ in runs]
    if unknown := set(arguments.only or ()) - set(names):
        parser.error(f"no run is named {', '.join(sorted(unknown))}; there are: {'; '.join(names)}")
    facts = setting()
    announce(facts)
    items = open_data(inner_folder(arguments.data, "train"), image_size=SIZE)
    lines = read_lines(arguments.out)
    done = {line["run"] for line in lines}
    for name, how, healthy in runs:
        if name in done or (arguments.only and name not in arguments.only):
            continue
        lines.append({"run": name, "healthy": healthy, **watch(items, **how), **facts})
        append_line(arguments.out, lines[-1])
        print(f"{name}: {lines[-1]['warning'] or 'no warning'}", flush=True)
    shown = ("run", "healthy", "warned", "knn_top1", "rankme", "deviation", "match", "loss_first", "loss_last")
    table([{key: line.get(key) for key in shown} for line in lines])
    caught = [line["warned"] for line in lines if not line["healthy"]]
    alarms = [line["warned"] for line in lines if line["healthy"]]
    warned = sum(caught) + sum(alarms)
    print(f"recall {sum(caught)}/{len(caught)}, precision {sum(caught)}/{warned}, false alarms {sum(alarms)}/{len(alarms)}")


def watch(
    items: Items,
    method: str,
    seed: int,
    options: dict[str, Any] | None = None,
    rate: float = 1.0,
    batch: int | None = None,
    patch: tuple[Any, str, Any] | None = None,
    do: Sabotage | None = None,
) -> dict[str, Any]:
    """Train and say what the monitors said."""
    torch.manual_seed(seed)
    cls, device = method_class(method), torch.device("cpu")
    batch = batch or cls.recipe.batch_size
    mean, std = statistics(items)
    made = cls(build_encoder("small", channels=3, image_size=SIZE, mean=mean, std=std), image_size=SIZE, **(options or {}))  # type: ignore[call-arg]
    if do is not None:
        do(made)
    kept = getattr(patch[0], patch[1]) if patch else None
    if patch:
        setattr(patch[0], patch[1], patch[2])
    recipe = replace(cls.recipe, lr=cls.recipe.lr * rate)
    training = Training(recipe, batch, steps=STEPS, seed=seed, bf16=has_fast_bf16(device), checkpoint_minutes=math.inf)
    monitor = make_monitor(items, SIZE, device, seed)
    failed = ""
    with TemporaryDirectory(prefix="selfsup-benchmark-") as folder:
        try:
            fit(
                made,
                training,
                Path(folder),
                batches=lambda step: iter(Loader(items, batch, seed=seed, start_step=step)),
                device=device,
                monitor=monitor,
            )
        except NotFiniteError as error:
            failed = str(error)
        finally:
            if patch:
                setattr(patch[0], patch[1], kept)
        lines = [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]
    late = [line["warning"] for line in lines if "warning" in line and line["step"] > STEPS / 2]
    monitors = [line for line in lines if "rankme" in line] or [{}]
    losses = [line["loss"] for line in lines if "loss" in line]
    return {
        "method": method,
        "warned": bool(late or failed),
        "warning": failed or (late[-1] if late else ""),
        "loss_first": sum(losses[:5]) / 5 if losses else None,
        "loss_last": sum(losses[-5:]) / 5 if losses else None,
        "monitors": monitors,
        **{key: monitors[-1].get(key) for key in ("knn_top1", "rankme", "deviation", "uniformity", "alignment", "match")},
    }


if __name__ == "__main__":
    main()
