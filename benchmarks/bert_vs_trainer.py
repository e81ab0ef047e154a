"""BERT pretraining, selfsup against the Trainer of transformers: tokens/s of the whole loop, and the loss at equal steps.

    python benchmarks/bert_vs_trainer.py english.txt.gz --out results/bert_vs_trainer.json
    python benchmarks/bert_vs_trainer.py english.txt.gz --steps 12 --warmup 4 --rounds 1        # a look

Both train BERT-mini (4 layers of 256) from N(0, 0.02^2) on the same rows of 128 tokens, of one WordPiece vocabulary that is learned once
from the text, with the same rate (warm-up over a tenth of the steps, then a cosine to 0), AdamW with decay 0.01 and gradients cut at 1, and
no dropout. Every measurement is a process of its own; they alternate (A B, B A ...). Clocks start after the warm-up steps. Rows hold
several documents: selfsup lets each see itself only, the Trainer's model the whole row, as is usual there. What each contender is:

trainer           transformers' Trainer with DataCollatorForLanguageModeling, bf16, scaled_dot_product_attention, AdamW fused, rows in
                  memory, no log and no save but at the end
trainer-compiled  the same with torch_compile=True
selfsup           engine.loop.fit with its Loader, its log and its checkpoint at the end, as selfsup.pretrain runs it, in bf16; without
                  the monitor, which looks at 1,024 rows ten times in a run, however short that is
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from common import HERE, announce, interleaved, median, now, run_child, setting, table, write_json

from selfsup.data.text.texts import open_text

CONTENDERS = ("trainer", "trainer-compiled", "selfsup")
VOCABULARY, LENGTH, LR, DECAY, WARMUP = 30_522, 128, 5e-4, 1e-2, 0.1
PARTS = 4  # of a run, whose mean losses are compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="text, documents between blank lines")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=["trainer", "selfsup"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--warmup", type=int, default=10, help="steps before the clocks start")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON")
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)  # one measurement, in a process of its own
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not 0 < arguments.warmup < arguments.steps:
        raise SystemExit("--warmup must be at least 1 and less than --steps")
    if arguments.only:
        print(json.dumps(measure(arguments)))
    else:
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    facts, results = setting(), []
    announce(facts)
    prepared = rows_of(arguments.data)  # learns the vocabulary and cuts the text, once for all
    print(f"{len(prepared)} rows of {LENGTH} tokens, a vocabulary of {prepared.tokenizer.size}", flush=True)
    given = {name: getattr(arguments, name) for name in ("batch", "steps", "warmup")}
    for i, name in interleaved(arguments.contenders, arguments.rounds):
        options = [f"--{key}={value}" for key, value in {**given, "seed": i, "only": name}.items()]
        out, memory = run_child([str(HERE / "bert_vs_trainer.py"), str(arguments.data), *options], every=0.5)
        results.append({"round": i, "contender": name, **json.loads(out.splitlines()[-1]), "mib_private": memory.all_private / 2**20})
        said = {key: round(value, 2) if isinstance(value, float) else value for key, value in results[-1].items() if key != "losses"}
        print(said, [round(x, 3) for x in parts(results[-1]["losses"])], flush=True)
    rows = [summary(name, results) for name in arguments.contenders]
    print(f"\nBERT-mini, batch {arguments.batch} x {LENGTH}, bf16; medians of {arguments.rounds} rounds, ratios of the rounds")
    table(rows)
    write_json(arguments.out, {**facts, "options": vars(arguments), "summary": rows, "rounds": results})


def rows_of(data: Path) -> Any:
    """The text as selfsup lays it out for bert; kept in its cache."""
    return open_text(data, tokenizer="wordpiece", layout="packed", length=LENGTH, vocabulary_size=VOCABULARY)


def parts(losses: list[float]) -> list[float]:
    """Mean loss of each part of a run."""
    return [float(part.mean()) for part in np.array_split(np.array(losses), PARTS)]


def summary(name: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    mine = [r for r in results if r["contender"] == name]
    theirs = {r["round"]: r for r in results if r["contender"] == "trainer"}
    rates = [r["tokens_per_second"] for r in mine]
    row = {"contender": name, "tokens/s": median(rates), "least": min(rates), "most": max(rates)}
    for key, title in (("tokens_per_second", "/ trainer"), ("tokens_per_core_second", "/ trainer, core time")):
        row[title] = median(r[key] / theirs[r["round"]][key] for r in mine) if theirs else None
    row["MiB"] = median(r["mib_private"] for r in mine)
    for i in range(PARTS):
        losses = [parts(r["losses"])[i] for r in mine]
        row |= {f"loss {i + 1}/{PARTS}": float(np.mean(losses))}
        if len(losses) > 1:
            row |= {f"+-{' ' * i}": float(np.std(losses, ddof=1))}
    return row


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(arguments.seed)
    with TemporaryDirectory() as folder:
        one = measure_selfsup if arguments.only == "selfsup" else measure_trainer
        times, losses = one(arguments, Path(folder))
    (wall, core), (end_wall, end_core) = times
    tokens = (arguments.steps - arguments.warmup) * arguments.batch * LENGTH
    return {"tokens_per_second": tokens / (end_wall - wall), "tokens_per_core_second": tokens / (end_core - core), "losses": losses}


def measure_selfsup(arguments: argparse.Namespace, folder: Path) -> tuple[list[tuple[float, float]], list[float]]:
    from selfsup.data import Loader
    from selfsup.engine.loop import Training, fit
    from selfsup.method import Batch
    from selfsup.methods.bert import BERT
    from selfsup.models import build_encoder
    from selfsup.tasks.pretraining.plan import text_spec

    items = rows_of(arguments.data)
    encoder = build_encoder("bert_mini", channels=items.tokenizer.size, image_size=0, **text_spec(items))
    method = BERT(encoder, vocabulary=items.tokenizer.vocabulary, short=0.0)  # rows as long as the Trainer's
    recipe = replace(BERT.recipe, lr=LR, weight_decay=DECAY, warmup=WARMUP, clip=1.0)
    training = Training(recipe, arguments.batch, steps=arguments.steps, bf16=True, seed=arguments.seed)
    times: list[tuple[float, float]] = []

    def batches(step: int) -> Iterator[Batch]:
        for i, batch in enumerate(Loader(items, arguments.batch, seed=arguments.seed, start_step=step)):
            if i == arguments.warmup:
                times.append(now())
            yield batch

    fit(method, training, folder, batches=batches, device=torch.device("cpu"))
    times.append(now())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return times, [line["loss"] for line in lines]


def measure_trainer(arguments: argparse.Namespace, folder: Path) -> tuple[list[tuple[float, float]], list[float]]:
    import torchvision_on_cpu  # noqa: F401 - makes torchvision load, which transformers imports
    import transformers
    from torch import Tensor
    from torch.utils.data import Dataset

    items = rows_of(arguments.data)
    needed = np.random.default_rng(arguments.seed).permutation(len(items))[: arguments.steps * arguments.batch]
    rows = items.batch(needed)["text"].tolist()
    own = items.tokenizer
    items.tokenizer.save(folder / "tokenizer.json")
    tokens = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **tokens)

    class Rows(Dataset):
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, i: int) -> dict[str, list[int]]:
            return {"input_ids": rows[i], "attention_mask": [int(token != own.pad) for token in rows[i]]}

    losses: list[Tensor] = []

    class Kept(transformers.Trainer):  # its own log is a mean over some steps, and reading it at each would slow it down
        def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
            losses.append(super().training_step(*args, **kwargs))
            return losses[-1]

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step in (arguments.warmup, arguments.steps):
                times.append(now())

    times: list[tuple[float, float]] = []
    config = transformers.BertConfig(
        vocab_size=own.size,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        attn_implementation="sdpa",
    )
    settings = transformers.TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        bf16=True,
        max_steps=arguments.steps,
        per_device_train_batch_size=arguments.batch,
        learning_rate=LR,
        weight_decay=DECAY,
        lr_scheduler_type="cosine",
        warmup_steps=round(WARMUP * arguments.steps),
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        torch_compile=arguments.only == "trainer-compiled",
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        seed=arguments.seed,
    )
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    model = transformers.BertForMaskedLM(config)
    Kept(model=model, args=settings, train_dataset=Rows(), data_collator=collator, callbacks=[Clock()]).train()
    return times, [float(loss) for loss in losses]


if __name__ == "__main__":
    main()
