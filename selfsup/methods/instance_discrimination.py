"""Instance discrimination: Unsupervised Feature Learning via Non-Parametric Instance Discrimination, with three dictionaries.

Wu, Xiong, Yu and Lin, CVPR 2018. https://arxiv.org/abs/1805.01978
The other two dictionaries: MoCo, He et al., CVPR 2020, figure 2. https://arxiv.org/abs/1911.05722

Modality   images
Hidden     which of all images in the dictionary this one is.
Shown      one crop of every image with its own colours; a second one to make its key where the dictionary is not a memory bank.
Predicted  the image's own entry, by inner product of unit vectors over tau, against noise from the bank (equation 7) or all other keys.

Axes: B images in the batch of one process, C channels, H height, W width, D projection size, n items in the data, m draws of noise.
"""

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from selfsup.distributed import gather, world_size
from selfsup.losses import full_precision, info_nce, nce
from selfsup.method import Batch, Encoder, Method, Recipe
from selfsup.models.heads import mlp
from selfsup.models.multicrop import crop_side
from selfsup.models.teacher import follow, frozen_copy
from selfsup.views.augment import Look, draw
from selfsup.views.crops import TwoCrops
from selfsup.views.sampling import integers


class OneCropAndNoise:
    """One view of every image, "image" (B, C, S, S) in [0, 1], and "noise" (B, m) int64, numbers of items drawn uniformly; keeps "index".

    Args:
        look: how the view is drawn.
        items: n, how many items there are to draw from.
        noise: m.
    """

    def __init__(self, look: Look, items: int, noise: int) -> None:
        self.look, self.items, self.noise = look, items, noise

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Draw the view of each image and its noise."""
        index = batch["index"]
        noise = integers(len(index) * self.noise, generator, self.items).view(-1, self.noise)
        return {"image": draw(batch, self.look, generator), "noise": noise, "index": index}


class InstanceDiscrimination(Method):
    """Encoder and projection f, trained so that every image finds itself among all others; three places to keep the others in.

    "batch"  End to end: the keys are those of another view of the batch's own images, made by the same network, and the gradient flows into
             them too. Always fresh, but there are no more of them than images in the batch. InfoNCE.
    "bank"   Memory bank, what the paper has: one vector for each item of the data, moved towards f(item) whenever the item comes by, so
             there is one view an image. As large as the data, but an entry is as old as an epoch, and made by another network than its
             neighbour; at first all are random, so that nothing can be learned before the second epoch. NCE.
    "queue"  Keys of the batches before, made from another view by a copy of the network that follows it slowly, as in MoCo (method moco
             adds its heads, views and shuffled batch statistics). Larger than a batch, and fresher than a bank. InfoNCE.

    Args:
        encoder: maps (B, C, H, W) to (B, encoder.width); a projection to D dimensions makes f of it.
        image_size: height and width of an image, in pixels.
        crop_size: side of a crop in pixels, 1 to image_size, which is the paper's; None for three quarters of it and 24 or more where the
            encoder is small or a ResNet, so that things are as large in a crop as in the whole image, in less time; all of it for others.
        items: n, number of items in the data, for the bank.
        dictionary: batch, bank or queue; the paper's is the bank.
        temperature: tau, no unit; the paper's is 0.07.
        projection_size: D, width of the projection; the paper's is 128, and it compares images by it.
        hidden_size: width of the projection's hidden layer, 0 for a linear one as in the paper.
        noise: m, draws from the bank for each image, memory of B m D numbers; the paper's is 4,096.
        bank_momentum: share of an entry of the bank that stays when its item comes by, 0 to 1; 0 in the paper, 0.5 in its authors' code.
        proximal: lambda of equation 10, pull of f towards the bank's entry, at least 0; 0 for none; the paper's is 30 on ImageNet.
        queue_size: number of keys in the queue; MoCo's is 65,536 on ImageNet.
        key_momentum: share of the key network that stays at each step, 0 to 1; 0 for the network itself as it was; MoCo's is 0.999.
        colour_strength: multiplies the strengths of the colour changes, no unit; the paper's is 1.0.
        smallest_crop: area of the smallest crop, as a fraction of the image; the authors' code has 0.2.
        flip: probability of mirroring a view; 0.5 in the paper, 0 where left and right matter, as in digits.
    """

    # The paper: SGD with momentum 0.9, rate 0.03, batches of 256, 200 epochs.
    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=1.4e-3, batch_size=128, weight_decay=1e-2)

    bank: Tensor
    log_z: Tensor
    queue: Tensor
    oldest: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        image_size: int = 224,
        crop_size: int | None = None,
        items: int = 0,
        dictionary: Literal["batch", "bank", "queue"] = "batch",
        temperature: float = 0.1,
        projection_size: int = 128,
        hidden_size: int = 512,
        noise: int = 1024,
        bank_momentum: float = 0.5,
        proximal: float = 0.0,
        queue_size: int = 4096,
        key_momentum: float = 0.99,
        colour_strength: float = 1.0,
        smallest_crop: float = 0.2,
        flip: float = 0.5,
    ) -> None:
        super().__init__()
        if dictionary not in ("batch", "bank", "queue"):
            raise ValueError(f'dictionary must be "batch", "bank" or "queue", got "{dictionary}"')
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        if not (0 <= bank_momentum <= 1 and 0 <= key_momentum <= 1):
            raise ValueError(f"momenta must be between 0 and 1, got bank_momentum={bank_momentum}, key_momentum={key_momentum}")
        if noise < 1 or queue_size < 1 or proximal < 0 or hidden_size < 0:
            got = f"noise={noise}, queue_size={queue_size}, proximal={proximal}, hidden_size={hidden_size}"
            raise ValueError(f"noise and queue_size must be at least 1, proximal and hidden_size at least 0, got {got}")
        if dictionary == "bank" and items < 1:
            raise ValueError(f"a memory bank has a place for every item of the data: items must be at least 1, got {items}")
        self.encoder = encoder
        self.projector = mlp(encoder.width, *([hidden_size] if hidden_size else []), projection_size)
        self.dictionary, self.temperature = dictionary, temperature
        self.bank_momentum, self.proximal, self.key_momentum = bank_momentum, proximal, key_momentum
        side = crop_side(encoder, image_size, crop_size)
        crops = TwoCrops(side, colour_strength, scale=(smallest_crop, 1.0), flip=flip, colours=(0.4, 0.4, 0.4, 0.4), blur=0.0)
        if dictionary == "bank":
            self.register_buffer("bank", F.normalize(torch.randn(items, projection_size), dim=1))
            self.register_buffer("log_z", torch.tensor(math.inf))  # until the first batch has estimated it
            self.views = OneCropAndNoise(crops.first, items, noise)
        else:
            self.views = crops
        if dictionary == "queue":
            self.key_encoder, self.key_projector = frozen_copy(self.encoder), frozen_copy(self.projector)
            self.register_buffer("queue", F.normalize(torch.randn(queue_size, projection_size), dim=1))
            self.register_buffer("oldest", torch.zeros((), dtype=torch.int64))  # the row of the queue that the next key replaces
        self._new: list[tuple[Tensor, Tensor]] = []  # places and vectors of this step's micro-batches

    def loss(self, views: Batch) -> Tensor:
        if self.dictionary == "bank":
            return self._with_bank(views)
        if self.dictionary == "queue":
            return self._with_queue(views)
        # Both views in one pass, so that batch normalisation sees all 2B of them.
        queries, keys = self._f(torch.cat([views["first"], views["second"]])).chunk(2)
        return info_nce(queries, keys, self.temperature)

    def candidates(self, views: Batch) -> int | None:
        if self.dictionary == "bank":
            return None  # NCE asks of each by itself
        return len(self.queue) + 1 if self.dictionary == "queue" else len(views["first"]) * world_size()

    def _f(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        return unit(self.projector(self.encoder(images)))

    def _with_bank(self, views: Batch) -> Float[Tensor, ""]:
        f, v, log_n = self._f(views["image"]), self.bank[views["index"]], math.log(len(self.bank))
        data = scores(f, v[:, None], self.temperature)[:, 0]
        noise = scores(f, self.bank[views["noise"]], self.temperature)
        log_z = torch.where(self.log_z.isinf(), log_n + log_mean_exp(noise.detach()), self.log_z)  # equation 8, from the first batch only
        if self.training:
            self.log_z.copy_(log_z)
            moved = unit(self.bank_momentum * v + (1 - self.bank_momentum) * f.detach())
            self._new.append((gather(views["index"]), gather(moved)))
        chance = torch.full_like(noise, -log_n)  # Pn = 1 / n
        loss = nce(data - log_z, noise - log_z, chance[:, 0], chance)  # equations 4 to 7
        return loss + self.proximal * (f - v).square().sum(dim=1).mean()  # equation 10

    def _with_queue(self, views: Batch) -> Float[Tensor, ""]:
        with torch.no_grad():
            keys = unit(self.key_projector(self.key_encoder(views["second"])))
        if self.training:
            self._new.append((views["index"], gather(keys)))
        return info_nce(self._f(views["first"]), keys, self.temperature, negatives=self.queue)

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """This step's vectors go to their places in the bank, or replace the oldest of the queue."""
        if self.dictionary == "queue":
            follow(self.key_encoder, self.encoder, self.key_momentum)
            follow(self.key_projector, self.projector, self.key_momentum)
        if not self._new:
            return
        places, vectors = (torch.cat(parts) for parts in zip(*self._new, strict=True))
        self._new.clear()
        if self.dictionary == "bank":
            self.bank.index_copy_(0, places, vectors)
        else:
            rows = (self.oldest + torch.arange(len(vectors), device=vectors.device)) % len(self.queue)
            newest = slice(-len(self.queue), None)  # where there are more new keys than places
            self.queue.index_copy_(0, rows[newest], vectors[newest])
            self.oldest.add_(len(vectors)).remainder_(len(self.queue))

    def embed(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B width"]:
        return self.encoder(x)

    def compared(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D"]:
        return self.projector(self.encoder(x))


@full_precision
def unit(x: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
    """Rows of length 1."""
    return F.normalize(x, dim=1)


@full_precision
def scores(f: Float[Tensor, "B D"], v: Float[Tensor, "B m D"], temperature: float) -> Float[Tensor, "B m"]:
    """v . f / tau of each image with its own m entries: the logarithm of equation 4 but for Z."""
    return torch.einsum("bd,bmd->bm", f / temperature, v)


def log_mean_exp(x: Float[Tensor, "B m"]) -> Float[Tensor, ""]:
    """Logarithm of the mean of exp(x) over all entries of all processes."""
    rows = gather(x.logsumexp(dim=1))
    return rows.logsumexp(dim=0) - math.log(len(rows) * x.shape[1])
