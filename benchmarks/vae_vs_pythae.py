"""VAE training, selfsup against pythae: images/s of the whole loop and the bound reached, with the same networks, batch and epochs.

    python benchmarks/vae_vs_pythae.py MNIST --out results/vae_vs_pythae.json
    python benchmarks/vae_vs_pythae.py MNIST --images 6000 --epochs 3 --rounds 2      # a look

MNIST is the folder with the four IDX files; images are binarised once, as in mnist_vae.py, and are 784-vectors on both sides. The
encoder is selfsup's `mlp` with two linear heads, the decoder two hidden layers of 512, 50 latent units, Bernoulli likelihood; both train
with Adam at a constant rate and no decay. Every measurement is a process of its own; they alternate (A B, B A ...). The clocks start after
the first epoch; that of the cores is for machines that others use. The bound is that of the last weights on all 10,000 test images, by the
same code for both, with the interval of 95 % over rounds, each of which is another seed. What each contender is:

pythae        its BaseTrainer on tensors in memory, as it documents: float32, its progress bar off
selfsup       engine.loop.fit with its Loader and its precision on this machine
selfsup-fp32, selfsup-bf16   the same with the precision given
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from common import HERE, announce, interleaved, median, now, run_child, setting, table, write_json
from mnist_vae import binarised
from torch import nn

from selfsup.evaluation.evidence import evidence_bound
from selfsup.evaluation.few_label import t_quantile
from selfsup.method import Batch
from selfsup.methods.vae import VAE
from selfsup.models import build_encoder

CONTENDERS = ("pythae", "selfsup", "selfsup-fp32", "selfsup-bf16")
LATENT = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with MNIST's IDX files")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=["pythae", "selfsup", "selfsup-fp32"])
    parser.add_argument("--epochs", type=int, default=5, help="2 or more")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=60_000, help="of the training set, the first ones")
    parser.add_argument("--out", type=Path, help="JSON")
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)  # one measurement, in a process of its own
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.epochs < 2:
        raise SystemExit("the clock starts after the first epoch: choose --epochs 2 or more")
    if arguments.only:
        print(json.dumps(measure(arguments)))
    else:
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    facts, results = setting(), []
    announce(facts)
    given = {name: getattr(arguments, name) for name in ("epochs", "batch", "lr", "images")}
    for i, name in interleaved(arguments.contenders, arguments.rounds):
        options = [f"--{key}={value}" for key, value in {**given, "seed": i, "only": name}.items()]
        out, _ = run_child([str(HERE / "vae_vs_pythae.py"), str(arguments.data), *options], every=0.5)
        results.append({"round": i, "contender": name, **json.loads(out.splitlines()[-1])})
        print({key: round(value, 2) if isinstance(value, float) else value for key, value in results[-1].items()}, flush=True)
    rows = [summary(name, results) for name in arguments.contenders]
    print(f"\nVAE, batch {arguments.batch}, {arguments.epochs} epochs; medians of {arguments.rounds} rounds, ratios of the rounds")
    table(rows)
    write_json(arguments.out, {**facts, "options": vars(arguments), "summary": rows, "rounds": results})


def summary(name: str, results: list[dict[str, Any]]) -> dict[str, Any]:
    mine = [r for r in results if r["contender"] == name]
    theirs = {r["round"]: r for r in results if r["contender"] == "pythae"}
    rates, elbos = ([r[key] for r in mine] for key in ("images_per_second", "elbo"))
    row = {"contender": name, "precision": mine[0]["precision"], "images/s": median(rates), "least": min(rates), "most": max(rates)}
    for key, title in (("images_per_second", "/ pythae"), ("images_per_core_second", "/ pythae, core time")):
        row[title] = median(r[key] / theirs[r["round"]][key] for r in mine) if theirs else None
    row |= {"elbo": sum(elbos) / len(elbos), "+-": reach(elbos)}
    more = [r["elbo"] - theirs[r["round"]]["elbo"] for r in mine if r["round"] in theirs]
    return {**row, "elbo - pythae's": sum(more) / len(more) if more else None, "+- of it": reach(more)}


def reach(values: list[float]) -> float | None:
    """Half of the interval that holds the true mean with 95 %, by Student's t."""
    n = len(values)
    return t_quantile(0.95, n - 1) * float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else None


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    train, test = binarised(arguments.data, 0)
    train = train[: arguments.images]
    torch.manual_seed(arguments.seed)
    method = VAE(build_encoder("mlp", channels=784, image_size=0), image_size=0, latent_size=LATENT, likelihood="bernoulli")
    one = measure_pythae if arguments.only == "pythae" else measure_selfsup
    with TemporaryDirectory() as folder:
        found = one(arguments, method, train, Path(folder))
    method.eval()
    elbo = evidence_bound(method, torch.from_numpy(test).split(1000)).elbo
    return {**found, "elbo": elbo, "parameters": sum(p.numel() for p in method.parameters())}


def measure_pythae(arguments: argparse.Namespace, method: VAE, train: np.ndarray, folder: Path) -> dict[str, Any]:
    """Trains the networks of `method` in place, wrapped as pythae asks for."""
    import logging

    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE as TheirVAE
    from pythae.models import VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import ProgressBarCallback, TrainingCallback

    class Encoder(BaseEncoder):
        def __init__(self, trunk: nn.Module, heads: nn.Module) -> None:
            super().__init__()
            self.trunk, self.heads = trunk, heads

        def forward(self, x: torch.Tensor) -> ModelOutput:
            mu, log_var = self.heads(self.trunk(x)).chunk(2, dim=1)
            return ModelOutput(embedding=mu, log_covariance=log_var)

    class Decoder(BaseDecoder):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, z: torch.Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.net(z).sigmoid())

    class Clock(TrainingCallback):
        def on_epoch_end(self, training_config: Any, **kwargs: Any) -> None:
            times.append(now())

    logging.disable(logging.INFO)
    model_config = VAEConfig(input_dim=(784,), latent_dim=LATENT, reconstruction_loss="bce")
    model = TheirVAE(model_config, Encoder(method.encoder, method.heads), Decoder(method.decoder))
    config = BaseTrainerConfig(
        output_dir=str(folder),
        num_epochs=arguments.epochs,
        learning_rate=arguments.lr,
        per_device_train_batch_size=arguments.batch,
        optimizer_cls="Adam",
        seed=arguments.seed,
        no_cuda=True,
    )
    times: list[tuple[float, float]] = []
    data = BaseDataset(torch.from_numpy(train), torch.zeros(len(train)))
    trainer = BaseTrainer(model, data, training_config=config, callbacks=[Clock()])
    prepare = trainer.prepare_training

    def quietly() -> None:  # a bar that is written to no terminal still takes time
        prepare()
        handler = trainer.callback_handler
        handler.callbacks = [callback for callback in handler.callbacks if not isinstance(callback, ProgressBarCallback)]

    trainer.prepare_training = quietly
    trainer.train()
    return {**rates((arguments.epochs - 1) * len(train), times[0], times[-1]), "precision": "fp32"}


def measure_selfsup(arguments: argparse.Namespace, method: VAE, train: np.ndarray, folder: Path) -> dict[str, Any]:
    from selfsup.data import Loader, open_data
    from selfsup.engine.loop import Training, fit
    from selfsup.tasks.pretraining.plan import has_fast_bf16

    items, device = open_data(train), torch.device("cpu")
    bf16 = {"selfsup-fp32": False, "selfsup-bf16": True}.get(arguments.only, has_fast_bf16(device))
    recipe = replace(VAE.recipe, lr=arguments.lr, schedule="constant", warmup=0.0)
    an_epoch = len(train) // arguments.batch
    training = Training(recipe, arguments.batch, steps=arguments.epochs * an_epoch, bf16=bf16, seed=arguments.seed)
    times: list[tuple[float, float]] = []

    def batches(step: int) -> Iterator[Batch]:
        for i, batch in enumerate(Loader(items, arguments.batch, seed=arguments.seed, start_step=step)):
            if i == an_epoch:
                times.append(now())
            yield batch

    fit(method, training, folder, batches=batches, device=device)
    images = (arguments.epochs - 1) * an_epoch * arguments.batch
    return {**rates(images, times[0], now()), "precision": "bf16" if bf16 else "fp32"}


def rates(images: int, begin: tuple[float, float], end: tuple[float, float]) -> dict[str, float]:
    return {"images_per_second": images / (end[0] - begin[0]), "images_per_core_second": images / (end[1] - begin[1])}


if __name__ == "__main__":
    main()
