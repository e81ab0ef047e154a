"""DINO: Emerging Properties in Self-Supervised Vision Transformers.

Caron, Touvron, Misra, Jegou, Mairal, Bojanowski and Joulin, ICCV 2021. https://arxiv.org/abs/2104.14294

Modality   images
Hidden     what a slowly moving teacher says of another crop of the same image: a centred, sharpened distribution.
Shown      two large crops and several small ones of every image; the teacher sees the large ones only.
Predicted  the teacher's distribution, from every other crop: cross entropy of two softmaxes (equations 1 to 3).

Axes: B images in the batch of one process, C channels, H height, W width, V crops, K outputs.
"""

import math
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from selfsup.distributed import average
from selfsup.losses import full_precision
from selfsup.method import Batch, Encoder, Method, Recipe
from selfsup.models.multicrop import crop_sizes, one_pass_a_size
from selfsup.models.teacher import follow, frozen_copy
from selfsup.views.crops import MultiCrop


class DINO(Method):
    """Student and teacher of one shape, each a backbone f and a head h; the teacher's f is what is kept, as the authors evaluate it.

    Args:
        encoder: f, maps (B, C, H, W) to (B, encoder.width), for both sizes of crops; a ViT as in the paper, or a residual net.
        image_size: height and width of an image, in pixels.
        crop_size: side of a large crop in pixels, 1 to image_size, which is the paper's; None for three quarters of it and 24 or more where
            the encoder is small or a ResNet, so that things are as large in a crop as in the whole image; all of it for others.
        outputs: K, width of the head's output; the paper's is 65,536 on ImageNet.
        student_temperature: tau_s of equation 1, no unit; the paper's is 0.1.
        teacher_temperature: tau_t, no unit, below tau_s to sharpen; the paper's is 0.07, after a linear warm-up, and the default of its
            code 0.04. Too high and all outputs become equal, the loss log K; short runs want it low.
        first_teacher_temperature: tau_t at the start of the warm-up; the paper's is 0.04.
        temperature_warmup: part of the training in which tau_t goes from the first to the last, 0 to 1; the paper's is 30 epochs of 300.
        momentum: lambda, the share of the teacher that stays at each step, 0 to 1; a cosine brings it to 1. The paper's 0.996 suits 10^5
            steps and more.
        centre_momentum: m of equation 4, the share of the centre that stays at each step, 0 to 1; the paper's is 0.9.
        freeze_last_layer: part of the training in which the student's last layer stays as it is, 0 to 1; the paper's is its first epoch,
            of 100 to 800.
        hidden_size: width of the head's hidden layers; the paper's is 2048.
        bottleneck: width of the head before its last layer; the paper's is 256.
        local_views: small crops of every image, V is two more; the paper's is 10 (8 in its code, 6 for residual nets); None for 4, and for
            0 beside large crops below 64 pixels.
        local_size: side of a small crop, in pixels, for a ViT a multiple of its patch; half of a large one's when not given, the paper's is
            96 beside 224.
        crop_split: s, largest area of a small crop and smallest of a large one, as a fraction of the image; the paper's is 0.4
            (0.14 for residual nets in its code).
        smallest_crop: smallest area of a small crop, as a fraction of the image; the paper's is 0.05.
        colour_strength: multiplies the strengths of the colour changes, no unit; 1.0 in the paper.
    """

    # The paper: AdamW, lr 5e-4 for batches of 256, 10 epochs of warm-up of 300, weight decay from 0.04 to 0.4 by a cosine, clipped at 3.
    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=1e-3, batch_size=64, weight_decay=4e-2, warmup=0.1, clip=3.0)

    centre: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        image_size: int = 224,
        crop_size: int | None = None,
        outputs: int = 256,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        first_teacher_temperature: float = 0.04,
        temperature_warmup: float = 0.1,
        momentum: float = 0.96,
        centre_momentum: float = 0.9,
        freeze_last_layer: float = 0.0,
        hidden_size: int = 512,
        bottleneck: int = 128,
        local_views: int | None = None,
        local_size: int | None = None,
        crop_split: float = 0.2,
        smallest_crop: float = 0.1,
        colour_strength: float = 1.0,
    ) -> None:
        super().__init__()
        temperatures = {
            "student_temperature": student_temperature,
            "teacher_temperature": teacher_temperature,
            "first_teacher_temperature": first_teacher_temperature,
        }
        for name, temperature in temperatures.items():
            if temperature <= 0:
                raise ValueError(f"{name} must be positive, got {temperature}")
        shares = {"momentum": momentum, "centre_momentum": centre_momentum}
        parts = {"temperature_warmup": temperature_warmup, "freeze_last_layer": freeze_last_layer}
        for name, share in {**shares, **parts}.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {share}")
        self.student, self.student_head = encoder, Head(encoder.width, hidden_size, bottleneck, outputs)
        self.encoder, self.teacher_head = frozen_copy(self.student), frozen_copy(self.student_head)  # the teacher
        self.register_buffer("centre", torch.zeros(outputs))
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.first_teacher_temperature, self.temperature_warmup = first_teacher_temperature, temperature_warmup
        self.momentum, self.centre_momentum, self.freeze_last_layer = momentum, centre_momentum, freeze_last_layer
        sizes = crop_sizes(encoder, image_size, crop_size, local_size, local_views)
        split = {"global_scale": (crop_split, 1.0), "local_scale": (smallest_crop, crop_split)}
        views = MultiCrop(*sizes, colour_strength=colour_strength, **split)
        self.views, self.crops = views, list(views.looks)
        self._new_centres: list[Tensor] = []  # of this step's micro-batches

    def loss(self, views: Batch) -> Tensor:
        """Equation 3: the student's every crop predicts the teacher's large ones, but of itself; a mean over pairs and images."""
        self.student_head.last.requires_grad_(self.progress >= self.freeze_last_layer)
        crops = [views[name] for name in self.crops]
        student = self.student_head(one_pass_a_size(self.student, crops)).unflatten(0, (len(crops), -1))  # (V, B, K)
        with torch.no_grad():
            teacher = self.teacher_head(one_pass_a_size(self.encoder, crops[:2])).unflatten(0, (2, -1))  # (2, B, K)
        if self.training:
            self._new_centres.append(teacher.mean(dim=(0, 1)))
        return cross_entropy(student, teacher, self.centre, self.student_temperature, self._teacher_temperature())

    def _teacher_temperature(self) -> float:
        """tau_t of this step: a linear warm-up (appendix D)."""
        warm = min(1.0, self.progress / self.temperature_warmup) if self.temperature_warmup else 1.0
        return self.first_teacher_temperature + warm * (self.teacher_temperature - self.first_teacher_temperature)

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """The teacher follows the student, by a momentum that goes to 1; then the centre moves (equation 4)."""
        momentum = 1 - (1 - self.momentum) * (1 + math.cos(math.pi * progress)) / 2
        follow(self.encoder, self.student, momentum)
        follow(self.teacher_head, self.student_head, momentum)
        if self._new_centres:
            self.centre.lerp_(average(torch.stack(self._new_centres).mean(dim=0)), 1 - self.centre_momentum)
            self._new_centres.clear()

    def compared(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """The teacher's probabilities."""
        return F.softmax((self.teacher_head(self.encoder(x)) - self.centre) / self._teacher_temperature(), dim=-1)


class Head(nn.Module):
    """h: three linear layers with GELU, a bottleneck of length 1, and a last layer whose rows have length 1 (appendix C).

    Args:
        width: of the backbone's vector.
        hidden_size, bottleneck, outputs: widths of the two hidden layers, of the third, and of the last, K.
    """

    def __init__(self, width: int, hidden_size: int, bottleneck: int, outputs: int) -> None:
        super().__init__()
        sizes = (width, hidden_size, hidden_size, bottleneck)
        if min(*sizes, outputs) < 1:
            raise ValueError(f"hidden_size, bottleneck and outputs must be at least 1, got {hidden_size}, {bottleneck} and {outputs}")
        first, second, third = (nn.Linear(before, after) for before, after in pairwise(sizes))
        self.mlp = nn.Sequential(first, nn.GELU(), second, nn.GELU(), third)
        for layer in (first, second, third):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.last = nn.Parameter(nn.Linear(bottleneck, outputs, bias=False).weight.detach())  # only its rows' directions matter

    def forward(self, h: Float[Tensor, "N width"]) -> Float[Tensor, "N K"]:
        """Cosines of the bottleneck and the K rows of the last layer, -1 to 1."""
        return cosines(self.mlp(h), self.last)


@full_precision
def cosines(z: Float[Tensor, "N D"], rows: Float[Tensor, "K D"]) -> Float[Tensor, "N K"]:
    """Cosine of every z and every row, -1 to 1: l2 normalisation, then a weight-normalised layer without bias."""
    return F.normalize(z, dim=1) @ F.normalize(rows, dim=1).T


@full_precision
def cross_entropy(
    student: Float[Tensor, "V B K"],
    teacher: Float[Tensor, "2 B K"],
    centre: Float[Tensor, " K"],
    student_temperature: float,
    teacher_temperature: float,
) -> Float[Tensor, ""]:
    """H(P_t, P_s) of equations 1 to 3 over the 2 (V - 1) pairs of different crops; the teacher's outputs are centred, then sharpened.

    Returns:
        Mean over pairs and images, in nats; log K where every output is the same. No gradient flows into the teacher or the centre.
    """
    p = F.softmax((teacher.detach() - centre) / teacher_temperature, dim=-1)
    log_p = F.log_softmax(student / student_temperature, dim=-1)
    pairs = -torch.einsum("ibk,vbk->iv", p, log_p) / student.shape[1]  # (2, V)
    return (pairs.sum() - pairs.diagonal().sum()) / (pairs.numel() - 2)
