"""Loss traces and encoder weights of short runs, as digests: what a change of the house must leave bit for bit as it was.

    python benchmarks/bitwise.py [--only simclr,bert] [--root CHECKOUT]

Each run makes 20 steps in float32 on one thread, seed 0, on data made from a fixed seed. Digests depend on the processor and on torch, so
both sides of a comparison run on one machine. `--root` imports selfsup from another checkout.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

STEPS = 20
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "simclr": ("images", {"batch_size": 16}),
    "moco": ("images", {"batch_size": 16}),
    "byol": ("images", {"batch_size": 16}),
    "dino": ("images", {"batch_size": 16}),
    "mae": ("images", {"batch_size": 16}),
    "gan": ("images", {"batch_size": 16}),
    "vae": ("images", {"batch_size": 16}),
    "vqvae": ("images", {"batch_size": 16}),
    "context_encoder": ("images", {"batch_size": 16}),
    "jigsaw": ("images", {"batch_size": 16}),
    "split_brain": ("images", {"batch_size": 16}),
    "colorization": ("images", {"batch_size": 16}),
    "denoising": ("table", {"batch_size": 16}),
    "bert": ("text", {"batch_size": 8, "encoder": "bert_tiny", "vocabulary_size": 300, "sequence_length": 32}),
    "gpt": ("text", {"batch_size": 8, "encoder": "gpt_nano", "vocabulary_size": 300, "sequence_length": 32}),
    "simcse": ("text", {"batch_size": 8, "encoder": "bert_tiny", "vocabulary_size": 300, "sequence_length": 32}),
    "word2vec": ("text", {"encoder": "words_20", "sequence_length": 32, "min_count": 1, "threads": 1, "batch_size": 8}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(RUNS))
    parser.add_argument("--root", type=Path, help="checkout whose selfsup is imported; default: the installed one")
    arguments = parser.parse_args()
    if arguments.root:
        sys.path.insert(0, str(arguments.root))
    import torch

    import selfsup

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = make_data(Path(folder))
        for method in arguments.only.split(","):
            kind, settings = RUNS[method]
            given = {"steps": STEPS, "seed": 0, "precision": "fp32", "device": "cpu", "quiet": True, **settings}
            run = selfsup.pretrain(data[kind], method, out=Path(folder) / method, **given)
            print(f"{method:<16} losses {losses(run.path)}  encoder {weights(run.path)}", flush=True)


def make_data(folder: Path) -> dict[str, str]:
    """Images (64, 32, 32, 3), a table of numbers and a category, and documents of made-up words, by kind -> path."""
    rng = np.random.default_rng(0)
    np.save(folder / "images.npy", rng.integers(0, 256, (64, 32, 32, 3), dtype=np.uint8))
    numbers = zip(rng.normal(size=64), rng.normal(size=64), rng.random(64) > 0.5, strict=True)
    rows = [f"{a:.4f},{b:.4f},{'red' if c else 'blue'}" for a, b, c in numbers]
    (folder / "table.csv").write_text("\n".join(["height,weight,colour", *rows]) + "\n")
    words = [f"{a}{b}" for a in ("ba", "de", "ki", "lo", "mu") for b in ("n", "r", "s", "t", "x", "")]
    documents = ["\n".join(" ".join(rng.choice(words, rng.integers(4, 9))) + " ." for _ in range(6)) for _ in range(60)]
    (folder / "text.txt").write_text("\n\n".join(documents))
    return {"images": str(folder / "images.npy"), "table": str(folder / "table.csv"), "text": str(folder / "text.txt")}


def losses(run: Path) -> str:
    """Digest of every logged loss."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = [{key: line[key] for key in sorted(line) if key.startswith("loss")} for line in lines]
    trace = [line for line in found if line]
    assert len(trace) == STEPS, f"expected {STEPS} logged losses, got {len(trace)}"
    return hashlib.sha256(json.dumps(trace).encode()).hexdigest()[:16]


def weights(run: Path) -> str:
    """Digest of the encoder's tensors, their names and types."""
    from safetensors.numpy import load_file

    digest = hashlib.sha256()
    for name, array in sorted(load_file(run / "encoder/model.safetensors").items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    main()
