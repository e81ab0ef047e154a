"""Discrete autoencoder: Categorical Reparameterization with Gumbel-Softmax.

Jang, Gu and Poole, ICLR 2017. https://arxiv.org/abs/1611.01144
The same relaxation, for bits too: Maddison, Mnih and Teh, ICLR 2017. https://arxiv.org/abs/1611.00712

Modality   images, vectors
Hidden     all of the input but what a code of symbols or bits keeps of it.
Shown      the input as it is.
Predicted  a distribution of every value of the input, given a code that the encoder draws.

Axes: B items in the batch, V variables, S symbols of each (1 for bits); images are (B, C, S, S), vectors (B, D).
"""

import math
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from selfsup.losses import full_precision, wide
from selfsup.method import Batch, Encoder, Method, Recipe, Update
from selfsup.models.decoders import decoder_of_code
from selfsup.models.likelihoods import Bernoulli, check_shares, make_likelihood
from selfsup.views import sampling
from selfsup.views.crops import clean

Code = Literal["one_hot", "binary"]


class CleanAndGumbel:
    """The input as it is, "clean", and "noise" (B, V, S): Gumbel(0, 1), or for bits the difference of two, which is logistic.

    Args:
        image_size: side of the central square that is shown, in pixels, 0 for vectors.
        variables, symbols: V and S; with one symbol the noise is that of a bit.
    """

    def __init__(self, image_size: int, variables: int, symbols: int) -> None:
        self.image_size, self.shape = image_size, (variables, symbols)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Draws the noise of each item."""
        x = clean(batch, self.image_size)
        u = sampling.uniform(len(x), generator, 0.0, 1.0, *self.shape).clamp(1e-7, 1 - 1e-7)
        return {"clean": x, "noise": u.logit() if self.shape[1] == 1 else -(-u.log()).log()}


class DiscreteAutoencoder(Method):
    """q(y|x), a linear head on the encoder, a code y drawn from it that gradients can pass, and p(x|y), a decoder.

    The loss is the negative evidence lower bound: reconstruction + beta KL(q(y|x) || uniform). A one-hot code of one variable is a
    clustering of the data: `symbols` names the cluster, and `selfsup.evaluation.clusters` says what it has to do with classes.

    Args:
        encoder: maps (B, C, S, S) or (B, D) to (B, encoder.width), which is what the user keeps.
        image_size: side of an image, in pixels, 8 or more; 0 for vectors.
        code: binary: bits; one_hot: each variable is one of `code_size` symbols. The paper has both.
        code_size: bits of a binary code, 1 or more, or symbols of each variable, 2 or more.
        variables: of a one-hot code, 1 or more; a binary code has `code_size` of them, and 1 here.
        estimator: gumbel_softmax hands the decoder a soft code (equation 2); straight_through the hard one, with the gradient of the soft
            one (section 2.2). The paper has both.
        temperature: tau at the start, no unit, above 0; the paper's is 1.
        last_temperature: tau at the end; in between it falls exponentially, as in the paper, whose least is 0.5.
        beta: weight of the divergence, 0 or more, no unit; the paper's is 1.
        likelihood: p(x|y): bernoulli for values in [0, 1], gaussian for values of any range; None for bernoulli of images, gaussian of
            vectors. The paper's is bernoulli.
        sigma: standard deviation of the gaussian, in units of images or in standard deviations of each column; None learns one.
        hidden_size: width of both hidden layers of the decoder of vectors; that of images is convolutional.
    """

    recipe: ClassVar[Recipe] = Recipe(optimizer="adamw", lr=1e-3, batch_size=128, weight_decay=0.0)

    temperature: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        image_size: int = 32,
        code: Code = "binary",
        code_size: int = 64,
        variables: int = 1,
        estimator: Literal["gumbel_softmax", "straight_through"] = "gumbel_softmax",
        temperature: float = 1.0,
        last_temperature: float = 0.5,
        beta: float = 1.0,
        likelihood: Literal["bernoulli", "gaussian"] | None = None,
        sigma: float | None = None,
        hidden_size: int = 512,
    ) -> None:
        super().__init__()
        _check(code, code_size, variables, estimator)
        if not (0 < temperature < math.inf and 0 < last_temperature < math.inf):
            raise ValueError(f"temperature and last_temperature must be positive, got {temperature} and {last_temperature}")
        if beta < 0:
            raise ValueError(f"beta must be at least 0, got {beta}")
        self.binary, self.hard, self.beta = code == "binary", estimator == "straight_through", beta
        self.shape = (code_size, 1) if self.binary else (variables, code_size)
        self.encoder = encoder
        self.head = nn.Linear(encoder.width, math.prod(self.shape))
        self.decoder = decoder_of_code(encoder, math.prod(self.shape), image_size=image_size, hidden_size=hidden_size)
        kind = likelihood or ("bernoulli" if image_size else "gaussian")
        self.likelihood = make_likelihood(kind, image_size=image_size, sigma=sigma, normalize=getattr(encoder, "normalize", None))
        self.temperatures = (temperature, last_temperature)
        self.register_buffer("temperature", torch.tensor(temperature))
        self.views = CleanAndGumbel(image_size, *self.shape)

    def logits(self, x: Float[Tensor, "B *rest"]) -> Float[Tensor, "B V S"]:
        """Unnormalised log q(y|x) of the symbols of each variable, or log-odds of each bit, in float32."""
        return wide(self.head(self.encoder(x))).unflatten(1, self.shape)

    def loss(self, views: Batch) -> Tensor:
        """Reconstruction + beta KL, in nats an item; `views` has "clean" and "noise" (B, V, S)."""
        return next(self.updates(views)).loss

    def updates(self, views: Batch) -> Iterator[Update]:
        """The loss, with its two parts before beta, and how many symbols a variable uses in the batch (of bits, up to 2)."""
        x = views["clean"]
        if isinstance(self.likelihood, Bernoulli):
            check_shares(x)
        logits = self.logits(x)
        y = relax(logits, views["noise"], self.temperature, hard=self.hard)
        reconstruction = -self.likelihood.log_prob(x, wide(self.decoder(y.flatten(1)))).mean()
        kl = divergence(logits).sum(dim=1).mean()
        metrics = {"reconstruction_nats": reconstruction, "kl_nats": kl, "symbols_used": perplexity(hardest(logits)).mean()}
        yield Update(reconstruction + self.beta * kl, metrics={name: value.detach() for name, value in metrics.items()})

    def after_step(self, progress: float) -> None:
        """Cool down."""
        first, last = self.temperatures
        self.temperature.fill_(first * (last / first) ** progress)

    def code(self, x: Float[Tensor, "B *rest"]) -> Float[Tensor, "B Z"]:
        """The likeliest code, zeros and ones: bits, or the one-hot vectors of all variables side by side; Z = V S."""
        return hardest(self.logits(x)).flatten(1)

    def symbols(self, x: Float[Tensor, "B *rest"]) -> Int[Tensor, "B V"]:
        """The likeliest symbol of each variable, 0 to code_size - 1; of a binary code, its bits."""
        hard = hardest(self.logits(x))
        return hard[..., 0].long() if self.binary else hard.argmax(dim=2)

    def decode(self, z: Float[Tensor, "B Z"]) -> Float[Tensor, "B *rest"]:
        """Mean of p(x|y); codes between those of zeros and ones are as good as their relaxation was in training."""
        return self.likelihood.mean(wide(self.decoder(z)))

    def reconstruct(self, x: Float[Tensor, "B *rest"]) -> Float[Tensor, "B *rest"]:
        """Mean of p(x|y) with the likeliest code."""
        return self.decode(self.code(x))

    def sample(self, n: int) -> Float[Tensor, "{n} *rest"]:
        """Means of p(x|y) with y uniform, from torch's global generator."""
        return self.decode(hardest(torch.randn(n, *self.shape, device=self.head.weight.device)).flatten(1))

    def explain(self, x: Float[Tensor, "B *rest"]) -> Mapping[str, Tensor]:
        """How often each symbol or bit is used; of several variables, how many symbols each of them uses, as perplexity."""
        hard = hardest(self.logits(x))
        if self.binary:
            return {"Share of items with each bit set": hard.mean(dim=0)[:, 0]}
        if self.shape[0] == 1:
            return {"Share of items with each symbol": hard.mean(dim=0)[0]}
        return {"Symbols that each variable uses, perplexity": perplexity(hard)}


@full_precision
def relax(
    logits: Float[Tensor, "B V S"], noise: Float[Tensor, "B V S"], temperature: float | Float[Tensor, ""], *, hard: bool
) -> Float[Tensor, "B V S"]:
    """A draw from the Gumbel-softmax distribution, equation 2: softmax of (log pi + g) / tau, or its sigmoid for bits (S = 1).

    Args:
        hard: round to the nearest code, and let the gradient pass as if it had not been (section 2.2).
    """
    scores = (logits + noise) / temperature
    y = scores.sigmoid() if scores.shape[2] == 1 else scores.softmax(dim=2)
    return y + (hardest(scores) - y).detach() if hard else y


@full_precision
def divergence(logits: Float[Tensor, "B V S"]) -> Float[Tensor, "B V"]:
    """KL(q(y|x) || uniform) of each variable, in nats: log S less the entropy; for bits (S = 1) log 2 less theirs."""
    if logits.shape[2] == 1:
        logits = torch.cat([logits, torch.zeros_like(logits)], dim=2)
    log_q = logits.log_softmax(dim=2)
    return math.log(logits.shape[2]) + (log_q.exp() * log_q).sum(dim=2)


def hardest(logits: Float[Tensor, "B V S"]) -> Float[Tensor, "B V S"]:
    """The likeliest code: one-hot over S, or for bits (S = 1) 1 where the log-odds are above 0."""
    if logits.shape[2] == 1:
        return (logits > 0).to(logits.dtype)
    return F.one_hot(logits.argmax(dim=2), logits.shape[2]).to(logits.dtype)


def perplexity(hard: Float[Tensor, "B V S"]) -> Float[Tensor, " V"]:
    """exp of the entropy of each variable's use over the batch: as many symbols, used equally, would have it."""
    share = hard.mean(dim=0)
    if share.shape[1] == 1:
        share = torch.cat([share, 1 - share], dim=1)
    return (-torch.special.xlogy(share, share).sum(dim=1)).exp()


def _check(code: str, code_size: int, variables: int, estimator: str) -> None:
    if code not in ("binary", "one_hot"):
        raise ValueError(f'code must be "binary" or "one_hot", got "{code}"')
    if estimator not in ("gumbel_softmax", "straight_through"):
        raise ValueError(f'estimator must be "gumbel_softmax" or "straight_through", got "{estimator}"')
    if code == "binary" and (code_size < 1 or variables != 1):
        raise ValueError(f"a binary code needs code_size 1 or more and variables 1, got {code_size} and {variables}")
    if code == "one_hot" and (code_size < 2 or variables < 1):
        raise ValueError(f"a one_hot code needs code_size 2 or more and variables 1 or more, got {code_size} and {variables}")
