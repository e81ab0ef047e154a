"""What two processes exchange is right, and leaves what others hold as it was."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from selfsup.distributed import agree, alone, average, average_gradients, gather, is_parallel, rank, sum_over_processes


def one_of_two(number: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=number, world_size=2)
    found: dict[str, Any] = {}
    a, b = torch.ones(4, requires_grad=True), torch.ones(8, requires_grad=True)
    arriving = torch.ones(8)
    (b * 1.0 + gather(a)).backward(arriving)
    found["gather"] = [a.grad, b.grad, arriving]
    x = torch.full((2,), float(number))
    found["inputs"] = [average(x), sum_over_processes(x), x, gather(torch.arange(4.0).view(2, 2).T * (number + 1))]
    both, one, nobody = (nn.Parameter(torch.ones(2)) for _ in range(3))
    both.grad = torch.full((2,), float(number + 1))
    if number == 1:
        one.grad = torch.full((2,), 4.0)
    average_gradients([both, one, nobody])
    found["gradients"] = [both.grad, one.grad, nobody.grad]
    found["agree"] = agree(15 if number == 1 else 0, 10.0 + number)
    with alone():
        with alone():
            pass
        found["alone"] = (is_parallel(), rank())
    twice = torch.ones(2, requires_grad=True)
    [first] = torch.autograd.grad(gather(twice).pow(3).sum(), twice, create_graph=True)
    try:
        first.sum().backward()
        found["second derivative"] = "computed"
    except RuntimeError as error:
        found["second derivative"] = str(error)
    dist.destroy_process_group()
    torch.save(found, folder / f"{number}.pt")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("two")
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from pathlib import Path; import test_distributed as t; "
    runs = [subprocess.Popen([sys.executable, "-c", code + f"t.one_of_two({i}, Path({str(folder)!r}))"]) for i in range(2)]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    return [torch.load(folder / f"{number}.pt") for number in range(2)]


def test_a_gathered_row_gets_the_gradients_of_all_and_what_arrives_is_left_alone(found: list[dict[str, Any]]) -> None:
    for each in found:
        to_a, to_b, arrived = each["gather"]
        assert to_a.tolist() == [2.0] * 4
        assert to_b.tolist() == [1.0] * 8
        assert arrived.tolist() == [1.0] * 8


def test_what_is_exchanged_stays_as_it_was(found: list[dict[str, Any]]) -> None:
    for number, each in enumerate(found):
        mean, total, x, gathered = each["inputs"]
        assert (mean.tolist(), total.tolist(), x.tolist()) == ([0.5] * 2, [1.0] * 2, [float(number)] * 2)
        assert gathered.tolist() == [[0.0, 2.0], [1.0, 3.0], [0.0, 4.0], [2.0, 6.0]]  # a transposed view, row by row


def test_gradients_are_means_and_a_weight_that_nobody_used_has_none(found: list[dict[str, Any]]) -> None:
    """An optimiser would else decay it, which it does not on one process."""
    for each in found:
        both, one, nobody = each["gradients"]
        assert both.tolist() == [1.5] * 2
        assert one.tolist() == [2.0] * 2
        assert nobody is None


def test_a_signal_to_one_stops_both_by_the_clock_of_the_first(found: list[dict[str, Any]]) -> None:
    assert [each["agree"] for each in found] == [(15, 10.0)] * 2
    assert [each["alone"] for each in found] == [(False, 0)] * 2


def test_a_second_derivative_is_refused_and_not_wrong(found: list[dict[str, Any]]) -> None:
    assert all("once_differentiable" in each["second derivative"] for each in found)
