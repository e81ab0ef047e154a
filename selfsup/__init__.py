"""selfsup learns from unlabelled data: assume part of the input is unknown, and predict it."""

import importlib
from typing import Any

__version__ = "0.1.0"

# Where each public name lives; imported at first use, so that `selfsup --help` needs no torch.
_HOMES = {
    "METHODS": "selfsup.methods",
    "pretrain": "selfsup.tasks.pretrain",
    "load": "selfsup.tasks.encoder",
    "embed": "selfsup.tasks.embed",
    "evaluate": "selfsup.tasks.evaluate",
    "compare": "selfsup.tasks.compare",
    "distill": "selfsup.tasks.distill",
    "denoise": "selfsup.tasks.pictures",
    "inpaint": "selfsup.tasks.pictures",
    "colorize": "selfsup.tasks.pictures",
    "detect": "selfsup.tasks.detect",
    "one_class": "selfsup.tasks.one_class",
    "compress": "selfsup.tasks.compress",
    "decompress": "selfsup.tasks.compress",
    "finetune": "selfsup.tasks.finetune",
    "predict": "selfsup.tasks.classifier",
    "benchmark": "selfsup.tasks.benchmark",
    "generate": "selfsup.tasks.generate",
    "similar": "selfsup.tasks.similar",
    "continue_texts": "selfsup.tasks.language",
    "perplexity": "selfsup.tasks.language",
    "in_context": "selfsup.tasks.in_context",
    "export": "selfsup.tasks.export",
    "import_encoder": "selfsup.tasks.import_encoder",
    "SSLTransformer": "selfsup.tasks.sklearn",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module selfsup has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
