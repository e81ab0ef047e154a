"""Learning in context: a language model is told a task in words, shown a few examples, and names the class of a text by going on.

Brown et al., "Language Models are Few-Shot Learners", NeurIPS 2020. https://arxiv.org/abs/2005.14165, section 2 and appendix G;
calibration: Zhao et al. 2021, https://arxiv.org/abs/2102.09690. No weight is changed.

Axes: N test texts, C classes, k examples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.box import SIMPLE
from rich.table import Column, Table

from selfsup.abilities import Continues
from selfsup.data.text.labelled import Texts, open_labelled
from selfsup.data.text.tokenizer import Tokenizer
from selfsup.evaluation.few_label import Interval, interval
from selfsup.tasks.make.language import Part, log_likelihoods, open_language
from selfsup.tasks.pretraining.plan import choose_device
from selfsup.tasks.saved.trained_method import TrainedMethod

TEMPLATE = "{text} => {label}"
NOTHING = ("N/A", "[MASK]", "")  # texts without content (2102.09690, section 5)
AT_ONCE = 64  # test texts


@dataclass(frozen=True)
class InContext:
    """What a model makes of a task without training.

    Attributes:
        accuracy: by number of examples shown, a fraction of 1 over the seeds; one seed where no example is shown.
        predicted: by number of examples, (N,) class numbers of the first seed.
        classes: their names.
        about: the counts and settings, and "chance", the share of the most frequent class in the test texts.
    """

    accuracy: Mapping[int, Interval]
    predicted: Mapping[int, np.ndarray]
    classes: tuple[str, ...]
    about: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """All but the predictions."""
        return {**self.about, "classes": list(self.classes), "accuracy": {str(k): a._asdict() for k, a in self.accuracy.items()}}


@torch.no_grad()
def in_context(
    run: str | Path | TrainedMethod,
    train: Any,
    test: Any,
    *,
    shots: Sequence[int] = (0, 1, 4),
    describe: str = "",
    template: str = TEMPLATE,
    words: Mapping[str, str] | None = None,
    calibrate: bool = False,
    seeds: int = 5,
    limit: int | None = None,
    column: str | None = None,
    label: str | None = None,
    best: bool = False,
    device: str = "auto",
) -> InContext:
    """Accuracy of a language model that is shown k examples of a task in its input: zero-, one- and few-shot.

    The class of a text is the one whose word has the greatest mean log-probability per token after the prompt: the description, the
    examples, and the text in the template. Examples that do not fit the model's positions are left out, the first ones first, and counted.

    Args:
        run: a run of gpt, or what `load_method` gave.
        train: labelled texts from which examples are drawn, equally many of each class as far as k allows.
        test: labelled texts.
        shots: numbers k of examples.
        describe: the task in words, a paragraph before everything else.
        template: of one example, with {text} and {label}; the label must come last.
        words: what a class is called in the prompt; its own name when not given.
        calibrate: divide each class's probability by the one it gets for texts without content.
        seeds: draws of examples.
        limit: score so many of the test texts, drawn at random; all when not given.
        column, label: names of the columns, where the data has others than "text" or "sentence", and "label".
        best: the checkpoint with the best label-free measure instead of the last.
        device: auto, cpu, cuda or cuda:N.

    Raises:
        ValueError: the method is no language model, texts have no labels, or a setting is out of range.
    """
    if not template.endswith("{label}") or template.count("{text}") != 1 or template.count("{label}") != 1:
        raise ValueError(f'the template must have one {{text}} and end with {{label}}, as in "{TEMPLATE}"; got "{template}"')
    if min(shots, default=-1) < 0 or seeds < 1:
        raise ValueError(f"shots must be 0 or more, at least one of them, and seeds 1 or more; got {list(shots)} and {seeds}")
    trained, method, tokenizer = open_language(run, "learn in context", best=best)
    shown, asked = (_known(data, column, label) for data in (train, test))
    classes = tuple(sorted({name for _, name in shown}))
    strange = sorted({name for _, name in asked} - set(classes))
    if strange:
        raise ValueError(f'the test texts have a class "{strange[0]}" that the training texts lack; these have {", ".join(classes)}')
    if limit is not None and limit < len(asked):
        asked = [asked[i] for i in sorted(np.random.default_rng(0).permutation(len(asked))[:limit])]
    names = {name: (words or {}).get(name, name) for name in classes}
    truth = np.array([classes.index(name) for _, name in asked])
    where = choose_device(device)
    trained.method.to(where)
    asker = _Asker(method, tokenizer, trained.config["encoder"]["text"]["length"], [names[c] for c in classes], template, where)
    accuracy: dict[int, Interval] = {}
    predicted: dict[int, np.ndarray] = {}
    for k in shots:
        reached = []
        for seed in range(seeds if k else 1):
            examples = [asker.example(text, names[name]) for text, name in _draw(shown, classes, k, seed)]
            found = asker.answers(describe, examples, [text for text, _ in asked], calibrate=calibrate)
            predicted.setdefault(k, found)
            reached.append(float((found == truth).mean()))
        accuracy[k] = interval(reached) if len(reached) > 1 else Interval(reached[0], reached[0], reached[0])
    trained.method.cpu()
    about = {"test": len(asked), "train": len(shown), "seeds": seeds, "template": template, "describe": describe, "calibrated": calibrate}
    chance = float(np.bincount(truth).max() / len(truth))
    return InContext(accuracy, predicted, classes, {**about, "chance": chance, "examples_left_out": asker.left_out, "cut": asker.cut})


def _known(data: Any, column: str | None, label: str | None) -> list[tuple[str, str]]:
    """Texts whose class is known, with it."""
    texts = open_labelled(data, "classify", column=column, label=label)
    assert isinstance(texts, Texts)
    known = [(text, name) for text, name in zip(texts.first, texts.labels, strict=True) if name is not None]
    if not known:
        raise ValueError(f"{texts.source}: no text has a label; expected a text and its class in every row")
    return known


def _draw(shown: Sequence[tuple[str, str]], classes: Sequence[str], k: int, seed: int) -> list[tuple[str, str]]:
    """k examples in random order, the classes in turn."""
    rng = np.random.default_rng(seed)
    if k > len(shown):
        raise ValueError(f"{k} examples are to be shown, but there are {len(shown)} labelled texts")
    order = rng.permutation(len(shown)).tolist()
    of = {name: [i for i in order if shown[i][1] == name] for name in classes}
    turns: list[int] = []
    for place in range(k):  # of each class in turn, as long as it has some
        turns += [of[name][place] for name in rng.permutation(classes).tolist() if place < len(of[name])]
    return [shown[i] for i in rng.permutation(turns[:k]).tolist()]


class _Asker:
    """Prompts, and which of the classes' words follows them most likely."""

    def __init__(
        self, method: Continues, tokenizer: Tokenizer, length: int, words: Sequence[str], template: str, device: torch.device
    ) -> None:
        self.method, self.tokenizer, self.length, self.words, self.device = method, tokenizer, length, words, device
        self.template, self.left_out, self.cut = template, 0, 0

    def example(self, text: str, word: str) -> str:
        """One text and its class, as the prompt shows them."""
        return self.template.replace("{text}", " ".join(text.split())).replace("{label}", word)

    def answers(self, describe: str, examples: Sequence[str], texts: Sequence[str], *, calibrate: bool) -> np.ndarray:
        """(N,) numbers of the classes."""
        usual = np.zeros(len(self.words))
        if calibrate:
            scores = self.scores(describe, examples, NOTHING)
            p = np.exp(scores - scores.max(axis=1, keepdims=True))
            usual = np.log((p / p.sum(axis=1, keepdims=True)).mean(axis=0))
        found = [self.scores(describe, examples, texts[i : i + AT_ONCE]) - usual for i in range(0, len(texts), AT_ONCE)]
        return np.concatenate(found).argmax(axis=1)

    def scores(self, describe: str, examples: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        """(N, C) mean of log p of the tokens of each class's word."""
        parts = [self._part(describe, examples, text, word) for text in texts for word in self.words]
        sums = log_likelihoods(self.method, parts, self.device)
        return (sums / [len(part.ids) - part.first for part in parts]).reshape(len(texts), len(self.words))

    def _part(self, describe: str, examples: Sequence[str], text: str, word: str) -> Part:
        """The prompt and the word, whose tokens count; as many of the examples as there is room for."""
        question = self.example(text, "").rstrip()
        kept = list(examples)
        while True:
            prompt = "\n".join([*([describe] if describe else []), *kept, question])
            before, whole = self.tokenizer.encode([prompt, f"{prompt} {word}"])
            if len(whole) <= self.length or not kept:
                break
            kept = kept[1:]
            self.left_out += 1
        same = min(len(before), len(whole) - 1)  # a tokenizer may join the prompt's end with the word
        while same and not np.array_equal(before[:same], whole[:same]):
            same -= 1
        ids = np.concatenate([[self.method.end], whole])
        gone = max(len(ids) - (self.length + 1), 0)
        self.cut += bool(gone)
        return Part(ids[gone:], max(same + 1 - gone, 1))


def as_table(found: InContext) -> Table:
    """Accuracy by number of examples, for a terminal."""
    about = found.about
    caption = f"{about['test']} texts of {len(found.classes)} classes; the most frequent alone: {about['chance']:.1%}"
    if about["examples_left_out"]:
        caption += f"\n{about['examples_left_out']} times an example did not fit the model's positions and was left out"
    if about["cut"]:
        caption += f"\n{about['cut']} prompts were too long without any example, and lost their beginning"
    table = Table(Column("examples", justify="right"), Column("accuracy", justify="right"), box=SIMPLE, caption=caption)
    for k, reached in found.accuracy.items():
        spread = f" ± {100 * (reached.high - reached.low) / 2:.1f}" if k and about["seeds"] > 1 else ""
        table.add_row(str(k), f"{100 * reached.mean:.1f}{spread}")
    return table
