"""DINO against its equations and algorithm 1: teacher, centre, temperatures, frozen layer, crops; and one toy problem it must solve."""

import copy
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from selfsup.distributed import average_gradients
from selfsup.engine.step import train_step
from selfsup.method import Batch
from selfsup.methods.dino import DINO, Head, cross_entropy
from selfsup.models import Encoder, build_encoder


class TinyEncoder(Encoder):
    width = 16

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 16), nn.BatchNorm1d(self.width) if norm else nn.Identity()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def dino(norm: bool = True, **options: float) -> DINO:
    torch.manual_seed(1)
    small = {"outputs": 7, "hidden_size": 12, "bottleneck": 6, "local_views": 1, "freeze_last_layer": 0.0, "momentum": 0.9}
    method = DINO(TinyEncoder(norm), image_size=8, **small | options)
    for head in (method.student_head, method.teacher_head):  # the paper's start is so small that nothing moves in a few steps
        for layer in head.mlp[::2]:
            assert isinstance(layer, nn.Linear)
            layer.weight.data *= 20
    return method


def crops(batch: int, seed: int = 0, local: int = 1) -> Batch:
    g = torch.Generator().manual_seed(seed)
    large = {f"global_{i}": torch.rand(batch, 3, 8, 8, generator=g) for i in range(2)}
    return large | {f"local_{i}": torch.rand(batch, 3, 4, 4, generator=g) for i in range(local)}


def head_by_hand(head: Head, h: torch.Tensor) -> torch.Tensor:
    z = head.mlp[4](F.gelu(head.mlp[2](F.gelu(head.mlp[0](h)))))
    return torch.stack([torch.stack([(a / a.norm()) @ (w / w.norm()) for w in head.last]) for a in z])


@pytest.mark.parametrize("views", [2, 5])
def test_loss_is_equation_3(views: int) -> None:
    student, teacher = torch.randn(views, 3, 5, dtype=torch.float64), torch.randn(2, 3, 5, dtype=torch.float64)
    centre = torch.randn(5, dtype=torch.float64)
    total, pairs = 0.0, 0
    for i in range(2):
        for v in range(views):
            if v == i:
                continue
            pairs += 1
            for b in range(3):
                t = [math.exp(float(teacher[i, b, k] - centre[k]) / 0.04) for k in range(5)]
                s = [math.exp(float(student[v, b, k]) / 0.1) for k in range(5)]
                total -= sum(t[k] / sum(t) * math.log(s[k] / sum(s)) for k in range(5)) / 3
    loss = cross_entropy(student, teacher, centre, 0.1, 0.04)
    torch.testing.assert_close(loss, torch.tensor(total / pairs, dtype=torch.float64), rtol=1e-9, atol=0)
    assert pairs == 2 * (views - 1)


def test_equal_outputs_give_chance_level_and_a_centre_hides_what_all_share() -> None:
    same = torch.ones(3, 4, 6)
    torch.testing.assert_close(cross_entropy(same, same[:2], torch.zeros(6), 0.1, 0.04), torch.tensor(math.log(6)))
    student, teacher, common = torch.randn(3, 4, 6), torch.randn(2, 4, 6), torch.randn(6)
    centred = cross_entropy(student, teacher + common, common, 0.1, 0.04)
    torch.testing.assert_close(centred, cross_entropy(student, teacher, torch.zeros(6), 0.1, 0.04), rtol=1e-4, atol=1e-4)


def test_the_head_is_that_of_appendix_c() -> None:
    torch.manual_seed(0)
    head, h = Head(5, 8, 4, 9), torch.randn(3, 5)
    torch.testing.assert_close(head(h), head_by_hand(head, h))
    before = head(h)
    head.last.data *= 3  # weight normalisation with its length fixed at 1
    torch.testing.assert_close(head(h), before)
    assert not any(isinstance(m, nn.BatchNorm1d) for m in head.modules())


def test_training_is_algorithm_1() -> None:
    """Student, teacher, centre and schedules over five steps; the last layer frozen in the first, the temperature warm after the third."""
    method = dino(teacher_temperature=0.07, temperature_warmup=0.5, freeze_last_layer=0.2, momentum=0.8, centre_momentum=0.7)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.5, weight_decay=0.1)
    gs = nn.ModuleList([copy.deepcopy(method.student), copy.deepcopy(method.student_head)])
    gt = copy.deepcopy(gs)
    centre, steps = torch.zeros(7), 5
    for step in range(steps):
        views = crops(4, step)
        tau = 0.04 + 0.03 * min(1.0, step / steps / 0.5)
        h = torch.cat([gs[0](torch.cat([views["global_0"], views["global_1"]])), gs[0](views["local_0"])])
        s = head_by_hand(gs[1], h).view(3, 4, 7)
        with torch.no_grad():
            t = head_by_hand(gt[1], gt[0](torch.cat([views["global_0"], views["global_1"]]))).view(2, 4, 7)
        loss = torch.zeros(())
        for i, v in [(0, 1), (0, 2), (1, 0), (1, 2)]:
            target = ((t[i] - centre) / tau).softmax(dim=1)
            loss = loss - (target * (s[v] / 0.1).log_softmax(dim=1)).sum(dim=1).mean() / 4
        last = gs[1].last
        trained = [p for p in gs.parameters() if step >= 1 or p is not last]
        gradients = torch.autograd.grad(loss, trained)
        with torch.no_grad():
            for p, grad in zip(trained, gradients, strict=True):
                p -= 0.5 * (grad + (0.1 * p if p.ndim else 0))
            momentum = 1 - (1 - 0.8) * (math.cos(math.pi * (step + 1) / steps) + 1) / 2
            for p_t, p_s in zip(gt.parameters(), gs.parameters(), strict=True):
                p_t.copy_(momentum * p_t + (1 - momentum) * p_s)
            centre = 0.7 * centre + 0.3 * t.mean(dim=(0, 1))

        method.progress = step / steps
        logged = train_step(method, [views], {"main": optimizer})
        method.after_step((step + 1) / steps)
        torch.testing.assert_close(logged["loss"], loss.detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(method.centre, centre, rtol=1e-4, atol=1e-5)
        for mine, by_hand in [([method.student, method.student_head], gs), ([method.encoder, method.teacher_head], gt)]:
            mine = nn.ModuleList(mine)
            for p, expected in zip([*mine.parameters(), *mine.buffers()], [*by_hand.parameters(), *by_hand.buffers()], strict=True):
                torch.testing.assert_close(p, expected, rtol=1e-3, atol=1e-4)


def test_the_momentum_by_numbers() -> None:
    """A cosine from 0.9 to 1: halfway it is 0.95."""
    for progress, share in [(0.0, 0.9), (0.5, 0.95), (1.0, 1.0)]:
        method = dino(momentum=0.9)
        teacher = [*method.encoder.parameters(), *method.teacher_head.parameters()]
        student = [*method.student.parameters(), *method.student_head.parameters()]
        with torch.no_grad():
            for p in teacher:
                p.fill_(1.0)
            for p in student:
                p.fill_(2.0)
        method.after_step(progress)
        for p in teacher:
            torch.testing.assert_close(p, torch.full_like(p, share + 2 * (1 - share)))
        assert all(bool((p == 2).all()) for p in student)


def test_gradient_reaches_the_student_only() -> None:
    method = dino()
    method.loss(crops(4)).backward()
    for name, p in method.named_parameters():
        assert p.requires_grad == name.startswith("student"), name
        assert (p.grad is not None) == p.requires_grad, name


def test_a_frozen_last_layer_gets_no_gradient_and_no_decay() -> None:
    method = dino(freeze_last_layer=0.5)
    last = method.student_head.last
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=0.1, weight_decay=0.5)
    before = last.detach().clone()
    for progress in (0.0, 0.25):
        method.progress = progress
        train_step(method, [crops(4)], {"main": optimizer})
        method.after_step(progress + 0.25)
        assert torch.equal(last, before)
    assert last not in optimizer.state
    method.progress = 0.5
    train_step(method, [crops(4)], {"main": optimizer})
    assert not torch.equal(last, before)


def test_the_teacher_sees_large_crops_only_and_those_of_one_size_go_together() -> None:
    method = dino(local_views=3)
    seen: dict[str, list[tuple[int, ...]]] = {"student": [], "teacher": []}
    method.student.register_forward_pre_hook(lambda _m, args: seen["student"].append(tuple(args[0].shape)))
    method.encoder.register_forward_pre_hook(lambda _m, args: seen["teacher"].append(tuple(args[0].shape)))
    method.loss(crops(3, local=3))
    assert seen == {"student": [(6, 3, 8, 8), (9, 3, 4, 4)], "teacher": [(6, 3, 8, 8)]}


def test_the_centre_moves_once_a_step_however_the_batch_is_split() -> None:
    views, whole, split = crops(6), dino(norm=False), dino(norm=False)
    whole.loss(views)
    for i in range(3):
        split.loss({key: value[2 * i : 2 * i + 2] for key, value in views.items()})
        assert not split.centre.any()  # not within the step: a micro-batch would be centred by another
    for method in (whole, split):
        method.after_step(0.1)
    torch.testing.assert_close(split.centre, whole.centre)
    assert whole.centre.any()
    before = whole.centre.clone()
    whole.eval().loss(views)
    whole.after_step(0.2)  # looking at the loss moves nothing
    assert torch.equal(whole.centre, before)
    assert "centre" in whole.state_dict()  # what a checkpoint needs to go on exactly


def test_the_teacher_is_what_is_kept() -> None:
    method, x = dino(), torch.rand(4, 3, 8, 8)
    with torch.no_grad():
        for p in method.student.parameters():
            p.add_(1.0)
    method.eval()
    torch.testing.assert_close(method.embed(x), method.encoder(x))
    assert not torch.allclose(method.embed(x), method.student(x))


def test_views_are_those_of_the_paper() -> None:
    views = DINO(TinyEncoder(), image_size=224, crop_split=0.4, smallest_crop=0.05, local_size=96, local_views=8).views
    assert list(views.looks) == ["global_0", "global_1", *(f"local_{i}" for i in range(8))]
    for name, look in views.looks.items():
        assert (look.size, look.scale) == ((224, (0.4, 1.0)) if name.startswith("global") else (96, (0.05, 0.4)))
        assert (look.colours, look.jitter, look.gray) == ((0.4, 0.4, 0.2, 0.1), 0.8, 0.2)
    assert [(look.blur, look.solarize) for look in views.looks.values()] == [(1.0, 0.0), (0.1, 0.2)] + 8 * [(0.5, 0.0)]
    small = DINO(TinyEncoder(), image_size=32, colour_strength=0.5, local_views=1).views.looks
    assert (small["local_0"].size, small["global_0"].blur, small["global_0"].colours) == (16, 0.0, (0.2, 0.2, 0.1, 0.05))


def test_a_vit_sees_small_crops_too() -> None:
    torch.manual_seed(0)
    encoder = build_encoder("vit_tiny", channels=3, image_size=16)
    encoder.blocks = encoder.blocks[:1]
    method = DINO(encoder, image_size=16, outputs=10, hidden_size=12, bottleneck=6, local_views=2)
    views = method.views({"image": torch.randint(0, 256, (2, 3, 20, 20), dtype=torch.uint8)}, torch.Generator().manual_seed(0))
    assert views["local_1"].shape == (2, 3, 8, 8)
    method.loss(views).backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in encoder.parameters() if p is not method.student_head.last)
    assert method.encoder.spec == {"name": "vit_tiny", "channels": 3, "image_size": 16}


def test_it_learns_to_find_the_partner(find_partners: Callable[..., tuple[float, float, Callable[[], float]]]) -> None:
    before, after, _ = find_partners(lambda: dino(norm=False, outputs=256, bottleneck=16, hidden_size=32), lr=1e-2, steps=100, crops=True)
    assert after > 2.5 * before, f"{after:.2f} of partners found, {before:.2f} before training; chance is 0.03"


def test_mistakes_are_named() -> None:
    for options, message in [
        ({"student_temperature": 0.0}, "student_temperature must be positive, got 0.0"),
        ({"teacher_temperature": -1.0}, "teacher_temperature must be positive, got -1.0"),
        ({"momentum": 1.5}, "momentum must be between 0 and 1, got 1.5"),
        ({"centre_momentum": -0.5}, "centre_momentum must be between 0 and 1, got -0.5"),
        ({"temperature_warmup": 2.0}, "temperature_warmup must be between 0 and 1, got 2.0"),
        ({"outputs": 0}, "hidden_size, bottleneck and outputs must be at least 1, got 12, 6 and 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            dino(**options)


def three_steps(parts: list[Batch]) -> dict[str, torch.Tensor]:
    method = dino(norm=False, freeze_last_layer=0.3)
    out: dict[str, torch.Tensor] = {}
    for i, views in enumerate(parts):
        method.progress = i / 3
        loss = method.loss(views)
        method.zero_grad()
        loss.backward()
        average_gradients(method.parameters())
        method.after_step((i + 1) / 3)
        out[f"loss{i}"] = loss.detach()
    out |= {f"gradient.{name}": p.grad for name, p in method.named_parameters() if p.grad is not None}
    return out | {"centre": method.centre}


def one_of_two_processes(number: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=number, world_size=2)
    out = three_steps([{key: value[4 * number : 4 * number + 4] for key, value in crops(8, i).items()} for i in range(3)])
    for i in range(3):
        dist.all_reduce(out[f"loss{i}"])
        out[f"loss{i}"] /= 2
    torch.save(out, folder / f"{number}.pt")
    dist.destroy_process_group()


def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_dino as t; from pathlib import Path; "
    runs = [subprocess.Popen([sys.executable, "-c", code + f"t.one_of_two_processes({i}, Path({str(tmp_path)!r}))"]) for i in range(2)]
    assert [run.wait(timeout=120) for run in runs] == [0, 0]
    expected = three_steps([crops(8, i) for i in range(3)])
    for i in range(2):
        out = torch.load(tmp_path / f"{i}.pt")
        assert out.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(out[name], value, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
