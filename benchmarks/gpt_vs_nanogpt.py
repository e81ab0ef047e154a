"""A small GPT on characters, selfsup against nanoGPT's recipe for a CPU: validation loss at equal steps, and tokens/s.

    python benchmarks/gpt_vs_nanogpt.py english.txt.gz --out results/gpt_vs_nanogpt.json
    python benchmarks/gpt_vs_nanogpt.py english.txt.gz --steps 400 --rounds 1        # a look

The text is the first 1,000,000 characters of the file (all of them ASCII), of which the last tenth is for validation. 4 layers of 128 with
4 heads, a context of 64 characters, batches of 12, 2,000 steps, no dropout, AdamW with lr 1e-3, beta_2 0.99 and decay 0.1, gradients cut at
1, warm-up over 100 steps. Every measurement is a process of its own; they alternate (A B, B A ...). The loss is that of all characters of
the validation text but the first, in windows of 64, in nats, by the same
code for both; its time is taken off both clocks, which start after 20 steps. What each contender is:

nanogpt   what nanoGPT documents for a CPU, written anew: float32, no compilation, batches at random places of a memory-mapped file, no
          biases, exact GELU, tied tables, cosine to a tenth of the rate
selfsup   engine.loop.fit with method gpt, its Loader, its log and its precision on this machine; windows in random order without
          repetition, biases and the tanh GELU of GPT-2, cosine to 0
selfsup-fp32, selfsup-bf16   the same with the precision given
"""

import argparse
import gzip
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import HERE, announce, interleaved, median, run_child, setting, table, write_json
from torch import Tensor, nn

CONTENDERS = ("nanogpt", "selfsup", "selfsup-fp32", "selfsup-bf16")
CHARACTERS, CONTEXT, WIDTH, LAYERS, HEADS = 1_000_000, 64, 128, 4, 4
LR, LEAST_LR, BETA2, DECAY, WARMUP = 1e-3, 1e-4, 0.99, 0.1, 0.05
LOOKS = 4  # at the validation text, in a run
BEFORE = 20  # steps before the clocks start: the first ones import and allocate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="english.txt.gz, or another text")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=["nanogpt", "selfsup", "selfsup-fp32"])
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON")
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)  # one measurement, in a process of its own
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.steps <= BEFORE * LOOKS:
        raise SystemExit(f"--steps must be more than {BEFORE * LOOKS}")
    if arguments.only:
        print(json.dumps(measure(arguments)))
    else:
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    facts, results = setting(), []
    announce(facts)
    given = {name: getattr(arguments, name) for name in ("batch", "steps")}
    for i, name in interleaved(arguments.contenders, arguments.rounds):
        options = [f"--{key}={value}" for key, value in {**given, "seed": i, "only": name}.items()]
        out, _ = run_child([str(HERE / "gpt_vs_nanogpt.py"), str(arguments.data), *options], every=0.5)
        results.append({"round": i, "contender": name, **json.loads(out.splitlines()[-1])})
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in results[-1].items()}, flush=True)
    rows = [summary(name, results) for name in arguments.contenders]
    print(f"\nGPT {LAYERS} x {WIDTH}, batch {arguments.batch} x {CONTEXT}; medians of {arguments.rounds} rounds, ratios of the rounds")
    table(rows)
    write_json(arguments.out, {**facts, "options": vars(arguments), "summary": rows, "rounds": results})


def summary(name: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    mine = [r for r in results if r["contender"] == name]
    theirs = {r["round"]: r for r in results if r["contender"] == "nanogpt"}
    rates = [r["tokens_per_second"] for r in mine]
    row = {"contender": name, "precision": mine[0]["precision"], "tokens/s": median(rates), "least": min(rates), "most": max(rates)}
    for key, title in (("tokens_per_second", "/ nanogpt"), ("tokens_per_core_second", "/ nanogpt, core time")):
        row[title] = median(r[key] / theirs[r["round"]][key] for r in mine) if theirs else None
    for step in mine[0]["losses"]:
        row[f"nats at {step}"] = float(np.mean([r["losses"][step] for r in mine]))
    row["+- at the end"] = float(np.std([r["losses"][step] for r in mine], ddof=1)) if len(mine) > 1 else None
    return row


def text_of(path: Path) -> tuple[str, str]:
    """Training and validation text."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:  # type: ignore[operator]
        text = file.read(CHARACTERS)
    cut = len(text) * 9 // 10
    return text[:cut], text[cut:]


class Clock:
    """Time of training: what runs between `stop` and `go` does not count."""

    def restart(self) -> None:
        """What was before does not count."""
        self.wall, self.core = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """From here nothing counts."""
        self.stopped = time.perf_counter(), time.process_time()

    def go(self) -> None:
        """From here it does again."""
        self.wall += time.perf_counter() - self.stopped[0]
        self.core += time.process_time() - self.stopped[1]

    def rates(self, tokens: int) -> dict[str, float]:
        """Of the time until now."""
        wall, core = time.perf_counter() - self.wall, time.process_time() - self.core
        return {"tokens_per_second": tokens / wall, "tokens_per_core_second": tokens / core}


@torch.no_grad()
def validation_loss(scores: Callable[[Tensor], Tensor], ids: Tensor) -> float:
    """Mean of -log p(next character), in nats; windows of 64 that share no character to be told."""
    n = (len(ids) - 1) // CONTEXT
    shown, following = ids[: n * CONTEXT].view(n, CONTEXT), ids[1 : n * CONTEXT + 1].view(n, CONTEXT)
    pairs = zip(shown.split(128), following.split(128), strict=True)
    total = sum(float(F.cross_entropy(scores(x).flatten(0, 1).float(), y.flatten(), reduction="sum")) for x, y in pairs)
    return total / following.numel()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(arguments.seed)
    with TemporaryDirectory() as folder:
        one = measure_nanogpt if arguments.only == "nanogpt" else measure_selfsup
        return one(arguments, *text_of(arguments.data), Path(folder))


def looks(steps: int) -> list[int]:
    return [steps * (i + 1) // LOOKS for i in range(LOOKS)]


def measure_nanogpt(arguments: argparse.Namespace, train: str, held_out: str, folder: Path) -> dict[str, Any]:
    letters = {letter: i for i, letter in enumerate(sorted(set(train + held_out)))}
    np.array([letters[x] for x in train], np.uint16).tofile(folder / "train.bin")
    ids = torch.tensor([letters[x] for x in held_out])
    model = NanoGPT(len(letters))
    matrices, vectors = ([p for p in model.parameters() if (p.ndim > 1) == many] for many in (True, False))
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, BETA2))
    losses: dict[str, float] = {}
    clock = Clock()
    for step in range(arguments.steps):
        if step == BEFORE:
            clock.restart()
        data = np.memmap(folder / "train.bin", np.uint16, mode="r")  # anew for each batch, as it documents, against a leak of memory
        at = torch.randint(len(data) - CONTEXT, (arguments.batch,))
        x, y = (torch.stack([torch.from_numpy(data[i + k : i + k + CONTEXT].astype(np.int64)) for i in at]) for k in (0, 1))
        for group in optimizer.param_groups:
            group["lr"] = nanogpt_rate(step, arguments.steps)
        F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step + 1 in looks(arguments.steps):
            clock.stop()
            losses[str(step + 1)] = validation_loss(model.eval(), ids)
            model.train()
            clock.go()
    rates = clock.rates((arguments.steps - BEFORE) * arguments.batch * CONTEXT)
    return {**rates, "losses": losses, "precision": "fp32", "parameters": sum(p.numel() for p in model.parameters())}


def nanogpt_rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine from the rate to a tenth of it."""
    warmup = round(WARMUP * steps)
    if step < warmup:
        return LR * (step + 1) / (warmup + 1)
    return LEAST_LR + 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) * (LR - LEAST_LR)


class NanoGPT(nn.Module):
    """The network of that recipe: pre-norm, no biases, exact GELU, the last layer the table of tokens."""

    def __init__(self, letters: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(letters, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        for block in self.blocks:
            for back in (block.out, block.down):
                nn.init.normal_(back.weight, std=0.02 / math.sqrt(2 * LAYERS))

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T) -> logits (B, T, letters)."""
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        return F.linear(self.norm(self.blocks(x)), self.tokens.weight)


class Block(nn.Module):
    """Attention to what came before, then a network of four times the width."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, bias=False), nn.LayerNorm(WIDTH, bias=False)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, width) -> the same."""
        b, t, _ = x.shape
        q, k, v = (part.view(b, t, HEADS, -1).transpose(1, 2) for part in self.qkv(self.norm1(x)).split(WIDTH, dim=2))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, WIDTH))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


def measure_selfsup(arguments: argparse.Namespace, train: str, held_out: str, folder: Path) -> dict[str, Any]:
    from dataclasses import replace

    from selfsup.data import Loader
    from selfsup.data.text.texts import open_text
    from selfsup.engine.loop import Training, fit
    from selfsup.method import Batch
    from selfsup.methods.gpt import GPT
    from selfsup.models import build_encoder
    from selfsup.tasks.pretraining.plan import has_fast_bf16, text_spec

    (folder / "train.txt").write_text(train)
    read: dict[str, Any] = {"layout": "stream", "length": CONTEXT + 1, "documents": "file", "cache_dir": folder / "cache"}
    items = open_text(folder / "train.txt", tokenizer="character", **read)
    assert items.tokenizer is not None
    ids = torch.from_numpy(items.tokenizer.encode([held_out])[0])
    assert len(ids) == len(held_out)
    device = torch.device("cpu")
    bf16 = {"selfsup-fp32": False, "selfsup-bf16": True}.get(arguments.only, has_fast_bf16(device))
    encoder = build_encoder("gpt_nano", channels=items.tokenizer.size, image_size=0, **text_spec(items))
    method = GPT(encoder, vocabulary=items.tokenizer.vocabulary)
    recipe = replace(GPT.recipe, lr=LR, beta2=BETA2, weight_decay=DECAY, warmup=WARMUP, clip=1.0)
    training = Training(recipe, arguments.batch, steps=arguments.steps, bf16=bf16, seed=arguments.seed)
    losses: dict[str, float] = {}

    def batches(step: int) -> Iterator[Batch]:
        for i, batch in enumerate(Loader(items, arguments.batch, seed=arguments.seed, start_step=step)):
            if i == BEFORE:
                clock.restart()
            if i in looks(arguments.steps):
                look(i)
            yield batch

    def look(step: int) -> None:
        clock.stop()
        method.eval()
        losses[str(step)] = validation_loss(lambda x: method.scores(method.transformer.hidden(x)), ids)
        method.train()
        clock.go()

    clock = Clock()
    fit(method, training, folder, batches=batches, device=device)
    rates = clock.rates((arguments.steps - BEFORE) * arguments.batch * CONTEXT)
    look(arguments.steps)
    parameters = sum(p.numel() for p in method.parameters())
    return {**rates, "losses": losses, "precision": "bf16" if bf16 else "fp32", "parameters": parameters}


if __name__ == "__main__":
    main()
