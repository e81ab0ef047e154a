"""Time and memory of `info_nce`, tiled, beside the formula as it is usually written, with its matrix of similarities.

    python benchmarks/info_nce.py --out results/info_nce.json

Forward and backward, float32, both sides with gradient. Time: medians of interleaved rounds, at sizes where the matrix still fits. Memory:
the kernel's peak of a process of its own above what is resident when the inputs are there; at the largest size of the tiled one only,
where the matrix and its gradient would take 16 GiB each.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from common import HERE, MIB, announce, interleaved, median, memory_of, run_child, seconds, setting, table, write_json
from torch import Tensor

from selfsup.losses import info_nce

TEMPERATURE = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 2048, 8192], help="B, where both are measured")
    parser.add_argument("--largest", type=int, default=65_536, help="B, where only the tiled one is")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="JSON")
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)  # LOSS B: peak memory, in a process of its own
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(peak(arguments.only[0], int(arguments.only[1]), arguments.width)))
        return
    facts = setting()
    announce(facts)
    rows = []
    for size in arguments.sizes:
        queries, keys = inputs(size, arguments.width)
        times: dict[str, list[float]] = {name: [] for name in LOSSES}
        for turn, name in interleaved(list(LOSSES), arguments.rounds + 1):
            spent = seconds(partial(step, name, queries, keys))
            if turn > 0:  # the first is a warm-up
                times[name].append(spent)
        ratio = median(a / b for a, b in zip(times["tiled"], times["plain"], strict=True))
        memory = {name: memory_in_child(name, size, arguments.width) for name in LOSSES}
        rows.append({"B": size, **{f"{name} ms": 1e3 * median(times[name]) for name in LOSSES}, "tiled / plain": ratio})
        rows[-1] |= {f"{name} MiB": memory[name]["above_mib"] for name in LOSSES}
    table(rows)
    largest = memory_in_child("tiled", arguments.largest, arguments.width)
    print(
        f"tiled at B = {arguments.largest:,}: {largest['above_mib']:.0f} MiB above inputs of {largest['inputs_mib']:.0f} MiB, "
        f"{largest['seconds']:.0f} s"
    )
    write_json(arguments.out, {**facts, "options": vars(arguments), "sizes": rows, "largest": largest})


def plain(queries: Tensor, keys: Tensor) -> Tensor:
    """As most code has it."""
    return F.cross_entropy(queries @ keys.T / TEMPERATURE, torch.arange(len(queries)))


def tiled(queries: Tensor, keys: Tensor) -> Tensor:
    return info_nce(queries, keys, TEMPERATURE)


def step(name: str, queries: Tensor, keys: Tensor) -> None:
    LOSSES[name](queries, keys).backward()


LOSSES = {"plain": plain, "tiled": tiled}


def inputs(size: int, width: int) -> tuple[Tensor, Tensor]:
    """Unit rows, with gradient."""
    queries, keys = F.normalize(torch.randn(2, size, width, generator=torch.Generator().manual_seed(0)), dim=2)
    return queries.clone().requires_grad_(), keys.clone().requires_grad_()


def memory_in_child(name: str, size: int, width: int) -> dict[str, float]:
    out, _ = run_child([str(HERE / "info_nce.py"), "--only", name, str(size), "--width", str(width)])
    return json.loads(out.splitlines()[-1])


def peak(name: str, size: int, width: int) -> dict[str, float]:
    """The kernel's peak above what was resident before, once; the libraries have been warmed up with a small one."""
    LOSSES[name](*inputs(64, width)).backward()
    queries, keys = inputs(size, width)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew here
    before = memory_of("self", ["VmRSS"])
    spent = seconds(partial(step, name, queries, keys))
    return {"above_mib": (memory_of("self", ["VmHWM"]) - before) / MIB, "inputs_mib": 2 * queries.nbytes / MIB, "seconds": spent}


if __name__ == "__main__":
    main()
