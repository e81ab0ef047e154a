"""The contrastive losses against their papers' equations, written with loops; tiles and processes change nothing."""

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.distributed import average, average_gradients
from selfsup.losses import info_nce, log_partition, mutual_information, nce, nce_posterior, nt_xent, poly_view, supcon

EXACT = {"rtol": 1e-9, "atol": 1e-12}


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gradients(loss: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, leaves)


# --- the equations -------------------------------------------------------------------------------------------------------------------


def test_nce_is_the_example_of_the_notes() -> None:
    """The data say "好" after "你" with 0.8, the noise with 0.1, and there are 9 of the noise for one of the data."""
    posterior = nce_posterior(torch.tensor(0.8).log(), torch.tensor(0.1).log(), 9)
    torch.testing.assert_close(posterior, torch.tensor(8 / 17))
    torch.testing.assert_close(1 - posterior, torch.tensor(9 / 17))


def test_nce_is_its_equation() -> None:
    data, noise = 0.3 * randn(4), 0.3 * randn(4, 5, seed=1)
    data_chance, noise_chance = -randn(4, seed=2).square(), -randn(4, 5, seed=3).square()

    def posterior(model: Tensor, chance: Tensor) -> float:
        return math.exp(model) / (math.exp(model) + 5 * math.exp(chance))

    naive = 0.0
    for i in range(4):
        naive -= math.log(posterior(data[i], data_chance[i]))
        naive -= sum(math.log(1 - posterior(noise[i, j], noise_chance[i, j])) for j in range(5))
    torch.testing.assert_close(nce(data, noise, data_chance, noise_chance), torch.tensor(naive / 4, dtype=torch.float64), **EXACT)


def test_nce_learns_a_distribution_that_need_not_be_normalised() -> None:
    """Six words of known frequency against uniform noise: scores become log p by themselves, their sum included (the paper's section 2)."""
    p = torch.tensor([0.4, 0.25, 0.15, 0.1, 0.07, 0.03])
    scores = torch.zeros(6, requires_grad=True)
    optimizer, g = torch.optim.Adam([scores], lr=0.02), torch.Generator().manual_seed(0)
    uniform = torch.full((6,), 1 / 6)
    for _ in range(600):
        true = p.multinomial(512, replacement=True, generator=g)
        noise = uniform.multinomial(512 * 8, replacement=True, generator=g).view(512, 8)
        loss = nce(scores[true], scores[noise], uniform.log()[true], uniform.log()[noise])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(scores.detach().exp(), p, rtol=0.1, atol=0.01)


def naive_info_nce(queries: Tensor, candidates: list[Tensor], positive: list[int], temperature: float) -> float:
    total = 0.0
    for i, query in enumerate(queries):
        scores = [math.exp(float(query @ key) / temperature) for key in candidates[i]]
        total -= math.log(scores[positive[i]] / sum(scores))
    return total / len(queries)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_info_nce_is_its_equation(temperature: float) -> None:
    q, k, negatives = 0.5 * randn(5, 4), 0.5 * randn(5, 4, seed=1), 0.5 * randn(7, 4, seed=2)
    naive = naive_info_nce(q, [k] * 5, list(range(5)), temperature)
    torch.testing.assert_close(info_nce(q, k, temperature), torch.tensor(naive, dtype=torch.float64), **EXACT)
    naive = naive_info_nce(q, [torch.cat([k[i : i + 1], negatives]) for i in range(5)], [0] * 5, temperature)
    torch.testing.assert_close(info_nce(q, k, temperature, negatives), torch.tensor(naive, dtype=torch.float64), **EXACT)


def naive_supcon(z: Tensor, group: list[int], temperature: float) -> float:
    """Equation 2, L_out, as it is printed."""
    z, total = F.normalize(z, dim=1), 0.0
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        partners = [p for p in others if group[p] == group[i]]
        bottom = sum(math.exp(float(z[i] @ z[a]) / temperature) for a in others)
        total -= sum(math.log(math.exp(float(z[i] @ z[p]) / temperature) / bottom) for p in partners) / len(partners)
    return total / len(z)


@pytest.mark.parametrize(("images", "temperature"), [(2, 0.1), (3, 0.5), (7, 1.0)])
def test_nt_xent_is_its_equation(images: int, temperature: float) -> None:
    first, second = randn(2, images, 5)
    naive = naive_supcon(torch.cat([first, second]), list(range(images)) * 2, temperature)  # one partner each: SimCLR's equation 1
    torch.testing.assert_close(nt_xent(first, second, temperature), torch.tensor(naive, dtype=torch.float64), **EXACT)


def naive_poly_view(z: Tensor, temperature: float) -> float:
    """Every ordered pair of views of an image against the views of all other images."""
    z, total, pairs = F.normalize(z, dim=2), 0.0, 0
    views, images, _ = z.shape
    for b in range(images):
        for v in range(views):
            others = [z[w, c] for w in range(views) for c in range(images) if c != b]
            noise = sum(math.exp(float(z[v, b] @ other) / temperature) for other in others)
            for w in set(range(views)) - {v}:
                signal = math.exp(float(z[v, b] @ z[w, b]) / temperature)
                total -= math.log(signal / (signal + noise))
                pairs += 1
    return total / pairs


@pytest.mark.parametrize(("views", "images", "temperature"), [(2, 3, 0.5), (3, 2, 0.2), (5, 4, 1.0)])
def test_poly_view_is_its_equation(views: int, images: int, temperature: float) -> None:
    z = randn(views, images, 5)
    naive = torch.tensor(naive_poly_view(z, temperature), dtype=torch.float64)
    torch.testing.assert_close(poly_view(z, temperature), naive, **EXACT)
    torch.testing.assert_close(poly_view(z.flip(0)[:, torch.randperm(images)], temperature), naive, **EXACT)


@pytest.mark.parametrize("group", [[0, 1, 0, 1, 0], [7, 7, 7, 7], [3, -5, -5, 3, 9, 9, 9]])
def test_supcon_is_its_equation(group: list[int]) -> None:
    z = randn(len(group), 6)
    naive = naive_supcon(z, group, 0.3)
    torch.testing.assert_close(supcon(z, torch.tensor(group), 0.3), torch.tensor(naive, dtype=torch.float64), **EXACT)


def test_equal_embeddings_give_the_logarithm_of_the_number_of_candidates() -> None:
    same = F.normalize(torch.ones(6, 4), dim=1)
    for loss, candidates in [
        (info_nce(same, same, 0.2), 6),
        (info_nce(same, same, 0.2, same[:1].expand(9, 4)), 10),
        (nt_xent(same, same, 0.5), 11),
        (supcon(same, torch.tensor([0, 0, 0, 1, 1, 1]), 0.5), 5),
        (poly_view(torch.stack([same, same, same]), 0.5), 3 * 5 + 1),
    ]:
        torch.testing.assert_close(loss, torch.tensor(math.log(candidates)))
        torch.testing.assert_close(mutual_information(loss, candidates), torch.tensor(0.0), atol=1e-6, rtol=0.0)


def test_the_bound_stays_below_the_mutual_information() -> None:
    """Gaussian pairs of known correlation: I = -log(1 - rho^2) / 2 a dimension; the best critic is their log density ratio."""
    rho, d, n = 0.8, 4, 512
    x = randn(n, d)
    y = rho * x + math.sqrt(1 - rho**2) * randn(n, d, seed=1)
    # log p(y|x) / p(y) = (2 rho x.y - rho^2 (x^2 + y^2)) / (2 (1 - rho^2)), written as an inner product
    ones, s = torch.ones(n, 1, dtype=torch.float64), 2 * (1 - rho**2)
    queries = torch.cat([2 * rho * x, -(rho**2) * x.square().sum(1, keepdim=True), ones], dim=1) / s
    keys = torch.cat([y, ones, -(rho**2) * y.square().sum(1, keepdim=True)], dim=1)
    true = -0.5 * d * math.log(1 - rho**2)
    bound = float(mutual_information(info_nce(queries, keys, 1.0), n))
    assert true - 0.25 < bound < true


def test_lengths_and_order_and_side_do_not_matter_to_cosine_losses() -> None:
    first, second = randn(2, 6, 4)
    loss, order = nt_xent(first, second, 0.2), torch.randperm(6)
    for a, b in [(second, first), (3 * first, second), (first[order], second[order])]:
        torch.testing.assert_close(nt_xent(a, b, 0.2), loss, **EXACT)
    z, group = randn(6, 4), torch.tensor([0, 0, 1, 1, 1, 0])
    torch.testing.assert_close(supcon(5 * z[order], group[order], 0.2), supcon(z, group, 0.2), **EXACT)


def test_supcon_of_two_views_without_labels_is_nt_xent() -> None:
    first, second = randn(2, 5, 3)
    loss = supcon(torch.cat([first, second]), torch.arange(5).repeat(2), 0.2)
    torch.testing.assert_close(loss, nt_xent(first, second, 0.2), **EXACT)


def test_gradients_are_those_of_the_values_for_every_input() -> None:
    """By finite differences; the values are those of the equations, which stand above."""
    q, k, negatives = (randn(n, 3, seed=seed).requires_grad_() for seed, n in enumerate((4, 4, 5)))
    group = torch.tensor([0, 1, 0, 1])
    chances = (-randn(4, seed=2).square()).requires_grad_(), (-randn(4, 3, seed=3).square()).requires_grad_()
    cases: list[tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = [
        (lambda a, b: info_nce(a, b, 0.5), (q, k)),
        (lambda a, b, c: info_nce(a, b, 0.5, c), (q, k, negatives)),
        (lambda a, b: nt_xent(a, b, 0.5), (q, k)),
        (lambda a: poly_view(a, 0.5), (randn(3, 2, 4).requires_grad_(),)),
        (lambda a: supcon(a, group, 0.5), (q,)),
        (nce, (randn(4).requires_grad_(), randn(4, 3, seed=1).requires_grad_(), *chances)),
    ]
    for loss, inputs in cases:
        assert torch.autograd.gradcheck(loss, inputs)


def test_a_key_gets_its_gradient_where_the_queries_need_none() -> None:
    q, k = randn(4, 3), randn(6, 3, seed=1).requires_grad_()
    [to_k] = gradients(log_partition(q, k).sum(), k)
    torch.testing.assert_close(to_k, (q @ k.T).softmax(dim=1).T @ q, **EXACT)


def test_a_second_derivative_is_refused_and_not_wrong() -> None:
    q = randn(4, 3).requires_grad_()
    [first] = torch.autograd.grad(log_partition(q, q.detach()).pow(2).sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


WRONG_SHAPES = """
from torch import ones
from selfsup.losses import info_nce, nce, supcon
for loss, arguments in [
    (info_nce, {"queries": ones(4, 3), "keys": ones(1, 3), "temperature": 0.5}),
    (info_nce, {"queries": ones(4, 3), "keys": ones(4, 3), "temperature": 0.5, "negatives": ones(5, 2)}),
    (supcon, {"z": ones(3, 4), "group": ones(2).long(), "temperature": 0.5}),
    (nce, {"data": ones(4, 1), "noise": ones(4, 2), "data_chance": ones(4, 1), "noise_chance": ones(4, 2)}),
]:
    try:
        print(float(loss(**arguments)))
    except ValueError as error:
        print(error)
"""


def test_mistakes_are_named() -> None:
    # The shapes of annotations are checked in tests only: a user, in a process of their own, is to be told as well.
    told = subprocess.run([sys.executable, "-c", WRONG_SHAPES], capture_output=True, text=True, check=True).stdout.splitlines()
    assert "queries and keys (B, D)" in told[0]
    assert told[0].endswith("got (4, 3), (1, 3)")
    assert told[1].endswith("got (4, 3), (4, 3), negatives (5, 2)")
    assert told[2].endswith("got (3, 4) and (2,)")
    assert told[3].endswith("got (4, 1), (4, 2), (4, 1), (4, 2)")
    with pytest.raises(ValueError, match="at least 1 candidate, got 0"):
        mutual_information(torch.tensor(1.0), 0)
    with pytest.raises(ValueError, match="at least 2 images"):
        nt_xent(torch.randn(1, 4), torch.randn(1, 4), 0.5)
    with pytest.raises(ValueError, match="group 7 has one"):
        supcon(torch.randn(3, 4), torch.tensor([0, 7, 0]), 0.5)


def test_bfloat16_is_compared_in_float32() -> None:
    first, second = torch.randn(2, 8, 4, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        for loss in (nt_xent, info_nce):
            a, b = (loss(x, y, 0.1) for x, y in ((first, second), (first.float(), second.float())))
            torch.testing.assert_close(a, b, rtol=0.0, atol=0.0)
        with_negatives = info_nce(first, second, 0.1, negatives=first)
        torch.testing.assert_close(
            with_negatives, info_nce(first.float(), second.float(), 0.1, negatives=first.float()), rtol=0.0, atol=0.0
        )


# --- tiles ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leave_out", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 4), (5, 100), (100, 2), (256, 1024)])
def test_tiles_change_neither_value_nor_gradient(rows: int, columns: int, leave_out: bool) -> None:
    q, k = (3 * randn(n, 5, seed=n) for n in (7, 11))
    q.requires_grad_()
    k.requires_grad_()
    left_out = torch.tensor([[10, 2], [0, 1], [3, 3], [3, 9], [5, 4], [1, 0], [9, 10]]) if leave_out else None
    scores = q @ k.T
    if left_out is not None:
        scores = scores.masked_fill(F.one_hot(left_out, 11).sum(dim=1).bool(), -math.inf)
    plain, tiled = scores.logsumexp(dim=1), log_partition(q, k, left_out, rows=rows, columns=columns)
    torch.testing.assert_close(tiled, plain, **EXACT)
    weights = randn(7, seed=3)
    for a, b in zip(gradients(tiled @ weights, q, k), gradients(plain @ weights, q, k), strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_large_scores_do_not_overflow() -> None:
    q = torch.tensor([[1000.0], [-1000.0]], requires_grad=True)
    loss = info_nce(q, q, 1.0)
    assert gradients(loss, q)[0].isfinite().all()
    torch.testing.assert_close(log_partition(q, q), torch.tensor([1e6, 1e6]))


def test_a_frozen_side_gets_no_gradient() -> None:
    q, k = randn(4, 3).requires_grad_(), randn(6, 3, seed=1)
    [to_q] = gradients(log_partition(q, k).sum(), q)
    torch.testing.assert_close(to_q, (q @ k.T).softmax(dim=1) @ k, **EXACT)


# --- processes -----------------------------------------------------------------------------------------------------------------------

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "nce": lambda a, b: nce(a[:, 0], b, b[:, 0].detach() - 1, -b.detach().square()),
    "info_nce": lambda a, b: info_nce(a, b, 0.5),
    "info_nce, negatives": lambda a, b: info_nce(a, b, 0.5, 0.1 * torch.arange(15, dtype=a.dtype).view(5, 3)),
    "nt_xent": lambda a, b: nt_xent(a, b, 0.3),
    "poly_view": lambda a, b: poly_view(torch.stack([a, b, a + 2 * b]), 0.3),
    "supcon": lambda a, b: supcon(torch.cat([a, b]), torch.cat([a, b])[:, 0].detach().gt(-9).long(), 0.3),
}


def weight_and_loss(name: str, mine: slice) -> tuple[nn.Parameter, Tensor]:
    first, second = randn(2, 8, 3)
    w = nn.Parameter(torch.eye(3, dtype=torch.float64))  # stands for the network: both halves go through it
    return w, LOSSES[name](first[mine] @ w, second[mine] @ w)


def one_of_two_processes(number: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=number, world_size=2)
    found = {}
    for name in LOSSES:
        w, loss = weight_and_loss(name, slice(4 * number, 4 * number + 4))
        loss.backward()
        average_gradients([w])
        found[name] = (average(loss.detach()), w.grad)
    dist.destroy_process_group()
    torch.save(found, folder / f"{number}.pt")


def test_two_processes_equal_one(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from pathlib import Path; import test_losses as t; "
    runs = [subprocess.Popen([sys.executable, "-c", code + f"t.one_of_two_processes({i}, Path({str(tmp_path)!r}))"]) for i in range(2)]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    for name in LOSSES:
        w, loss = weight_and_loss(name, slice(None))
        [grad] = gradients(loss, w)
        for number in range(2):
            value, averaged = torch.load(tmp_path / f"{number}.pt")[name]
            torch.testing.assert_close(value, loss.detach(), **EXACT)
            torch.testing.assert_close(averaged, grad, **EXACT)
