"""word2vec, selfsup against gensim: words/s of the training and what the vectors are worth, at equal settings.

    python benchmarks/word2vec_vs_gensim.py english.txt.gz --words words/ --threads 2 --out results/word2vec_vs_gensim.json
    python benchmarks/word2vec_vs_gensim.py english.txt.gz --words words/ --threads 1 --epochs 1 --rounds 1    # a look

The data is plain text, a sentence a line. WORDS is a folder with EN-WS-353-ALL.txt, EN-MEN-TR-3k.txt, EN-SIMLEX-999.txt and
questions-words.txt, those of them that are there. Both sides have negative sampling, the vocabulary of the same words, and read the text
before the clock starts, gensim as lists of words in memory, selfsup from its cache. The clock covers all epochs: of gensim its `train`, of
selfsup engine.loop.fit with loader, metrics and the last checkpoint; the kernel's compilation comes before it, as it is kept for the next
run. Words are counted as they stand in the text, rare and frequent ones too. Every measurement is a process of its own; they alternate
(A B, B A ...), each round with another seed. One evaluation, selfsup's, for both; gensim's own figures stand beside it, and vectors go from
each to the other through both file formats, which must give the same bits.
"""

import argparse
import gzip
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from common import HERE, announce, interleaved, median, now, run_child, setting, table, write_json

from selfsup.data.text.vector_files import WordVectors, read_word_vectors, write_word_vectors
from selfsup.evaluation.word_scores import score_analogies, score_similarity
from selfsup.method import Batch

CONTENDERS = ("gensim", "selfsup")
PAIRS = {"WordSim-353": "EN-WS-353-ALL.txt", "MEN": "EN-MEN-TR-3k.txt", "SimLex": "EN-SIMLEX-999.txt"}
GIVEN = ("threads", "epochs", "width", "window", "negatives", "min_count", "sample", "lr")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="text, a sentence a line; .gz too")
    parser.add_argument("--words", type=Path, required=True, help="folder with the judgements")
    parser.add_argument("--models", nargs="+", choices=("skip_gram", "cbow"), default=["skip_gram", "cbow"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=100)
    parser.add_argument("--window", type=int, default=5)
    parser.add_argument("--negatives", type=int, default=5)
    parser.add_argument("--min-count", type=int, default=5)
    parser.add_argument("--sample", type=float, default=1e-3)
    parser.add_argument("--lr", type=float, default=0.025)
    parser.add_argument("--out", type=Path, help="JSON")
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)  # one measurement, in a process of its own
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments)))
    else:
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    facts, results = setting(), []
    announce(facts)
    given = [f"--{name.replace('_', '-')}={getattr(arguments, name)}" for name in GIVEN]
    for model in arguments.models:
        for i, name in interleaved(CONTENDERS, arguments.rounds):
            one = [f"--only={name}", f"--seed={i + 1}", f"--models={model}", f"--words={arguments.words}", *given]
            threads = {"OMP_NUM_THREADS": str(arguments.threads)}
            out, _ = run_child([str(HERE / "word2vec_vs_gensim.py"), str(arguments.data), *one], every=0.5, **threads)
            results.append({"round": i, "model": model, "contender": name, **json.loads(out.splitlines()[-1])})
            print({key: round(value, 4) if isinstance(value, float) else value for key, value in results[-1].items()}, flush=True)
    rows = [summary(model, name, results) for model in arguments.models for name in CONTENDERS]
    print(f"\nword2vec, {arguments.threads} threads, {arguments.epochs} epochs; medians of {arguments.rounds} rounds, ratios of the rounds")
    table(rows)
    write_json(arguments.out, {**facts, "options": vars(arguments), "summary": rows, "rounds": results})


def summary(model: str, name: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    mine = [r for r in results if (r["model"], r["contender"]) == (model, name)]
    theirs = {r["round"]: r for r in results if (r["model"], r["contender"]) == (model, "gensim")}
    rates = [r["words_per_second"] for r in mine]
    row = {"model": model, "contender": name, "words/s": median(rates), "least": min(rates), "most": max(rates)}
    for key, title in (("words_per_second", "/ gensim"), ("words_per_core_second", "/ gensim, core time")):
        row[title] = median(r[key] / theirs[r["round"]][key] for r in mine)
    scores = [key for key in (*PAIRS, "analogies") if key in mine[0]]
    return {**row, **{key: median(r[key] for r in mine) for key in scores}}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    with gzip.open(arguments.data, "rt") if arguments.data.suffix == ".gz" else arguments.data.open() as file:
        sentences = [words for words in map(str.split, file) if words]
    total = arguments.epochs * sum(map(len, sentences))
    with TemporaryDirectory(prefix="selfsup-benchmark-") as folder:
        one = train_gensim(arguments, sentences) if arguments.only == "gensim" else train_selfsup(arguments, Path(folder))
        found, wall, cores = one
        figures = {"words_per_second": total / wall, "words_per_core_second": total / cores, "vocabulary": len(found.words)}
        return {**figures, **scores(found, arguments.words), **beside_gensim(found, arguments.words, Path(folder))}


def scores(found: WordVectors, folder: Path) -> dict[str, float]:
    made = {name: score_similarity(found, folder / file).spearman for name, file in PAIRS.items() if (folder / file).exists()}
    questions = folder / "questions-words.txt"
    return {**made, **({"analogies": score_analogies(found, questions, most_words=30_000).accuracy} if questions.exists() else {})}


def beside_gensim(found: WordVectors, folder: Path, scratch: Path) -> dict[str, Any]:
    """gensim's own figures for these vectors, which it reads from selfsup's files and writes to its own."""
    from gensim.models import KeyedVectors

    logging.disable(logging.WARNING)
    same = True
    for binary in (False, True):
        write_word_vectors(scratch / "selfsup", found, binary=binary)
        theirs = KeyedVectors.load_word2vec_format(str(scratch / "selfsup"), binary=binary)
        theirs.save_word2vec_format(str(scratch / "gensim"), binary=binary)
        again = read_word_vectors(scratch / "gensim")
        bits = [x.view(np.uint32) for x in (found.vectors, theirs.vectors, again.vectors)]
        same &= theirs.index_to_key == list(found.words) == list(again.words) and all(np.array_equal(bits[0], b) for b in bits[1:])
    own = {
        f"gensim's {name}": float(theirs.evaluate_word_pairs(str(folder / file))[1][0])
        for name, file in PAIRS.items()
        if (folder / file).exists()
    }
    questions = folder / "questions-words.txt"
    if questions.exists():
        own["gensim's analogies"] = float(theirs.evaluate_word_analogies(str(questions), restrict_vocab=30_000)[0])
    return {**own, "same bits": bool(same)}


def train_gensim(arguments: argparse.Namespace, sentences: list[list[str]]) -> tuple[WordVectors, float, float]:
    from gensim.models import Word2Vec

    model = Word2Vec(
        vector_size=arguments.width,
        window=arguments.window,
        negative=arguments.negatives,
        min_count=arguments.min_count,
        sample=arguments.sample,
        alpha=arguments.lr,
        workers=arguments.threads,
        sg=int(arguments.models == ["skip_gram"]),
        seed=arguments.seed,
    )
    model.build_vocab(sentences)
    begin = now()
    model.train(sentences, total_examples=len(sentences), epochs=arguments.epochs)
    wall, cores = (b - a for a, b in zip(begin, now(), strict=True))
    return WordVectors(model.wv.index_to_key, model.wv.vectors), wall, cores


def train_selfsup(arguments: argparse.Namespace, folder: Path) -> tuple[WordVectors, float, float]:
    from dataclasses import replace

    from selfsup.data import Loader
    from selfsup.data.text.texts import open_text
    from selfsup.engine.loop import Training, fit
    from selfsup.methods.word2vec import Word2Vec
    from selfsup.models import build_encoder

    r = Word2Vec.recipe
    words = {"tokenizer": r.tokenizer, "vocabulary_size": r.vocabulary_size, "min_count": arguments.min_count}
    items = open_text(arguments.data, layout="lines", length=r.sequence_length, **words)
    t = items.tokenizer
    assert t is not None
    torch.manual_seed(arguments.seed)
    text = {"length": r.sequence_length, "pad": t.pad, "start": t.start, "end": t.end}

    def method(threads: int) -> Word2Vec:
        encoder = build_encoder(f"words_{arguments.width}", channels=t.size, image_size=0, text=text)
        counts = torch.from_numpy(items.store.counts(t.size))
        options = {"window": arguments.window, "negatives": arguments.negatives, "sample": arguments.sample}
        return Word2Vec(encoder, vocabulary=t.vocabulary, counts=counts, model=arguments.models[0], threads=threads, **options)

    training = Training(
        replace(r, lr=arguments.lr), r.batch_size, steps=arguments.epochs * (len(items) // r.batch_size), seed=arguments.seed
    )

    def batches(step: int) -> Iterator[Batch]:
        return iter(Loader(items, r.batch_size, seed=arguments.seed, start_step=step))

    first = method(1)
    next(first.updates(first.views(next(batches(0)), torch.Generator())))  # compiles, or loads what was compiled before
    learner, run = method(arguments.threads), folder / "run"
    run.mkdir()
    begin = now()
    fit(learner, training, run, batches=batches, device=torch.device("cpu"))
    wall, cores = (b - a for a, b in zip(begin, now(), strict=True))
    known = learner.table.known.nonzero()[:, 0]
    return WordVectors(t.tokens(known.tolist()), learner.table.vectors.detach()[known].numpy()), wall, cores


if __name__ == "__main__":
    main()
