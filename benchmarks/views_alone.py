"""SimCLR's views on one core: selfsup on whole batches against torchvision's transforms image by image, interleaved in one run.

    OMP_NUM_THREADS=1 python benchmarks/views_alone.py

The peer's views are what lightly's SimCLRTransform composes on PIL images: RandomResizedCrop, flip, ColorJitter, grayscale, above 32
pixels GaussianBlur, then ToTensor. Both start from decoded images in memory and end in one float32 batch. Microseconds of processor time
a view, median and minimum over the rounds, and the ratio of the medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torchvision_on_cpu  # noqa: F401  (makes the next line's torchvision import beside a CPU build of torch)
from PIL import Image
from torchvision import transforms

from selfsup.views.crops import TwoCrops

CASES = [(32, 32), (32, 40), (64, 64), (64, 96), (224, 224), (224, 256)]
"""Side of the view and of the stored image, in pixels."""


def ours(size: int, images: torch.Tensor) -> Callable[[], object]:
    views, generator = TwoCrops(size, 0.5), torch.Generator().manual_seed(0)
    return lambda: views({"image": images}, generator)


def torchvisions(size: int, images: torch.Tensor) -> Callable[[], object]:
    blur = transforms.GaussianBlur(max(3, int(0.1 * size) // 2 * 2 + 1), (0.1, 2.0))
    one = transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=(0.08, 1.0)),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            *([transforms.RandomApply([blur], p=0.5)] if size > 32 else []),
            transforms.ToTensor(),
        ]
    )
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    return lambda: (torch.stack([one(p) for p in pictures]), torch.stack([one(p) for p in pictures]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="how often each is measured")
    rounds = parser.parse_args().rounds
    torch.manual_seed(0)
    print(f"threads {torch.get_num_threads()}, torch {torch.__version__}")
    print("view image   selfsup us (min)   torchvision us (min)   ratio")
    for size, side in CASES:
        batch = max(8, min(256, 2**20 // side**2))
        # Smooth pictures: an encoder of noise would be a special case for nobody's transform.
        coarse = torch.randint(0, 256, (batch, 3, 8, 8), dtype=torch.uint8)
        images = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
        runs = {"ours": ours(size, images), "theirs": torchvisions(size, images)}
        spent: dict[str, list[float]] = {name: [] for name in runs}
        for warm in [True] + [False] * rounds:
            for name, run in runs.items():
                start = time.process_time()
                run()
                if not warm:
                    spent[name].append((time.process_time() - start) / (2 * batch) * 1e6)
        a, b = (statistics.median(spent[name]) for name in runs)
        print(
            f"{size:4d} {side:5d}   {a:10.1f} ({min(spent['ours']):.1f})   {b:14.1f} ({min(spent['theirs']):.1f})   {b / a:5.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
