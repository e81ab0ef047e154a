"""Distillation against equation 2 of SimCLR version 2, and what it is for: few labels and many images without."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import selfsup
from selfsup.models import build_encoder
from selfsup.tasks.labels.distill import Student, distillation_loss
from selfsup.tasks.saved.trained_classifier import TrainedClassifier


def test_the_loss_is_equation_2() -> None:
    student, teacher = torch.randn(2, 4, 3, dtype=torch.float64)
    naive = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        said = [math.exp(x / 0.7) / sum(math.exp(y / 0.7) for y in t) for x in t]
        naive -= sum(p * math.log(math.exp(x / 0.7) / sum(math.exp(y / 0.7) for y in s)) for p, x in zip(said, s, strict=True))
    torch.testing.assert_close(distillation_loss(student, teacher, 0.7), torch.tensor(naive / 4, dtype=torch.float64), rtol=1e-9, atol=0.0)
    even = torch.zeros(5, 4)
    torch.testing.assert_close(distillation_loss(torch.randn(5, 4), even, 1e9), torch.tensor(math.log(4)))


def test_the_teacher_is_never_moved_nor_put_into_training() -> None:
    teacher = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3 * 8 * 8), nn.Linear(3 * 8 * 8, 2))
    student = Student(build_encoder("small", channels=3, image_size=8), teacher, 2, 8, 1.0, 0.5, flip=True).train()
    assert student.encoder.training
    assert not any(m.training for m in teacher.modules())
    before = {name: t.clone() for name, t in teacher.state_dict().items()}
    student.loss({"image": torch.rand(4, 3, 8, 8)}).backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(t, before[name]) for name, t in teacher.state_dict().items())
    assert all(p.grad is not None for p in (*student.encoder.parameters(), *student.classifier.parameters()))


def pictures(n: int, seed: int, labels: bool) -> torch.utils.data.TensorDataset | np.ndarray:
    """Bars across or along, somewhere in noise."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    images = 0.5 * torch.rand(n, 1, 8, 8, generator=g)
    for i in range(n):
        at = int(torch.randint(6, (1,), generator=g))
        bar = images[i, 0, at : at + 2] if y[i] else images[i, 0, :, at : at + 2]
        bar += 0.4
    pixels = (images.clamp(0, 1) * 255).byte()
    return torch.utils.data.TensorDataset(pixels, y) if labels else pixels.permute(0, 2, 3, 1).numpy()


def test_a_student_learns_from_images_without_labels_and_goes_on_where_it_was(tmp_path: Path) -> None:
    many, few, test = pictures(160, 0, False), pictures(12, 1, True), pictures(100, 2, True)
    run = selfsup.pretrain(
        many, "simclr", version=2, hidden_size=32, flip=0.0, steps=10, batch_size=32, out=tmp_path / "run", quiet=True, precision="fp32"
    )
    assert run.config["encoder"]["head"] == {"hidden_size": 32, "layers": 1}
    given = {"fine_tune_images": 640, "images": 1600, "batch_size": 32, "flip": False, "quiet": True, "smallest_crop": 0.9}
    out = tmp_path / "student"
    made = selfsup.distill(run.path, few, many, out=out, student="small", **given)
    truth = np.arange(100) % 2
    right = float((made.predict(test) == truth).mean())
    assert right > 0.85, f"{right:.2f} of bars told apart by a student that has seen no label"
    assert "head" not in made.encoder.config["encoder"]
    assert made.probabilities(test).sum(axis=1) == pytest.approx(np.ones(100), abs=1e-5)
    again = TrainedClassifier(out)
    np.testing.assert_array_equal(again.probabilities(test), made.probabilities(test))
    assert selfsup.load(out).width == 256
    with pytest.raises(ValueError, match="with other settings"):
        selfsup.distill(run.path, few, many, out=out, **given)
    same = selfsup.distill(run.path, few, many, out=out, student="small", **given)  # all done: nothing changes
    np.testing.assert_array_equal(same.probabilities(test), made.probabilities(test))


def test_mistakes_are_named(tmp_path: Path) -> None:
    images = pictures(16, 0, False)
    run = selfsup.pretrain(images, "simclr", steps=1, batch_size=8, out=tmp_path / "run", quiet=True)
    with pytest.raises(ValueError, match="a teacher needs labels"):
        selfsup.distill(run.path, images, images, out=tmp_path / "out", quiet=True)
    with pytest.raises(ValueError, match=r"temperature must be positive, got 0.0"):
        selfsup.distill(run.path, images, images, out=tmp_path / "out", temperature=0.0)
    with pytest.raises(ValueError, match="no classifier/ in it"):
        TrainedClassifier(run.path)
