"""lightly's SimCLR and BYOL at their documented CIFAR-10 settings, for the benchmarks beside them.

The setting is the one of docs/source/getting_started/benchmarks/cifar10_benchmark.py in lightly's repository, whose results stand on
https://docs.lightly.ai/self-supervised-learning/getting_started/benchmarks.html: ResNetGenerator("resnet-18") with its 3x3 stem, head
512-512-128, SimCLRTransform(input_size=32, cj_strength=0.5, gaussian_blur=0.0), LightlyDataset on a folder of files, NTXentLoss() with its
temperature of 0.5, SGD with learning rate 0.06 * batch / 128, momentum 0.9 and weight decay 5e-4, cosine, float32. BYOL: the same views and
SGD, heads 512-1024-256 and 256-1024-256, momentum 0.99, NegativeCosineSimilarity, symmetric. Quality is measured at its batch of 128;
speed at 256, which is that of its examples (examples/pytorch/simclr.py). Its 8 loading processes become 2, one a core. Two things differ in
lightly's favour: a plain loop stands in for Lightning's Trainer, and the cosine goes down at every update, where lightly's goes down at
every epoch, of which short runs have few.
"""

import copy
import math
from collections.abc import Iterator

import torch
import torchvision_on_cpu  # noqa: F401 - before lightly
from lightly.data import LightlyDataset
from lightly.loss import NegativeCosineSimilarity, NTXentLoss
from lightly.models import ResNetGenerator
from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead, SimCLRProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
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


class SimCLR(nn.Module):
    """Encoder and lightly's head; `forward` gives the loss of two views."""

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.network = nn.Sequential(encoder, SimCLRProjectionHead(width, 512, 128))
        self.criterion = NTXentLoss()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.criterion(self.network(first), self.network(second))


class BYOL(nn.Module):
    """Encoder, lightly's heads, and the slow copy that moves before each step, as lightly has it."""

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.online = nn.Sequential(encoder, BYOLProjectionHead(width, 1024, 256))
        self.predictor = BYOLPredictionHead(256, 1024, 256)
        self.target = copy.deepcopy(self.online)
        deactivate_requires_grad(self.target)
        self.criterion = NegativeCosineSimilarity()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        update_momentum(self.online, self.target, m=0.99)
        p0, p1 = (self.predictor(self.online(view)) for view in (first, second))
        with torch.no_grad():
            z0, z1 = (self.target(view) for view in (first, second))
        return 0.5 * (self.criterion(p0, z1) + self.criterion(p1, z0))


METHODS = {"simclr": SimCLR, "byol": BYOL}


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
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=peak, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    batches = _endless(loader)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = peak * 0.5 * (1 + math.cos(math.pi * step / steps))
        first, second = (x.to(device, memory_format=layout, non_blocking=True) for x in next(batches))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = model(first, second)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.detach()


def _endless(loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        for views, _, _ in loader:
            yield views
