"""Commands that ask a model of text something. Results go to stdout, progress and errors to stderr."""

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
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
    from selfsup.tasks.language import perplexity as measure

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
    from selfsup.tasks.in_context import as_table, in_context

    called = dict(_pair(word, "--words", "0=bad,1=good") for word in words.split(",") if word)
    rest: dict[str, Any] = {"describe": describe, "template": template, "words": called, "calibrate": calibrate, "seeds": seeds}
    rest |= {"limit": limit, "column": column, "label": label, "best": best, "device": device}
    found = in_context(run, train, test, shots=_numbers(shots, "--shots"), **rest)
    if json_:
        print(json.dumps(found.as_json()))
    else:
        Console().print(as_table(found))


def _pair(text: str, option: str, example: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found:
        raise ValueError(f'{option} takes NAME=WORD with commas, as {example}; got "{text}"')
    return name.strip(), value.strip()


def _numbers(text: str, option: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError(f'{option} takes whole numbers with commas, got "{text}"') from None


VERBS = (perplexity, few_shot)
