"""What lightly's SimCLR and BYOL are worth on CIFAR-10 beside selfsup's: the same network, images seen and protocol, that of cifar10.py.

    python benchmarks/lightly_quality.py cifar10.zip --methods simclr byol --images 100000 --out results/cifar10.jsonl

lightly's training is the documented one (lightly_methods.py: views, head, loss, SGD, float32, loading processes), with selfsup's network
and evaluation; selfsup's is `selfsup.pretrain` with its own recipe. For every seed first the one, then the other. Lines go to the same file
as those of cifar10.py, lightly's with the methods "lightly-simclr" and "lightly-byol"; what is there already is skipped. --fast trains
lightly's in bfloat16 and channels-last, as "lightly-simclr-fast". The interval is the 95 % of a difference of two shares of the test
images.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightly_methods
import torch
from cifar10 import MEASURED, evaluate, pretrained, some
from common import announce, append_line, extracted, fits, inner_folder, read_lines, setting, table

from selfsup.data import Items, open_data
from selfsup.evaluation.features import embed_items
from selfsup.methods import method_class
from selfsup.models import build_encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="cifar10.zip, or a folder with train/CLASS/NAME and test/CLASS/NAME")
    parser.add_argument("--methods", nargs="+", choices=list(lightly_methods.METHODS), default=["simclr"])
    parser.add_argument("--images", nargs="+", type=int, default=[100_000, 200_000], help="seen in pretraining")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--encoder", default="small")
    parser.add_argument("--options", type=json.loads, default={}, help="given to selfsup's pretrain as well, as JSON")
    parser.add_argument("--own-batch", type=int, help="selfsup's; the method's own by default")
    parser.add_argument("--batch", type=int, default=128, help="lightly's; 128 and 512 are documented, more updates are better here")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--lr", type=float, help="lightly's, 0.06 * batch / 128, by default")
    parser.add_argument("--fast", action="store_true", help="bfloat16 and channels-last")
    parser.add_argument("--evaluate", type=int, help="evaluate on so many images of each part, for a quick look; on all by default")
    parser.add_argument("--runs", type=Path, help="where selfsup's run folders go; beside the results by default")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; what is in it is not done again")
    arguments = parser.parse_args()
    facts = setting()
    announce(facts)
    train, test = (some(open_data(inner_folder(arguments.data, part)), arguments.evaluate) for part in ("train", "test"))
    lines = read_lines(arguments.out)
    rows = []
    with extracted(arguments.data, "train") as folder:

        def once(wanted: dict[str, Any], pretrain: Callable[..., dict[str, Any]]) -> dict[str, Any]:
            found = next((line for line in lines if fits(line, wanted)), None)
            if found is None:
                print(f"{wanted['method']}, {wanted['images']:,} images, seed {wanted['seed']}", flush=True)
                lines.append(found := {**wanted, **pretrain(wanted, arguments, train, test), **facts})
                append_line(arguments.out, found)
            return found

        for images, method, seed in itertools.product(arguments.images, arguments.methods, arguments.seeds):
            same = {"images": images, "seed": seed, "encoder": arguments.encoder, "evaluated_on": [len(train), len(test)]}
            theirs = {**same, "method": f"lightly-{method}" + "-fast" * arguments.fast, "batch": arguments.batch}
            theirs["options"] = {"lr": arguments.lr}
            ours = {**same, "method": method, "batch": arguments.own_batch or method_class(method).recipe.batch_size}
            ours["options"] = arguments.options
            peer = once(theirs, partial(pretrained_by_lightly, method, str(folder)))
            own = once(ours, pretrained)
            rows += [{**shown(peer), "kNN, points": None, "time": None}, {**shown(own), **beside(own, peer, len(test))}]
    table(rows)


def shown(line: dict[str, Any]) -> dict[str, Any]:
    return {name: line[name] for name in ("method", "images", "seed", "batch", *MEASURED)}


def beside(own: dict[str, Any], peer: dict[str, Any], n: int) -> dict[str, str]:
    """How much better selfsup is, in percentage points with the interval, and the part of lightly's time that it takes."""
    p, q = own["knn_top1"], peer["knn_top1"]
    half = 1.96 * ((p * (1 - p) + q * (1 - q)) / n) ** 0.5
    return {"kNN, points": f"{100 * (p - q):+.1f} ± {100 * half:.1f}", "time": f"{own['pretrain_seconds'] / peer['pretrain_seconds']:.2f}"}


def pretrained_by_lightly(
    method: str, folder: str, wanted: dict[str, Any], arguments: argparse.Namespace, train: Items, test: Items
) -> dict[str, Any]:
    torch.manual_seed(wanted["seed"])
    # lightly's views are standardised already, so the encoder's own standardising waits until it is evaluated on clean images.
    encoder = build_encoder(wanted["encoder"], channels=3, image_size=32, mean=[0.0] * 3, std=[1.0] * 3)
    loader = lightly_methods.make_loader(folder, wanted["batch"], arguments.workers, pin=False)
    model, steps = lightly_methods.METHODS[method](encoder, encoder.width), round(wanted["images"] / wanted["batch"])
    how = {"device": torch.device("cpu"), "bf16": arguments.fast, "channels_last": arguments.fast, "lr": arguments.lr}
    begin = said = time.perf_counter()
    for step, loss in enumerate(lightly_methods.train(model, loader, steps, **how), 1):
        if time.perf_counter() - said > 20 or step == steps:
            said = time.perf_counter()
            print(f"update {step} of {steps}, loss {float(loss):.3f}, {step * wanted['batch'] / (said - begin):.0f} images/s", flush=True)
    spent, begin = time.perf_counter() - begin, time.perf_counter()
    encoder.normalize.mean.copy_(torch.tensor(lightly_methods.MEAN))
    encoder.normalize.std.copy_(torch.tensor(lightly_methods.STD))
    vectors = [embed_items(encoder, items, 32) for items in (train, test)]
    found = evaluate(*vectors, train, test)
    return {**found, "pretrain_seconds": spent, "evaluate_seconds": time.perf_counter() - begin, "training": {"steps": steps}}


if __name__ == "__main__":
    main()
