"""Peak memory: of `selfsup pretrain` on few and on many images, and of kNN on many vectors.

    python benchmarks/memory.py cifar10.zip --out results/memory.json

pretrain  10 updates of SimCLR on 5,000 and on 50,000 images, interleaved, medians of 5 rounds, with the cache to be built and with the
          cache there, and the whole end of a run with its export and page. "private" is RssAnon +
          RssShmem, sampled 50 times a second: what a process has for itself, without the mapped cache and the libraries; "tree" adds its
          decoding processes. "resident" is VmHWM, the kernel's own peak, with everything that is mapped.
knn       knn_top1 on 50,000 x 10,000 vectors of width 512: the kernel's peak above what is resident when the inputs are there.
"""

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from common import HERE, MIB, Memory, announce, copy_part, interleaved, median, memory_of, run_child, setting, table, write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="cifar10.zip")
    parser.add_argument("--images", type=int, nargs=2, default=[5_000, 50_000])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5, help="an allocator's peak differs from run to run by more than what is looked for")
    parser.add_argument("--knn", type=int, nargs=3, default=[50_000, 10_000, 512], metavar=("TRAIN", "TEST", "WIDTH"))
    parser.add_argument("--out", type=Path, help="JSON")
    parser.add_argument("--only-knn", action="store_true", help=argparse.SUPPRESS)  # in a process of its own
    arguments = parser.parse_args()
    if arguments.only_knn:
        print(json.dumps(measure_knn(*arguments.knn)))
        return
    if arguments.data is None:
        parser.error("which data? give the path of cifar10.zip")
    facts = setting()
    announce(facts)
    rows = measure_pretrain(arguments.data, arguments.images, arguments.steps, arguments.batch, arguments.rounds)
    table(rows)
    growth = {cache: rows[2 + i]["private MiB"] / rows[i]["private MiB"] - 1 for i, cache in enumerate(("built", "there"))}
    print(
        f"private memory with {arguments.images[1]:,} instead of {arguments.images[0]:,} images: "
        + ", ".join(f"{x:+.1%} (cache {c})" for c, x in growth.items())
    )
    out, _ = run_child([str(HERE / "memory.py"), "--only-knn", "--knn", *map(str, arguments.knn)])
    knn = json.loads(out.splitlines()[-1])
    print(
        "kNN on {} x {} vectors of width {}: {:.0f} MiB above its inputs of {:.0f} MiB".format(
            *arguments.knn, knn["above_mib"], knn["inputs_mib"]
        )
    )
    write_json(arguments.out, {**facts, "options": vars(arguments), "pretrain": rows, "growth": growth, "knn": knn})


def measure_pretrain(data: Path, counts: list[int], steps: int, batch: int, rounds: int) -> list[dict]:
    peaks: dict[tuple[int, str], list[Memory]] = {(images, cache): [] for images in counts for cache in ("built", "there")}
    with TemporaryDirectory(prefix="selfsup-benchmark-") as folder:
        for images in counts:
            copy_part(data, Path(folder, f"{images}.zip"), "train", images)
        for turn, count in interleaved([str(images) for images in counts], rounds):
            for cache in ("built", "there"):
                run, images = Path(folder, f"run-{count}-{cache}-{turn}"), int(count)
                length = ["--steps", str(steps), "--batch-size", str(batch), "--out", str(run), "--quiet"]
                command = ["-m", "selfsup", "pretrain", "simclr", str(Path(folder, f"{count}.zip")), *length]
                _, memory = run_child(command, every=0.02, SELFSUP_CACHE_DIR=str(Path(folder, f"cache-{count}-{turn}")))
                peaks[images, cache].append(memory)
                print(f"round {turn}, {images:,} images, cache {cache}: {memory.private / MIB:.0f} MiB private", flush=True)
    kinds = {"private MiB": "private", "tree MiB": "all_private", "resident MiB": "resident"}
    return [
        {"images": images, "cache": cache}
        | {name: median(getattr(m, kind) for m in found) / MIB for name, kind in kinds.items()}
        | {"private, least": min(m.private for m in found) / MIB, "private, most": max(m.private for m in found) / MIB}
        for (images, cache), found in peaks.items()
    ]


def measure_knn(train: int, test: int, width: int) -> dict[str, float]:
    import torch

    from selfsup.evaluation.knn import knn_top1

    x, y = torch.randn(train + test, width), torch.randint(10, (train + test,))
    knn_top1(x[:1000], y[:1000], x[-100:], y[-100:])  # libraries are loaded and threads started
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's peak begins anew
    before = memory_of("self", ["VmRSS"])
    accuracy = knn_top1(x[:train], y[:train], x[train:], y[train:])
    return {"above_mib": (memory_of("self", ["VmHWM"]) - before) / MIB, "inputs_mib": x.nbytes / MIB, "top1": accuracy}


if __name__ == "__main__":
    main()
