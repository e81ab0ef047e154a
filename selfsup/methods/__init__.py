"""Every method, one paper one file. The id is the public name and the module's name; adding a method adds one line here."""

from __future__ import annotations

import ast
import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selfsup.method import Method

METHODS: dict[str, str] = {
    "simclr": "SimCLR",
    "moco": "MoCo",
    "byol": "BYOL",
    "simsiam": "SimSiam",
    "barlow_twins": "BarlowTwins",
    "vicreg": "VICReg",
    "swav": "SwAV",
    "dino": "DINO",
    "mae": "MAE",
    "ijepa": "IJEPA",
    "supcon": "SupCon",
    "instance_discrimination": "InstanceDiscrimination",
    "cpc": "CPC",
    "relative_position": "RelativePosition",
    "jigsaw": "Jigsaw",
    "rotation": "Rotation",
    "autoencoder": "Autoencoder",
    "context_encoder": "ContextEncoder",
    "colorization": "Colorization",
    "split_brain": "SplitBrain",
    "denoising": "Denoising",
    "stacked_denoising": "StackedDenoising",
    "neighbor2neighbor": "Neighbor2Neighbor",
    "vae": "VAE",
    "discrete_autoencoder": "DiscreteAutoencoder",
    "gan": "GAN",
    "vqvae": "VQVAE",
    "word2vec": "Word2Vec",
    "bert": "BERT",
    "gpt": "GPT",
    "simcse": "SimCSE",
    "consert": "ConSERT",
}


@dataclass(frozen=True)
class Facts:
    """What the head of a method's file says; see any of them for the form."""

    id: str
    title: str
    paper: str
    modality: str
    hidden: str
    shown: str
    predicted: str


def method_class(method: str) -> type[Method]:
    """The class of a method's id.

    Raises:
        ValueError: no such method; names the nearest one.
    """
    _check(method)
    return getattr(importlib.import_module(f"selfsup.methods.{method}"), METHODS[method])


def describe(method: str) -> Facts:
    """What is hidden, shown and predicted, read from the file's docstring without importing it.

    Raises:
        ValueError: no such method, or its docstring lacks a line.
    """
    _check(method)
    text = ast.get_docstring(ast.parse((Path(__file__).parent / f"{method}.py").read_text())) or ""
    title, _, body = text.partition("\n")
    rows = {}
    for name in ("Modality", "Hidden", "Shown", "Predicted"):
        found = re.search(rf"^{name}\s+(.*(?:\n[ \t]+\S.*)*)", body, re.MULTILINE)
        if not found:
            raise ValueError(f'selfsup/methods/{method}.py: its docstring has no line that begins with "{name}"')
        rows[name.lower()] = re.sub(r"\s+", " ", found[1])
    paper = " ".join(re.findall(r"https?://\S+", body))
    return Facts(method, title.strip(), paper, **rows)


def _check(method: str) -> None:
    if method not in METHODS:
        import difflib

        near = difflib.get_close_matches(method, METHODS, n=1)
        hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(METHODS)}."
        raise ValueError(f'no method "{method}"; {hint} `selfsup methods` describes them')
