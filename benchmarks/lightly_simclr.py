"""lightly's SimCLR at its documented CIFAR-10 setting, for the benchmarks beside it.

The setting is the one of docs/source/getting_started/benchmarks/cifar10_benchmark.py in lightly's repository, whose results stand on
https://docs.lightly.ai/self-supervised-learning/getting_started/benchmarks.html: ResNetGenerator("resnet-18") with its 3x3 stem, head
512-512-128, SimCLRTransform(input_size=32, cj_strength=0.5, gaussian_blur=0.0), LightlyDataset on a folder of files, NTXentLoss() with its
temperature of 0.5, SGD with learning rate 0.06 * batch / 128, momentum 0.9 and weight decay 5e-4, cosine, float32. Its batch of 128 or 512
becomes 256 here, which is that of its examples (examples/pytorch/simclr.py), and its 8 loading processes become 2, one a core. Two things
differ in lightly's favour: a plain loop stands in for Lightning's Trainer, and the cosine goes down at every update, where lightly's goes
down at every epoch, of which short runs have few.
"""

import math
from collections.abc import Iterator

import torch
import torchvision_on_cpu  # noqa: F401 - before lightly
from lightly.data import LightlyDataset
from lightly.loss import NTXentLoss
from lightly.models import ResNetGenerator
from lightly.models.modules.heads import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from lightly.transforms.utils import IMAGENET_NORMALIZE
from torch import Tensor, nn
from torch.utils.data import DataLoader

TRANSFORM = {"input_size": 32, "cj_strength": 0.5, "gaussian_blur": 0.0}
LR_AT_128, MOMENTUM, WEIGHT_DECAY = 0.06, 0.9, 5e-4
MEAN, STD = IMAGENET_NORMALIZE["mean"], IMAGENET_NORMALIZE["std"]


def make_loader(folder: str, batch_size: int, workers: int, *, pin: bool) -> DataLoader:
    """Both views of each image, made by `workers` processes from files."""
    data = LightlyDataset(folder, transform=SimCLRTransform(**TRANSFORM))
    return DataLoader(data, batch_size, shuffle=True, drop_last=True, num_workers=workers, pin_memory=pin, persistent_workers=workers > 0)


def resnet18() -> nn.Module:
    """lightly's network for CIFAR-10 without its classifier; (B, 3, 32, 32) -> (B, 512)."""
    return nn.Sequential(*list(ResNetGenerator("resnet-18").children())[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten())


def with_head(encoder: nn.Module, width: int) -> nn.Sequential:
    """Encoder and lightly's projection head."""
    return nn.Sequential(encoder, SimCLRProjectionHead(width, 512, 128))


def train(
    model: nn.Module,
    loader: DataLoader,
    steps: int,
    *,
    device: torch.device,
    bf16: bool = False,
    channels_last: bool = False,
    lr: float | None = None,
) -> Iterator[Tensor]:
    """The losses of `steps` updates, each yielded when its update has been made."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model.to(device, memory_format=layout).train()
    peak = LR_AT_128 * (loader.batch_size or 1) / 128 if lr is None else lr
    optimizer = torch.optim.SGD(model.parameters(), lr=peak, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    criterion, batches = NTXentLoss(), _endless(loader)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = peak * 0.5 * (1 + math.cos(math.pi * step / steps))
        first, second = (x.to(device, memory_format=layout, non_blocking=True) for x in next(batches))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = criterion(model(first), model(second))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.detach()


def _endless(loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        for views, _, _ in loader:
            yield views
