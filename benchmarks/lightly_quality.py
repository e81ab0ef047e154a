"""What lightly's SimCLR and BYOL are worth on CIFAR-10 with selfsup's `small` network, by the protocol of cifar10.py.

    python benchmarks/lightly_quality.py cifar10.zip --images 100000 200000 --out results/cifar10.jsonl

The training is lightly's at its documented setting (lightly_methods.py: views, head, loss, SGD, float32, 2 loading processes); only the
network and the evaluation are selfsup's. Lines go to the same file as those of cifar10.py, with the methods "lightly-simclr" and
"lightly-byol"; what is there already is skipped. --fast trains in bfloat16 and channels-last, as "lightly-simclr-fast".
"""

import argparse
import itertools
import time
from pathlib import Path
from typing import Any

import lightly_methods
import torch
from cifar10 import MEASURED, evaluate, some
from common import announce, append_line, extracted, inner_folder, read_lines, setting, table

from selfsup.data import Items, open_data
from selfsup.evaluation.features import embed_items
from selfsup.models import build_encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="cifar10.zip, or a folder with train/CLASS/NAME and test/CLASS/NAME")
    parser.add_argument("--methods", nargs="+", choices=list(lightly_methods.METHODS), default=["simclr"])
    parser.add_argument("--images", nargs="+", type=int, default=[100_000, 200_000], help="seen in pretraining")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--encoder", default="small")
    parser.add_argument("--batch", type=int, default=128, help="128 and 512 are documented; more updates are better in a short run")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--lr", type=float, help="lightly's, 0.06 * batch / 128, by default")
    parser.add_argument("--fast", action="store_true", help="bfloat16 and channels-last")
    parser.add_argument("--evaluate", type=int, help="evaluate on so many images of each part, for a quick look; on all by default")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; what is in it is not done again")
    arguments = parser.parse_args()
    facts = setting()
    announce(facts)
    train, test = (some(open_data(inner_folder(arguments.data, part)), arguments.evaluate) for part in ("train", "test"))
    lines = read_lines(arguments.out)
    with extracted(arguments.data, "train") as folder:
        for images, seed, method in itertools.product(arguments.images, arguments.seeds, arguments.methods):
            wanted = {
                "method": f"lightly-{method}" + "-fast" * arguments.fast,
                "images": images,
                "seed": seed,
                "encoder": arguments.encoder,
                "batch": arguments.batch,
            }
            wanted |= {"options": {"lr": arguments.lr}, "evaluated_on": [len(train), len(test)]}
            if any(all(line.get(key) == value for key, value in wanted.items()) for line in lines):
                continue
            lines.append({**wanted, **pretrain(method, wanted, arguments, str(folder), train, test), **facts})
            append_line(arguments.out, lines[-1])
    table([{name: line.get(name) for name in ("method", "images", "seed", "encoder", *MEASURED)} for line in lines])


def pretrain(method: str, wanted: dict[str, Any], arguments: argparse.Namespace, folder: str, train: Items, test: Items) -> dict[str, Any]:
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
