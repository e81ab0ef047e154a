"""Semantic textual similarity of sentence encoders: before and after SimCSE and ConSERT, beside averaged word vectors.

python benchmarks/sts.py data/text/english.txt.gz data/sts --steps 2000 --further 500 --seeds 3 [--vectors words.txt] [--also RUN ...]

The stages: bert from random weights on the text for --steps; from there simcse and consert on its sentences for --further each. Every run
is kept in --runs, and one that is there is not made again. Rows: the word vectors of a file in word2vec's format and bert's own table of
tokens, each averaged; the network before any training; bert by the mean of its tokens and by its first; simcse; consert; and any folder.
"""

import argparse
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import common
import numpy as np
import torch
from torch import Tensor

import selfsup
from selfsup.data.text.vector_files import read_word_vectors
from selfsup.engine.checkpoint import read_json
from selfsup.evaluation.sts import read_sets, sts
from selfsup.models.text import Pool
from selfsup.tasks.saved.trained_encoder import TrainedEncoder, load, untrained


def run(text: str, method: str, folder: Path, **settings: Any) -> Path:
    """The run in that folder, made if it is not there."""
    if not (folder / "encoder").is_dir():
        selfsup.pretrain(text, method, out=folder, quiet=True, **settings)
    return folder


def of_encoder(trained: TrainedEncoder) -> Callable[[Sequence[str]], Tensor]:
    return lambda sentences: torch.from_numpy(trained.embed(list(sentences)))


def pooled(path: Path, pool: Pool) -> TrainedEncoder:
    trained = load(path)
    trained.network.set_pool(pool)  # type: ignore[operator]
    return trained


def fresh(path: Path, seed: int) -> TrainedEncoder:
    trained = load(path)
    torch.manual_seed(seed)
    return TrainedEncoder(untrained(trained), trained.config, trained.tokenizer)


def of_table(path: Path) -> Callable[[Sequence[str]], Tensor]:
    """The mean of an encoder's vectors of tokens, before its first layer."""
    trained = load(path)
    assert trained.tokenizer is not None
    rows = trained.network.tokens.weight.detach()  # type: ignore[union-attr, operator]
    ids = trained.tokenizer.encode
    return lambda sentences: torch.stack([rows[torch.from_numpy(x)].mean(dim=0) if len(x) else rows[0] * 0 for x in ids(sentences)])


def of_words(path: Path) -> Callable[[Sequence[str]], Tensor]:
    """The mean of the vectors of a sentence's words, in lower case; words that are not there do not count."""
    found = read_word_vectors(path)
    words, width = dict(zip(found.words, found.vectors, strict=True)), found.vectors.shape[1]

    def embed(sentences: Sequence[str]) -> Tensor:
        means = np.zeros((len(sentences), width), np.float32)
        for row, sentence in zip(means, sentences, strict=True):
            known = [words[w] for w in re.findall(r"\w+|[^\w\s]", sentence.lower()) if w in words]
            if known:
                row[:] = np.mean(known, axis=0)
        return torch.from_numpy(means)

    return embed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("sts")
    parser.add_argument("--steps", type=int, default=2000, help="of bert, batches of 64 rows of 128 tokens")
    parser.add_argument("--further", type=int, default=500, help="steps of simcse and of consert, batches of 64 sentences")
    parser.add_argument("--encoder", default="bert_mini")
    parser.add_argument("--lr", type=float, help="of bert; the method's own when not given")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--vectors", type=Path, help="word vectors in word2vec's text format, or binary in .bin")
    parser.add_argument("--also", nargs="*", default=[], type=Path, help="runs or encoder folders")
    parser.add_argument("--simcse", type=json.loads, default={}, help='further settings, such as \'{"pool": "mean", "lr": 1e-3}\'')
    parser.add_argument("--consert", type=json.loads, default={}, help="further settings")
    parser.add_argument("--runs", type=Path, default=Path("sts-runs"))
    parser.add_argument("--out", type=Path, help="JSON")
    a = parser.parse_args()
    facts = common.setting()
    common.announce(facts)
    sets = read_sets(a.sts)
    results: dict[str, list[dict[str, Any]]] = {}

    def score(name: str, embed: Callable[[Sequence[str]], Tensor]) -> None:
        found = sts(embed, sets)
        results.setdefault(name, []).append(found)
        print(f"  {name}: {found['mean']:.4f}", flush=True)

    def named(settings: dict[str, Any]) -> str:
        return "".join(f", {key} {value}" for key, value in settings.items())

    if a.vectors:
        score(f"words of {a.vectors.name}, mean", of_words(a.vectors))
    for path in a.also:
        score(str(path), of_encoder(load(path)))
    for seed in range(a.seeds):
        print(f"seed {seed}", flush=True)
        lr = {"lr": a.lr} if a.lr else {}
        bert = run(a.text, "bert", a.runs / f"bert-{seed}", encoder=a.encoder, steps=a.steps, batch_size=64, seed=seed, **lr)
        done = read_json(bert / "status.json")["step"]
        score("untrained, mean", of_encoder(fresh(bert, seed)))
        score("untrained, first token", of_encoder(_first(fresh(bert, seed))))
        score(f"bert {done} steps, its table of tokens, mean", of_table(bert))
        score(f"bert {done} steps, mean", of_encoder(pooled(bert, "mean")))
        score(f"bert {done} steps, first token", of_encoder(pooled(bert, "class")))
        for method, settings in (("simcse", a.simcse), ("consert", a.consert)):
            folder = a.runs / f"{method}-{seed}{re.sub(r'[^a-z0-9.]+', '-', named(settings))}"
            made = run(a.text, method, folder, start=bert, steps=a.further, seed=seed, **settings)
            score(f"{method} {a.further} steps{named(settings)}", of_encoder(load(made)))
    rows = []
    for name, found in results.items():
        figures = {key: [f[key] for f in found] for key in ("mean", "alignment", "uniformity")}
        spread = {"sd": stdev(figures["mean"]) if len(found) > 1 else None}
        rows.append({"encoder": name, "STS": mean(figures["mean"]), **spread, **{k: mean(v) for k, v in list(figures.items())[1:]}})
    common.table(rows)
    pairs = next(iter(results.values()))[0]
    print(f"Spearman, mean of {len(sets)} sets, {pairs['pairs']} pairs; {a.seeds} seeds")
    if a.out:
        a.out.write_text(json.dumps({"setting": facts, "results": results}, indent=1))


def _first(trained: TrainedEncoder) -> TrainedEncoder:
    trained.network.set_pool("class")  # type: ignore[operator]
    return trained


if __name__ == "__main__":
    main()
