"""What the adversarial loss is worth in filling holes: a context encoder with it and one without, on the same images for as many steps.

    python benchmarks/inpainting.py cifar10.zip --images 100000 --out results/inpainting.jsonl --picture results/inpainting.png
    python benchmarks/inpainting.py cifar10.zip --mask random_blocks --images 100000 --out results/inpainting.jsonl

One line of JSON a run. What stands in the file already is not trained again, and a run that was stopped goes on from its last checkpoint.

Protocol: `selfsup.pretrain` on the training images with the method's own recipe and the same seed, so with the same crops and holes; the
last checkpoint fills holes in test images, the same for both. PSNR is that of the hidden pixels, from the mean squared error over all of
them; "psnr_each" is the mean over images of each one's own, "psnr_mean_colour" what the mean colour of the shown pixels of each image would
have. Gradient energy is the mean squared difference of neighbours, right and below, that are both hidden: of fills, and of the images' own
pixels in the same places. Blurred fills have less than the images.

The picture has a row for each of some test images: as it is, as it is shown, filled without and filled with the discriminator.
"""

import argparse
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import announce, append_line, fits, inner_folder, read_lines, setting, table
from PIL import Image
from torch import Tensor

import selfsup
from selfsup.data import Items, sequential
from selfsup.engine.loop import Stopped
from selfsup.methods import method_class
from selfsup.methods.context_encoder import ContextEncoder, without
from selfsup.tasks.saved.trained_method import load_method
from selfsup.views.crops import clean

SHOWN = ("adversarial_weight", "images", "seed", "mask", "psnr", "psnr_each", "psnr_mean_colour", "energy", "energy_real")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="cifar10.zip, or a folder with train/CLASS/NAME and test/CLASS/NAME")
    parser.add_argument("--images", type=int, default=100_000, help="seen in training")
    parser.add_argument("--mask", choices=["centre", "random_blocks", "random_regions"], default="centre")
    parser.add_argument(
        "--weights", nargs=2, type=float, default=[0.0, 0.001], help="adversarial_weight of the two; the paper's by default"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--encoder", default="small")
    parser.add_argument("--batch", type=int, help="items in a step; the method's own by default")
    parser.add_argument("--test", type=int, help="fill so many test images, for a quick look; all by default")
    parser.add_argument("--rows", type=int, default=12, help="of the picture")
    parser.add_argument("--picture", type=Path, help="PNG of the first seed's fills")
    parser.add_argument("--runs", type=Path, help="where run folders go; beside the results by default")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; what is in it is not done again")
    arguments = parser.parse_args()
    facts = setting()
    announce(facts)
    lines = []
    for seed in arguments.seeds:
        pair = [measured(arguments, weight, seed, facts) for weight in arguments.weights]
        verdict(*pair)
        lines += pair
    table([{name: line[name] for name in SHOWN} for line in lines])
    if arguments.picture:
        draw([Path(line["run"]) for line in lines[:2]], arguments)


def measured(arguments: argparse.Namespace, weight: float, seed: int, facts: dict[str, Any]) -> dict[str, Any]:
    """The line of one run, from the file of results or from training."""
    batch = arguments.batch or method_class("context_encoder").recipe.batch_size
    wanted = {"adversarial_weight": weight, "mask": arguments.mask, "images": arguments.images, "seed": seed}
    wanted |= {"encoder": arguments.encoder, "batch": batch, "test": arguments.test}
    for line in read_lines(arguments.out):
        if fits(line, wanted):
            return line
    name = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:8]
    run = (arguments.runs or arguments.out.parent / "runs") / f"inpainting-{arguments.mask}-{weight}-{seed}-{name}"
    print(f"adversarial_weight {weight}, {arguments.images:,} images, seed {seed}", flush=True)
    try:
        if (run / "config.json").exists():
            selfsup.pretrain(resume=run)
        else:
            selfsup.pretrain(
                inner_folder(arguments.data, "train"),
                "context_encoder",
                steps=round(arguments.images / batch),
                batch_size=batch,
                encoder=arguments.encoder,
                seed=seed,
                out=run,
                mask=arguments.mask,
                adversarial_weight=weight,
            )
    except Stopped as signal:
        raise SystemExit(f"{signal}: the run is saved; the same command goes on with it") from None
    spent = json.loads((run / "status.json").read_text())["seconds"]
    line = {**wanted, **fills(run, arguments), "pretrain_seconds": spent, "run": str(run), **facts}
    append_line(arguments.out, line)
    return line


def fills(run: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """PSNR and gradient energy of a run's fills of test images."""
    method, test = open_test(run, arguments)
    generator = torch.Generator().manual_seed(0)
    squares, guessed, hidden_values, each = 0.0, 0.0, 0, []
    energies, pairs = torch.zeros(2, dtype=torch.float64), 0
    for batch in sequential(test, 500):
        x = clean(batch, method.image_size)
        hidden = method.views.hide(len(x), generator)
        filled = method.inpaint(x, hidden)
        error = ((filled - x).square() * hidden).double().sum(dim=(1, 2, 3))
        values = hidden.sum(dim=(1, 2, 3)) * x.shape[1]
        each += (-10 * (error / values).clamp(min=1e-10).log10()).tolist()
        squares, hidden_values = squares + float(error.sum()), hidden_values + int(values.sum())
        mean = (x * ~hidden).sum(dim=(2, 3), keepdim=True) / (~hidden).sum(dim=(2, 3), keepdim=True)
        guessed += float(((mean - x).square() * hidden).double().sum())
        sums = [gradient_energy(images, hidden) for images in (filled, x)]
        energies, pairs = energies + torch.tensor([s for s, _ in sums]), pairs + sums[0][1]
    of_fills, real = (energies / pairs).tolist()
    psnr, of_mean = (-10 * math.log10(total / hidden_values) for total in (squares, guessed))
    return {"psnr": psnr, "psnr_each": float(np.mean(each)), "psnr_mean_colour": of_mean, "energy": of_fills, "energy_real": real}


def gradient_energy(x: Tensor, hidden: Tensor) -> tuple[float, int]:
    """Sum of squared differences of neighbours that are both hidden, and how many there are."""
    total, pairs = 0.0, 0
    for axis in (2, 3):
        n = x.shape[axis] - 1
        both = hidden.narrow(axis, 0, n) & hidden.narrow(axis, 1, n)
        total += float((x.diff(dim=axis).square() * both).double().sum())
        pairs += int(both.sum()) * x.shape[1]
    return total, pairs


def verdict(plain: dict[str, Any], adversarial: dict[str, Any]) -> None:
    """Two lines: what the adversarial loss costs in PSNR, and whether its fills are as rough as real images."""
    lost = plain["psnr"] - adversarial["psnr"]
    shares = [line["energy"] / line["energy_real"] for line in (plain, adversarial)]
    nearer = abs(adversarial["energy"] - adversarial["energy_real"]) < abs(plain["energy"] - plain["energy_real"])
    print(
        f"seed {plain['seed']}: PSNR {plain['psnr']:.2f} dB without, {adversarial['psnr']:.2f} with the discriminator: {lost:.2f} dB lost"
    )
    said = "nearer to real" if nearer else "not nearer to real"
    print(f"seed {plain['seed']}: gradient energy {shares[0]:.1%} of real images' without, {shares[1]:.1%} with it: {said}")


def open_test(run: Path, arguments: argparse.Namespace) -> tuple[ContextEncoder, Items]:
    """A run's method, and the test images as it takes them."""
    trained = load_method(run)
    assert isinstance(trained.method, ContextEncoder)
    test = trained.open(inner_folder(arguments.data, "test"))
    if arguments.test:
        test = test.subset(np.sort(np.random.default_rng(0).permutation(len(test))[: arguments.test]))
    return trained.method, test


def draw(runs: list[Path], arguments: argparse.Namespace) -> None:
    """The picture: originals, what is shown, and each run's fills, four pixels a pixel."""
    columns: list[Tensor] = []
    for run in runs:
        method, test = open_test(run, arguments)
        x = clean(test.batch(np.linspace(0, len(test) - 1, arguments.rows).astype(np.int64)), method.image_size)
        hidden = method.views.hide(len(x), torch.Generator().manual_seed(0))
        columns += [] if columns else [x, without(x, hidden, method.fill)]
        columns.append(method.inpaint(x, hidden))
    tiles = torch.nn.functional.pad(torch.stack(columns, dim=1), (1, 1, 1, 1), value=1.0)  # (rows, columns, C, S, S)
    sheet = tiles.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    pixels = sheet.mul(255).round().clamp(0, 255).byte().numpy().repeat(4, 0).repeat(4, 1)
    arguments.picture.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(arguments.picture)
    print(f"written to {arguments.picture}")


if __name__ == "__main__":
    main()
