"""From a pretrained encoder, a few labels and many images without: a student that classifies (SimCLR version 2, sections 2 and 3).

Big Self-Supervised Models are Strong Semi-Supervised Learners, Chen, Kornblith, Swersky, Norouzi and Hinton, NeurIPS 2020.
https://arxiv.org/abs/2006.10029

Axes: B items in a batch, K classes, N items.
"""

import copy
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from selfsup.data import Loader
from selfsup.engine.checkpoint import read_json, replace_file
from selfsup.engine.log import Progress
from selfsup.engine.loop import Training, fit
from selfsup.evaluation.scratch import train_from_scratch
from selfsup.losses import full_precision
from selfsup.method import Batch, Encoder, Method, Recipe
from selfsup.models import build_encoder
from selfsup.tasks.pretraining.plan import choose_device, has_fast_bf16
from selfsup.tasks.saved.trained_classifier import TrainedClassifier, save_classifier
from selfsup.tasks.saved.trained_encoder import TrainedEncoder, load
from selfsup.views.crops import RandomCrop


def distill(
    encoder: str | Path | TrainedEncoder,
    labelled: Any,
    unlabelled: Any,
    *,
    out: str | Path,
    student: str | None = None,
    temperature: float = 1.0,
    fine_tune_images: int = 20_000,
    images: int = 100_000,
    batch_size: int = 128,
    lr: float = 1e-3,
    smallest_crop: float = 0.5,
    flip: bool = True,
    best: bool = False,
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
) -> TrainedClassifier:
    """Fine-tune a classifier on the labels, then train a student to say of every unlabelled image what it says (equation 2).

    The teacher is the encoder and a linear layer, both trained by cross entropy. Of SimCLR's version 2 the encoder includes the first layer
    of its projection head, which is where the paper fine-tunes from. The student sees no label. The same call goes on where it was
    interrupted.

    Args:
        encoder: a run, an encoder folder, or what `selfsup.load` gave.
        labelled: data with classes; items without a known one are left out.
        unlabelled: data whose classes, if any, are not looked at; the paper's includes the labelled images.
        out: folder of the student: encoder/, classifier/, metrics.jsonl and checkpoints/.
        student: name of an encoder to be trained from nothing; None for the pretrained one itself (the paper's self-distillation).
        temperature: tau of equation 2, no unit, above 0; below 1 the teacher is taken to be surer than it is.
        fine_tune_images: images that the teacher's fine-tuning sees.
        images: images that the student sees.
        batch_size: images in a step of the student; at most all.
        lr: peak learning rate of the student, AdamW.
        smallest_crop: area of the smallest crop, as a fraction of the image; the paper's is 0.08; as there, crops and flips are all.
        flip: whether a mirrored image keeps its class.
        best: of a run, the best checkpoint by the label-free measure instead of the last.
        seed: of everything.
        device: auto, cpu, cuda or cuda:N.
        quiet: no progress on stderr.

    Raises:
        ValueError: no labels, or arguments that do not fit; `out` holds something else.
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    trained = encoder if isinstance(encoder, TrainedEncoder) else load(encoder, best=best)
    few, many = trained.open(labelled, cache=True), trained.open(unlabelled, cache=True)
    known = np.flatnonzero(few.labels >= 0) if few.labels is not None else np.zeros(0, np.int64)
    if len(known) == 0:
        raise ValueError(f"a teacher needs labels, but {few.source} has none; put images into one folder a class")
    batch, where, progress = min(batch_size, len(many)), choose_device(device), Progress(quiet=quiet)
    settings = {
        "labelled": few.fingerprint,
        "unlabelled": many.fingerprint,
        "student": student,
        "temperature": temperature,
        "fine_tune_images": fine_tune_images,
        "images": images,
        "batch_size": batch,
        "lr": lr,
        "smallest_crop": smallest_crop,
        "flip": flip,
        "seed": seed,
    }
    run = _folder(Path(out), settings)
    if (run / "classifier").is_dir():  # written last: all is done
        return TrainedClassifier(run)
    precision: Literal["fp32", "bf16"] = "bf16" if has_fast_bf16(where) else "fp32"
    teacher = train_from_scratch(
        lambda: copy.deepcopy(trained.network).cpu().requires_grad_(True),
        few,
        known,
        len(few.classes),
        image_size=trained.image_size,
        seed=seed,
        images=fine_tune_images,
        flip=flip,
        device=where,
        precision=precision,
        progress=lambda done, total: progress.note(f"fine-tuning {done}/{total}") if progress.due() else None,
    ).predict
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shape = {"channels": trained.channels, "image_size": trained.image_size}
        network = copy.deepcopy(trained.network) if student is None else build_encoder(student, **shape)
        if student is not None:
            _same_statistics(network, trained.network)
        method = Student(network, teacher, len(few.classes), trained.image_size, temperature, smallest_crop, flip=flip)
    recipe = Recipe(optimizer="adamw", lr=lr, batch_size=batch, weight_decay=1e-2)
    training = Training(recipe, batch, steps=max(1, images // batch), seed=seed, bf16=precision == "bf16")
    with torch.random.fork_rng():
        fit(
            method,
            training,
            run,
            batches=lambda step: iter(Loader(many, batch, seed=seed, start_step=step)),
            device=where,
            progress=progress,
        )
    method.eval().cpu()
    config = {**trained.config, "encoder": method.encoder.spec, "distillation": settings}
    save_classifier(run, method.encoder, method.classifier, config, {"classes": list(few.classes), "distillation": settings})
    return TrainedClassifier(run)


class Student(Method):
    """Learns what a teacher says of crops, at a temperature; the teacher is never moved.

    Args:
        encoder: the student's.
        teacher: clean inputs -> (B, K) scores.
        classes: K.
        image_size: side of a crop in pixels, 0 for vectors, which are shown as they are.
        temperature: tau of equation 2.
        smallest_crop: area of the smallest crop, as a fraction of the image.
        flip: whether crops are mirrored half of the time.
    """

    def __init__(
        self, encoder: Encoder, teacher: nn.Module, classes: int, image_size: int, temperature: float, smallest_crop: float, *, flip: bool
    ) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(True)
        self.classifier = nn.Linear(encoder.width, classes)
        self.teacher = teacher.requires_grad_(False)
        self.temperature = temperature
        if image_size:
            self.views = RandomCrop(image_size, scale=(smallest_crop, 1.0), flip=0.5 if flip else 0.0)
        else:
            self.views = lambda batch, _: {"image": batch["vector"]}

    def train(self, mode: bool = True) -> "Student":
        """The teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def loss(self, views: Batch) -> Tensor:
        """Equation 2; teacher and student see the same crop."""
        with torch.no_grad():
            said = self.teacher(views["image"])
        return distillation_loss(self.classifier(self.encoder(views["image"])), said, self.temperature)


@full_precision
def distillation_loss(student: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"], temperature: float) -> Float[Tensor, ""]:
    """Equation 2: cross entropy of the student's classes with the teacher's, both at a temperature; a mean over items, in nats.

    Args:
        student, teacher: scores before the softmax.
        temperature: divides both.
    """
    return F.cross_entropy(student / temperature, (teacher / temperature).softmax(dim=1))


def _same_statistics(network: Encoder, of: Encoder) -> None:
    """The data's mean and deviation are no training: a fresh network gets them."""
    theirs = {name.split(".")[-1]: b for name, b in of.named_buffers() if "normalize" in name.split(".")}
    for name, buffer in network.named_buffers():
        if "normalize" in name.split("."):
            buffer.copy_(theirs[name.split(".")[-1]])


def _folder(run: Path, settings: dict[str, Any]) -> Path:
    """Create the folder, or find the same distillation in it."""
    config = run / "config.json"
    if config.exists():
        if read_json(config) != {"distillation": settings}:
            raise ValueError(f"{run}: there is a run already, with other settings; choose another out")
        return run
    run.mkdir(parents=True, exist_ok=True)
    if any(run.iterdir()):
        raise ValueError(f"{run}: not empty; choose another out")
    replace_file(config, json.dumps({"distillation": settings}, indent=1).encode())
    return run
