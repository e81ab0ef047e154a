"""SimCLR training, selfsup against lightly: images/s of the whole loop and memory, at the same network and batch.

    python benchmarks/simclr_vs_lightly.py cifar10.zip --out results/simclr_vs_lightly.json
    python benchmarks/simclr_vs_lightly.py cifar10.zip --encoder small --steps 60 --warmup 10    # where loading and views weigh more

Every measurement is a process of its own, so that no thread pool or loader of one side is in the other's way; they alternate (A B, B A,
A B ...) within one run. Clocks start after the warm-up updates. "MiB private" is the peak over the process and its workers without mapped
files (libraries, selfsup's cache), pages that they share counted once. What each contender is:

lightly       its documented CIFAR-10 setting, see lightly_methods.py: float32, ordinary layout
lightly-cl    the same with channels-last weights and images
lightly-bf16  the same under bfloat16 autocast
lightly-fast  both: its loop as fast as a user can make it without changing lightly
selfsup       engine.loop.fit with its Loader and its defaults on this machine
selfsup-fp32, selfsup-bf16   the same with the precision given
"""

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from common import HERE, MIB, announce, extracted, inner_folder, interleaved, median, run_child, setting, table, write_json
from torch import nn

CONTENDERS = ("lightly", "lightly-cl", "lightly-bf16", "lightly-fast", "selfsup", "selfsup-fp32", "selfsup-bf16")
PARAMETERS = {"resnet18": 11_168_832}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="cifar10.zip, or a folder with train/CLASS/NAME")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=["lightly", "lightly-fast", "selfsup"])
    parser.add_argument("--encoder", choices=("resnet18", "small"), default="resnet18")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=8, help="timed updates of a measurement")
    parser.add_argument("--warmup", type=int, default=2, help="updates before them")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="lightly's loading processes")
    parser.add_argument("--images", type=int, help="of the data, for a quick look; all of them by default")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="JSON")
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)  # one measurement, in a process of its own
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments)))
    else:
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    facts, results = setting(), []
    announce(facts)
    with extracted(arguments.data, "train", arguments.images) as folder, TemporaryDirectory(prefix="selfsup-cache-") as cache:
        given = {name: getattr(arguments, name) for name in ("encoder", "batch", "steps", "warmup", "workers", "device")}
        source = str(folder) if arguments.images else inner_folder(arguments.data, "train")
        for i, name in interleaved(arguments.contenders, arguments.rounds):
            data = source if name.startswith("selfsup") else str(folder)
            options = [f"--{key}={value}" for key, value in given.items()]
            command = [str(HERE / "simclr_vs_lightly.py"), str(arguments.data), "--only", name, "--folder", data, *options]
            out, memory = run_child(command, every=0.5, fair=True, SELFSUP_CACHE_DIR=cache)
            result = {"round": i, "contender": name, **json.loads(out.splitlines()[-1])}
            result |= {"mib_all_processes": memory.shared_out / MIB, "mib_main_resident": memory.resident / MIB}
            print({key: value if isinstance(value, str) else round(value, 1) for key, value in result.items()}, flush=True)
            results.append(result)
    rows = [summary(name, results) for name in arguments.contenders]
    what = f"SimCLR, {arguments.encoder}, batch {arguments.batch}, {arguments.device}"
    print(f"\n{what}; medians of {arguments.rounds} rounds of {arguments.steps} updates; ratios are medians of the rounds' ratios")
    table(rows)
    write_json(arguments.out, {**facts, "options": vars(arguments), "summary": rows, "rounds": results})


def summary(name: str, results: list[dict]) -> dict:
    mine = [r for r in results if r["contender"] == name]
    rates = [r["images_per_second"] for r in mine]
    row = {"contender": name, "precision": mine[0]["precision"], "images/s": median(rates), "least": min(rates), "most": max(rates)}
    for other in dict.fromkeys(r["contender"] for r in results if r["contender"].startswith("lightly")):
        theirs = {r["round"]: r["images_per_second"] for r in results if r["contender"] == other}
        row[f"/ {other}"] = median(r["images_per_second"] / theirs[r["round"]] for r in mine)
    row["MiB private"] = median(r["mib_all_processes"] for r in mine)
    return {**row, "MiB resident, main process": median(r["mib_main_resident"] for r in mine)}


def measure(arguments: argparse.Namespace) -> dict:
    torch.manual_seed(0)
    one = measure_selfsup if arguments.only.startswith("selfsup") else measure_lightly
    return one(arguments, torch.device(arguments.device))


def check_size(encoder: nn.Module, name: str) -> int:
    """Both sides must train the same number of weights."""
    size = sum(p.numel() for p in encoder.parameters())
    if size != PARAMETERS.get(name, size):
        raise SystemExit(f"{name} should have {PARAMETERS[name]} parameters on both sides, has {size}")
    return size


def measure_lightly(arguments: argparse.Namespace, device: torch.device) -> dict:
    import lightly_methods

    from selfsup.models import build_encoder

    if arguments.encoder == "resnet18":
        encoder, width = lightly_methods.resnet18(), 512
    else:
        encoder = build_encoder(
            arguments.encoder, channels=3, image_size=32, mean=[0.0] * 3, std=[1.0] * 3
        )  # lightly's images are standardised
        width = encoder.width
    bf16, channels_last = arguments.only in ("lightly-bf16", "lightly-fast"), arguments.only in ("lightly-cl", "lightly-fast")
    loader = lightly_methods.make_loader(arguments.folder, arguments.batch, arguments.workers, pin=device.type == "cuda")
    model = lightly_methods.SimCLR(encoder, width)
    steps, begin = arguments.warmup + arguments.steps, time.perf_counter()
    for step, _ in enumerate(lightly_methods.train(model, loader, steps, device=device, bf16=bf16, channels_last=channels_last), 1):
        if step == arguments.warmup or step == steps:
            if device.type == "cuda":
                torch.cuda.synchronize()
            begin, took = time.perf_counter(), time.perf_counter() - begin
    rate = arguments.steps * arguments.batch / took
    return {
        "images_per_second": rate,
        "precision": "bf16" if bf16 else "fp32",
        "encoder_parameters": check_size(encoder, arguments.encoder),
    }


def measure_selfsup(arguments: argparse.Namespace, device: torch.device) -> dict:
    from selfsup.data import Loader, open_data
    from selfsup.engine.loop import Training, fit
    from selfsup.methods.simclr import SimCLR
    from selfsup.models import build_encoder
    from selfsup.tasks.pretraining.plan import has_fast_bf16, statistics

    items = open_data(arguments.folder)
    mean, std = statistics(items)
    encoder = build_encoder(arguments.encoder, channels=3, image_size=items.image_size, mean=mean, std=std)
    method = SimCLR(encoder, image_size=items.image_size, crop_size=items.image_size, crops=2)  # as lightly's
    bf16 = {"selfsup-fp32": False, "selfsup-bf16": True}.get(arguments.only, has_fast_bf16(device))
    training = Training(SimCLR.recipe, arguments.batch, steps=arguments.warmup + arguments.steps, bf16=bf16)
    with TemporaryDirectory() as run:
        fit(method, training, Path(run), batches=lambda step: iter(Loader(items, arguments.batch, start_step=step)), device=device)
        lines = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    at = {
        line["step"]: line["seconds"] for line in lines
    }  # every update waits for its gradient's norm, so these clocks are true on a GPU too
    rate = arguments.steps * arguments.batch / (at[arguments.warmup + arguments.steps] - at[arguments.warmup])
    return {
        "images_per_second": rate,
        "precision": "bf16" if bf16 else "fp32",
        "encoder_parameters": check_size(encoder, arguments.encoder),
    }


if __name__ == "__main__":
    main()
