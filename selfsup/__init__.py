"""selfsup learns from unlabelled data: assume part of the input is unknown, and predict it."""

import importlib
from typing import Any

__version__ = "0.1.0"

# Where each public name lives; imported at first use, so that `selfsup --help` needs no torch.
_HOMES = {
    "METHODS": "selfsup.methods",
    "pretrain": "selfsup.tasks.pretraining.pretrain",
    "load": "selfsup.tasks.saved.trained_encoder",
    "embed": "selfsup.tasks.search.embed",
    "evaluate": "selfsup.tasks.labels.evaluate",
    "compare": "selfsup.tasks.contest.compare",
    "distill": "selfsup.tasks.labels.distill",
    "denoise": "selfsup.tasks.make.pictures",
    "inpaint": "selfsup.tasks.make.pictures",
    "colorize": "selfsup.tasks.make.pictures",
    "detect": "selfsup.tasks.search.detect",
    "one_class": "selfsup.tasks.search.one_class",
    "compress": "selfsup.tasks.compression.compress",
    "decompress": "selfsup.tasks.compression.compress",
    "finetune": "selfsup.tasks.labels.finetune",
    "predict": "selfsup.tasks.saved.trained_classifier",
    "benchmark": "selfsup.tasks.labels.benchmark",
    "generate": "selfsup.tasks.make.generate",
    "similar": "selfsup.tasks.search.similar",
    "continue_texts": "selfsup.tasks.make.language",
    "perplexity": "selfsup.tasks.make.language",
    "in_context": "selfsup.tasks.labels.few_shot",
    "export": "selfsup.tasks.exchange.export",
    "import_encoder": "selfsup.tasks.exchange.import_encoder",
    "SSLTransformer": "selfsup.tasks.exchange.sklearn",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module selfsup has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
