"""Commands that ask a model of text something. Results go to stdout, progress and errors to stderr."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.console import Console


def perplexity(
    run: Path,
    data: str,
    /,
    *,
    stride: int | None = None,
    column: str = "text",
    best: bool = False,
    device: str = "auto",
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """How well a language model, such as a run of gpt, predicts text: perplexity, and bits per byte.

    Args:
        run: a run's folder.
        data: text that it has not seen, as pretrain takes it.
        stride: tokens by which windows move over long documents, 1 to the model's positions; fewer see more of what went before. Half of
            the positions when not given.
        column: of JSON and parquet.
        best: the best checkpoint by the label-free measure instead of the last.
        device: auto, cpu, cuda or cuda:N.
        json_: print one JSON object.
    """
    from selfsup.tasks.make.language import perplexity as measure

    found = measure(run, data, stride=stride, column=column, best=best, device=device)
    if json_:
        print(json.dumps(found.as_json()))
        return
    print(f"perplexity {found.perplexity:.2f} a token, {found.bits_per_byte:.3f} bits a byte")
    print(f"{found.documents:,} documents, {found.tokens:,} tokens, {found.bytes:,} bytes")
    if found.unknown:
        print(f"{found.unknown:,} tokens stand for what the vocabulary lacks: both numbers are too good")


def few_shot(
    run: Path,
    /,
    *,
    train: str,
    test: str,
    shots: str = "0,1,4",
    describe: str = "",
    template: str = "{text} => {label}",
    words: str = "",
    calibrate: bool = False,
    seeds: int = 5,
    limit: int | None = None,
    column: str | None = None,
    label: str | None = None,
    best: bool = False,
    device: str = "auto",
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Let a language model classify texts in context: told the task in words and shown a few examples, without training.

    Args:
        run: a run of gpt.
        train: labelled texts from which examples are drawn.
        test: labelled texts.
        shots: numbers of examples to show, with commas.
        describe: the task in words, before everything else.
        template: of one example, with {text} and {label}; the label must come last.
        words: what classes are called in the prompt, as 0=bad,1=good; their own names when not given.
        calibrate: divide each class's probability by the one it gets for texts without content.
        seeds: draws of examples.
        limit: score so many of the test texts; all when not given.
        column: with the text, where it is not called text or sentence.
        label: column with the class, where it is not called label.
        best: the best checkpoint by the label-free measure instead of the last.
        device: auto, cpu, cuda or cuda:N.
        json_: print one JSON object.
    """
    from selfsup.tasks.labels.few_shot import as_table, in_context

    called = dict(_pair(word, "--words", "0=bad,1=good") for word in words.split(",") if word)
    rest: dict[str, Any] = {"describe": describe, "template": template, "words": called, "calibrate": calibrate, "seeds": seeds}
    rest |= {"limit": limit, "column": column, "label": label, "best": best, "device": device}
    found = in_context(run, train, test, shots=_numbers(shots, "--shots", int), **rest)
    if json_:
        print(json.dumps(found.as_json()))
    else:
        Console().print(as_table(found))


def words(
    encoder: Path,
    /,
    *,
    analogies: str | None = None,
    similarity: str | None = None,
    best: bool = False,
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """What vectors of words are worth: analogies answered, and agreement with people's judgement of similarity.

    Args:
        encoder: a run of word2vec, or an encoder folder with a table of words.
        analogies: a file of questions, four words a line and sections that begin with a colon.
        similarity: files of judged pairs, with commas: two words and a number a line.
        best: of a run, the best checkpoint by the label-free measure instead of the last.
        json_: print one JSON object.
    """
    from rich.box import SIMPLE
    from rich.table import Column, Table

    from selfsup.evaluation.word_scores import score_analogies, score_similarity
    from selfsup.tasks.exchange.word_vectors import word_vectors
    from selfsup.tasks.saved.trained_encoder import load

    if analogies is None and similarity is None:
        raise ValueError("say what to score by: --analogies FILE, --similarity FILE,FILE")
    found = word_vectors(load(encoder, best=best))
    table = Table("", Column("score", justify="right"), Column("of", justify="right"), Column("unknown", justify="right"), box=SIMPLE)
    result: dict[str, Any] = {"words": len(found.words)}
    if analogies is not None:
        scored = score_analogies(found, analogies)
        for section, (right, asked) in scored.sections.items():
            table.add_row(section, f"{100 * right / max(asked, 1):.1f} %" if asked else "", f"{asked:,}", "")
        table.add_row("all analogies", f"{100 * scored.accuracy:.1f} %", f"{scored.asked:,}", f"{scored.unknown:,}", end_section=True)
        result["analogies"] = {"accuracy": scored.accuracy, "asked": scored.asked, "unknown": scored.unknown, "sections": scored.sections}
    for path in (similarity or "").split(","):
        if path:
            alike = score_similarity(found, path)
            table.add_row(f"{Path(path).stem}, Spearman", f"{alike.spearman:.3f}", f"{alike.pairs:,}", f"{alike.unknown:,}")
            result.setdefault("similarity", {})[Path(path).name] = vars(alike)
    if json_:
        print(json.dumps(result))
    else:
        Console().print(table)


def sts(encoder: Path, data: str, /, *, best: bool = False, json_: Annotated[bool, Parameter(name="--json", negative=())] = False) -> None:
    """What vectors of sentences are worth: agreement with people's judgement of pairs, alignment and uniformity.

    Args:
        encoder: a run or an encoder folder of text.
        data: a .tsv with SCORE TAB SENTENCE TAB SENTENCE in every line, scores from 0 to 5, or a folder of them.
        best: of a run, the best checkpoint by the label-free measure instead of the last.
        json_: print one JSON object.
    """
    import torch
    from rich.box import SIMPLE
    from rich.table import Column, Table

    from selfsup.evaluation.sts import read_sets
    from selfsup.evaluation.sts import sts as score
    from selfsup.tasks.saved.trained_encoder import load

    trained = load(encoder, best=best)
    if trained.tokenizer is None:
        raise ValueError(f"{encoder}: expected an encoder of text")
    sets = read_sets(data)
    found = score(lambda sentences: torch.from_numpy(trained.embed(list(sentences))), sets)
    if json_:
        print(json.dumps(found))
        return
    table = Table("set", Column("pairs", justify="right"), Column("Spearman", justify="right"), box=SIMPLE)
    for one in sets:
        table.add_row(one.name, f"{len(one.scores):,}", f"{100 * found['sets'][one.name]:.1f}")
    table.add_row("mean", "", f"{100 * found['mean']:.1f}")
    table.caption = f"alignment {found['alignment']:.3f}, uniformity {found['uniformity']:.3f}"
    Console().print(table)


analyse = App(
    name="analyse", help="Look into the layers of a text encoder: selfsup analyse contextual, or languages.", result_action="return_value"
)


@analyse.command
def contextual(
    encoder: Path,
    sentences: str,
    /,
    *,
    word: str,
    layer: int | None = None,
    out: Path | None = None,
    best: bool = False,
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """How alike one word's vectors are in several sentences.

    Args:
        encoder: a run or an encoder folder of text.
        sentences: a file with one a line.
        word: as it is written, capitals aside.
        layer: 0 for the embeddings, before any context, up to the last one, which it is when not given.
        out: matrix.svg, a picture of it.
        best: of a run, the best checkpoint by the label-free measure instead of the last.
        json_: print one JSON object.
    """
    from selfsup.engine.checkpoint import replace_file
    from selfsup.tasks.looking import analyse as task

    if out is not None and out.suffix != ".svg":
        raise ValueError(f"{out}: expected a name that ends in .svg")
    found = task.contextual(encoder, word, sentences, layer=layer, best=best)
    if out is not None:
        replace_file(out, task.contextual_picture(found).encode())
    if json_:
        print(json.dumps({**vars(found), "similarity": found.similarity.tolist()}))
    else:
        Console().print(task.contextual_table(found))


@analyse.command
def languages(
    run: Path,
    /,
    *,
    source: str,
    target: str,
    layer: int | None = None,
    alphas: str = "0,0.5,1,2,3",
    shown: int = 3,
    best: bool = False,
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Add the difference between two languages to a layer, and see which language a model of both reads then.

    Args:
        run: a run of bert on texts in both languages.
        source: file with texts of one language, one a line.
        target: the same of the other; where both have equally many lines, they are taken for translations.
        layer: 0 for the embeddings up to the last one; the middle when not given.
        alphas: factors of the difference, with commas.
        shown: texts whose reading is given in full.
        best: the best checkpoint by the label-free measure instead of the last.
        json_: print one JSON object.
    """
    from selfsup.tasks.looking import analyse as task

    found = task.language_difference(run, source, target, layer=layer, alphas=_numbers(alphas, "--alphas", float), shown=shown, best=best)
    if json_:
        print(json.dumps([vars(row) for row in found], ensure_ascii=False))
    else:
        Console().print(task.shifted_table(found))


def _pair(text: str, option: str, example: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found:
        raise ValueError(f'{option} takes NAME=WORD with commas, as {example}; got "{text}"')
    return name.strip(), value.strip()


def _numbers(text: str, option: str, kind: Callable[[str], Any]) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError(f'{option} takes numbers with commas, got "{text}"') from None


VERBS = (words, sts, perplexity, few_shot, analyse)
