"""What noise Neighbor2Neighbor takes from photographs without having seen a clean one, beside the same network trained on clean targets.

    python benchmarks/denoising_images.py cifar10.zip --images 100000 --seeds 0 1 2 --out results/denoising_images.jsonl

One line of JSON a contender and seed. What stands in the file already is not done again, and a run that was stopped goes on.

Protocol: gaussian noise of sigma LEVEL (of 255); each training image has one noisy version, the same in every epoch. `neighbor2neighbor` is
`selfsup.pretrain` for IMAGES / batch updates with its own recipe, and sees the noisy versions only (of the clean ones, mean and deviation
of each channel standardise the input). `supervised` has the same initial weights, updates, batches, windows, noise and recipe; its loss is
the squared error against the clean window. Both are scored at their last update, on an even sample of the test part, and on the two
photographs of 427 x 640 pixels that scikit-learn ships, at their full size, under noise of another seed. PSNR and SSIM are means over
images; "noisy" is the input itself, cut to [0, 1]. Input and output are not rounded.
"""

import argparse
import hashlib
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import announce, append_line, fits, inner_folder, read_lines, setting, table
from sklearn.datasets import load_sample_images
from torch import Tensor

import selfsup
from selfsup.data import Items, Loader, open_data
from selfsup.engine.checkpoint import checkpoint_path, load_tensors, steps_saved
from selfsup.engine.log import Progress
from selfsup.engine.loop import Stopped, fit
from selfsup.engine.state import copy_state
from selfsup.evaluation.image_quality import psnr, ssim
from selfsup.method import Batch, Method
from selfsup.methods.neighbor2neighbor import Neighbor2Neighbor, NoisyNeighbours
from selfsup.tasks.pretraining.plan import build_method, training_of
from selfsup.tasks.saved.trained_method import load_method

CONTENDERS = ("noisy", "neighbor2neighbor", "supervised")
MEASURED = ("test_psnr", "test_ssim", "photos_psnr", "photos_ssim", "train_seconds")
AT_ONCE = 2**18  # pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="cifar10.zip, or a folder with train/CLASS/NAME and test/CLASS/NAME")
    parser.add_argument("--contenders", nargs="+", default=CONTENDERS, choices=CONTENDERS)
    parser.add_argument("--images", type=int, default=100_000, help="seen in training")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--level", type=float, default=25.0, help="sigma of the noise, of 255")
    parser.add_argument("--batch", type=int, default=Neighbor2Neighbor.recipe.batch_size, help="images in a step")
    parser.add_argument("--options", type=json.loads, default={}, help='given to pretrain as well, as JSON: {"gamma": 1}')
    parser.add_argument("--test-images", type=int, default=2000)
    parser.add_argument("--runs", type=Path, help="where run folders go; beside the results by default")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; what is in it is not done again")
    arguments = parser.parse_args()
    facts = setting()
    announce(facts)
    test = open_data(inner_folder(arguments.data, "test"))
    test = test.subset(np.linspace(0, len(test) - 1, min(len(test), arguments.test_images)).astype(np.int64))
    photos = open_data(np.stack(load_sample_images().images), image_size=640)
    lines = read_lines(arguments.out)
    for seed, contender in itertools.product(arguments.seeds, arguments.contenders):
        wanted = {"contender": contender, "images": arguments.images, "seed": seed, "level": arguments.level, "batch": arguments.batch}
        wanted |= {"options": arguments.options, "test_images": len(test)}
        if any(fits(line, wanted) for line in lines):
            continue
        print(f"{contender}, {arguments.images:,} images, seed {seed}", flush=True)
        try:
            method, how = (None, {}) if contender == "noisy" else trained(wanted, arguments)
        except Stopped as signal:
            raise SystemExit(f"{signal}: the run is saved; the same command goes on with it") from None
        found = {}
        for name, items in (("test", test), ("photos", photos)):
            found |= {f"{name}_{key}": value for key, value in scores(method, items, arguments.level).items()}
        lines.append({**wanted, **found, **how, **facts})
        append_line(arguments.out, lines[-1])
    table([{name: line.get(name) for name in ("contender", "images", "seed", "level", *MEASURED)} for line in lines])


def trained(wanted: dict[str, Any], arguments: argparse.Namespace) -> tuple[Neighbor2Neighbor, dict[str, Any]]:
    """The denoiser, and how it was trained; goes on with what was stopped."""
    name = hashlib.sha256(json.dumps({**wanted, "contender": ""}, sort_keys=True).encode()).hexdigest()[:8]
    folder = (arguments.runs or arguments.out.parent / "runs") / f"denoising-{wanted['images']}-{wanted['seed']}-{name}"
    run, data = folder / "neighbor2neighbor", inner_folder(arguments.data, "train")
    settings = {"batch_size": wanted["batch"], "steps": round(wanted["images"] / wanted["batch"]), "seed": wanted["seed"]}
    if wanted["contender"] == "supervised":
        if not (run / "config.json").exists():
            raise SystemExit("supervised takes everything but its loss from neighbor2neighbor's run: give both, that one first")
        config = json.loads((run / "config.json").read_text())
        run, method = supervised(folder / "supervised", config, open_data(data, shrink=False, largest=256))
    else:
        if (run / "config.json").exists():
            selfsup.pretrain(resume=run)
        else:
            selfsup.pretrain(data, "neighbor2neighbor", out=run, **settings, **options(wanted))
        config, method = json.loads((run / "config.json").read_text()), load_method(run).method
    assert isinstance(method, Neighbor2Neighbor)
    how = {key: config["training"][key] for key in ("steps", "optimizer", "lr", "precision")}
    return method.eval(), {
        "train_seconds": json.loads((run / "status.json").read_text())["seconds"],
        "training": how,
        "parameters": sum(p.numel() for p in method.parameters()),
        "run": str(run),
    }


def options(wanted: dict[str, Any]) -> dict[str, Any]:
    return {"noise": "gaussian", "level": wanted["level"], **wanted["options"]}


class CleanTargets:
    """What `NoisyNeighbours` shows, and "clean": the same windows without the noise."""

    def __init__(self, noisy: NoisyNeighbours) -> None:
        self.noisy, self.clean = noisy, NoisyNeighbours(noisy.image_size, None)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        state = generator.get_state()
        clean = self.clean(batch, generator)["noisy"]
        generator.set_state(state)
        return {"noisy": self.noisy(batch, generator)["noisy"], "clean": clean}


class Supervised(Method):
    """The same denoiser, which is told the clean image."""

    def __init__(self, method: Neighbor2Neighbor) -> None:
        super().__init__()
        self.encoder, self.method, self.views = method.encoder, method, CleanTargets(method.views)  # type: ignore[arg-type]

    def loss(self, views: Batch) -> Tensor:
        return (self.method.f(views["noisy"]) - views["clean"]).square().mean()


def supervised(run: Path, config: dict[str, Any], items: Items) -> tuple[Path, Method]:
    """Train as the configuration says, or go on, or load what is finished."""
    training, device = training_of(config), torch.device(config["training"]["device"])
    method = Supervised(build_method(config, items))  # type: ignore[arg-type]
    run.mkdir(parents=True, exist_ok=True)
    saved = steps_saved(run / "checkpoints") if (run / "checkpoints").exists() else []
    if not saved or saved[-1] < (training.steps or 0):

        def batches(step: int) -> Iterator[Batch]:
            return iter(Loader(items, training.batch_size, seed=training.seed, start_step=step))

        fit(method, training, run, batches=batches, device=device, progress=Progress())
    else:
        with torch.no_grad():
            copy_state(method, load_tensors(checkpoint_path(run / "checkpoints", saved[-1]), "model"), run)
    return run, method.method.cpu()


@torch.no_grad()
def scores(method: Neighbor2Neighbor | None, items: Items, level: float) -> dict[str, float]:
    """Mean PSNR and SSIM of denoised images, or of the noisy ones; and the seconds an image took."""
    generator, total, begin = torch.Generator().manual_seed(12345), torch.zeros(2, dtype=torch.float64), time.perf_counter()
    rows = max(1, AT_ONCE // (items.shape[1] * items.shape[2]))
    for index in np.split(np.arange(len(items)), range(rows, len(items), rows)):
        clean = items.batch(index)["image"].float() / 255
        noisy = clean + level / 255 * torch.randn(clean.shape, generator=generator)
        out = noisy.clamp(0, 1) if method is None else method.denoise(noisy)
        total += torch.stack([psnr(out, clean).sum(), ssim(out, clean).sum()])
    mean = (total / len(items)).tolist()
    return {"psnr": mean[0], "ssim": mean[1], "seconds_per_image": (time.perf_counter() - begin) / len(items)}


if __name__ == "__main__":
    main()
