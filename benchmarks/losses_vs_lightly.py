"""Losses that lightly has too: the same value and gradient on random inputs, in float32.

    peers/bin/python benchmarks/losses_vs_lightly.py --out results/losses_vs_lightly.json

20 inputs for each loss, of random size, spread and temperature. Printed: the largest difference of the values, relative, and of the
gradients, relative to the largest entry of lightly's. Above 1e-5 the script ends with status 1.

What is set equal because the papers leave it open: nothing but sizes and temperatures. lightly gets its default epsilons.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision_on_cpu  # noqa: F401 - before lightly
from common import announce, setting, table, write_json
from lightly import loss as peer
from lightly.models import utils as peer_utils
from torch import Tensor

from selfsup.losses import nt_xent
from selfsup.methods import barlow_twins, byol, dino, mae, simsiam, swav, vicreg

INPUTS, TOLERANCE = 20, 1e-5
Case = tuple[Callable[..., Tensor], Callable[..., Tensor], list[Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON")
    arguments = parser.parse_args()
    facts = setting()
    announce(facts)
    rows = []
    for name, case in CASES.items():
        worst = [0.0, 0.0]
        for seed in range(INPUTS):
            torch.manual_seed(seed)
            ours, theirs, leaves = case()
            for i, difference in enumerate(compared(ours, theirs, leaves)):
                worst[i] = max(worst[i], difference)
        rows.append({"loss": name, "inputs": INPUTS, "value": worst[0], "gradient": worst[1], "equal": max(worst) <= TOLERANCE})
    table(rows)
    write_json(arguments.out, {**facts, "tolerance": TOLERANCE, "losses": rows})
    sys.exit(0 if all(row["equal"] for row in rows) else 1)


def compared(ours: Callable[..., Tensor], theirs: Callable[..., Tensor], leaves: Sequence[Tensor]) -> tuple[float, float]:
    """Relative differences of the values and of the gradients."""
    found = []
    for function in (ours, theirs):
        x = [leaf.clone().requires_grad_() for leaf in leaves]
        value = function(*x).squeeze()
        value.backward()
        found.append((value.detach(), torch.cat([v.grad.flatten() for v in x if v.grad is not None])))
    (a, to_a), (b, to_b) = found
    return float((a - b).abs() / b.abs()), float((to_a - to_b).abs().max() / to_b.abs().max())


def number(low: float, high: float) -> float:
    return float(torch.empty(()).uniform_(low, high))


def pair(spread: float = 1.0) -> list[Tensor]:
    """Two views of 2 to 64 items in 4 to 256 dimensions, that know of each other."""
    b, d = int(torch.randint(2, 65, ())), int(torch.randint(4, 257, ()))
    first = spread * torch.randn(b, d)
    return [first, first + spread * number(0.1, 2.0) * torch.randn(b, d)]


def case_nt_xent() -> Case:
    temperature = number(0.05, 1.0)
    return lambda a, b: nt_xent(a, b, temperature), peer.NTXentLoss(temperature), pair()


def case_simsiam() -> Case:
    return simsiam.distance, lambda p, z: peer.NegativeCosineSimilarity()(p, z.detach()), pair()


def case_byol() -> Case:
    """The paper's squared distance of unit vectors is 2 + 2 times lightly's negative cosine."""
    return lambda p, z: byol.regression(p, z.detach()), lambda p, z: 2 + 2 * peer.NegativeCosineSimilarity()(p, z.detach()), pair()


def case_barlow_twins() -> Case:
    lambda_ = number(1e-3, 1e-1)
    return lambda a, b: barlow_twins.redundancy(a, b, lambda_), peer.BarlowTwinsLoss(lambda_), pair()


def case_vicreg() -> Case:
    weights = [number(1.0, 30.0), number(1.0, 30.0), number(0.1, 3.0)]
    return lambda a, b: vicreg.vicreg(a, b, *weights), peer.VICRegLoss(*weights), pair(number(0.05, 2.0))


def outputs(crops: int) -> list[Tensor]:
    b, k = int(torch.randint(2, 33, ())), int(torch.randint(8, 513, ()))
    return [2 * torch.rand(crops, b, k) - 1]


def case_dino() -> Case:
    student_t, teacher_t, [student] = number(0.05, 0.5), number(0.02, 0.1), outputs(int(torch.randint(2, 9, ())))
    teacher, centre = 2 * torch.rand_like(student[:2]) - 1, 0.1 * torch.randn(student.shape[-1])

    def theirs(student: Tensor) -> Tensor:
        loss = peer.DINOLoss(output_dim=len(centre), student_temp=student_t)
        loss.center.copy_(centre.view_as(loss.center))
        return loss(list(teacher), list(student), teacher_temp=teacher_t)

    return lambda s: dino.cross_entropy(s, teacher, centre, student_t, teacher_t), theirs, [student]


def case_swav() -> Case:
    temperature, epsilon, iterations = number(0.05, 0.5), number(0.03, 0.1), int(torch.randint(1, 6, ()))

    def ours(scores: Tensor) -> Tensor:
        codes = torch.stack([swav.sinkhorn(s, epsilon, iterations) for s in scores[:2].detach()])
        return swav.swapped_prediction(scores, codes, temperature)

    def theirs(scores: Tensor) -> Tensor:
        return peer.SwaVLoss(temperature, iterations, epsilon)(list(scores[:2]), list(scores[2:]))

    return ours, theirs, outputs(int(torch.randint(3, 9, ())))


def case_mae() -> Case:
    """lightly has parts of it: patches, their normalisation, and the squared error at hidden places."""
    size, grid = int(torch.randint(2, 9, ())), int(torch.randint(2, 7, ()))
    images, predicted = torch.rand(4, 3, size * grid, size * grid), torch.randn(4, grid**2, 3 * size**2)
    hidden = torch.rand(4, grid**2).argsort(dim=1) < max(1, 3 * grid**2 // 4)
    places = hidden.nonzero()[:, 1].view(4, -1)

    def theirs(predicted: Tensor) -> Tensor:
        target = peer_utils.normalize_mean_var(peer_utils.patchify(images, size))
        return F.mse_loss(peer_utils.get_at_index(predicted, places), peer_utils.get_at_index(target, places))

    return lambda p: mae.error(p, mae.normalise(mae.split(images, size)), hidden), theirs, [predicted]


CASES: dict[str, Callable[[], Case]] = {
    "NTXentLoss": case_nt_xent,
    "NegativeCosineSimilarity, simsiam": case_simsiam,
    "NegativeCosineSimilarity, byol": case_byol,
    "BarlowTwinsLoss": case_barlow_twins,
    "VICRegLoss": case_vicreg,
    "DINOLoss": case_dino,
    "SwaVLoss": case_swav,
    "MAE's": case_mae,
}

if __name__ == "__main__":
    main()
