"""What the page claims about accuracy follows from the intervals, and from nothing else."""

from pathlib import Path
from typing import Any

from selfsup.report.accuracy import accuracy
from selfsup.report.run_contents import Run


def run_with(**rows: dict[int, tuple[float, float, float]] | float) -> Run:
    """A run whose evaluation has these rows: labels per class -> (mean, low, high), or a kNN accuracy."""
    evaluation: dict[str, Any] = {}
    for name, row in rows.items():
        if isinstance(row, dict):
            evaluation[name] = {"few_label": {str(n): dict(zip(("mean", "low", "high"), values, strict=True)) for n, values in row.items()}}
        else:
            evaluation[name] = {"knn_top1": row}
    return Run(Path("/run"), {}, [], {}, None, evaluation, None, None, None, {})


def verdict(**rows: Any) -> str:
    found = accuracy(run_with(**rows))
    assert found is not None
    return " ".join(found["verdict"])


def test_above_is_said_only_of_intervals_that_do_not_touch() -> None:
    apart = verdict(encoder={10: (0.90, 0.88, 0.92)}, untrained={10: (0.80, 0.78, 0.8799)})
    assert apart == "With 10 labels per class, this encoder reaches 90.0 %. That is 10.0 points above the untrained network."
    touching = verdict(encoder={10: (0.90, 0.88, 0.92)}, untrained={10: (0.80, 0.78, 0.88)})
    assert "above" not in touching
    assert "The intervals overlap with those of the untrained network: no difference was shown." in touching


def test_a_loss_is_said_as_plainly_as_a_win() -> None:
    text = verdict(encoder={10: (0.50, 0.49, 0.51)}, pixels_pca={10: (0.70, 0.69, 0.71)}, scratch={10: (0.40, 0.39, 0.41)})
    assert "20.0 points below raw pixels with PCA" in text
    assert "10.0 points above the same network trained from scratch" in text


def test_other_counts_that_disagree_are_named() -> None:
    own = {1: (0.5, 0.49, 0.51), 10: (0.9, 0.89, 0.91), 100: (0.95, 0.94, 0.96), 500: (0.96, 0.955, 0.965)}
    scratch = {1: (0.3, 0.29, 0.31), 10: (0.8, 0.79, 0.81), 100: (0.98, 0.97, 0.99), 500: (0.99, 0.98, 1.0)}
    text = verdict(encoder=own, scratch=scratch)
    assert "With 100 and 500 labels per class it is below the same network trained from scratch" in text
    assert "at every number of labels" not in text
    assert "at every number of labels" in verdict(encoder={1: own[1], 10: own[10]}, scratch=scratch)
    level = {1: own[1], 10: scratch[10]}
    assert "at every number of labels" not in verdict(encoder={1: own[1], 10: own[10]}, scratch=level)


def test_the_headline_is_about_the_count_nearest_to_ten() -> None:
    row = (0.5, 0.4, 0.6)
    assert "With 20 labels per class" in verdict(encoder={1: row, 20: row, 100: row})
    assert "With 1 label per class" in verdict(encoder={1: row})
    assert "nothing to compare it with" in verdict(encoder={1: row})


def test_without_few_labels_the_other_measures_speak() -> None:
    assert "With all labels this encoder reaches 54.1 % (kNN)." in verdict(encoder=0.541, pixels_pca=0.40)
    assert "encoder itself was not measured" in verdict(pixels_pca={10: (0.5, 0.4, 0.6)})
    assert accuracy(run_with()) is None
    assert accuracy(run_with(encoder={})) is None


def test_the_best_of_every_column_is_marked_once() -> None:
    found = accuracy(run_with(encoder={1: (0.5, 0.4, 0.6), 10: (0.6, 0.5, 0.7)}, scratch={1: (0.4, 0.3, 0.5), 10: (0.8, 0.7, 0.9)}))
    assert found is not None
    cells = {row["key"]: row["cells"] for row in found["rows"]}
    assert [cell["best"] for cell in cells["encoder"]] == [True, False]
    assert [cell["best"] for cell in cells["scratch"]] == [False, True]
    assert [cell["text"] for cell in cells["pixels_pca"]] == ["–", "–"]
    assert cells["scratch"][1]["interval"] == "70.0–90.0"
