"""BERT and GPT-2 as `transformers` names them: its tensors and settings from a `TextTransformer`, and back.

Nothing here needs that library. BERT has three matrices there for queries, keys and values, and one here; GPT-2's matrices lie transposed;
of BERT's two answers about the next sentence "yes" is the first one there, the second here.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from selfsup.models.text import SIZES, TextTransformer

CAUSAL = {
    "BertModel": False,
    "BertForMaskedLM": False,
    "BertForPreTraining": False,
    "GPT2Model": True,
    "GPT2LMHeadModel": True,
}
"""Architectures that can be read, and whether they are causal."""

BESIDE, COUNTED = ("pooler.", "cls.", "lm_head."), ("embeddings.position_ids", ".attn.bias", ".attn.masked_bias")
"""How names begin of tensors that belong to no encoder, and end of those that are no weights."""


class Pair(NamedTuple):
    """One tensor here, and where it lies there.

    Attributes:
        ours: its name in a `TextTransformer`, or of a head's in the method `bert`.
        theirs: names whose tensors, joined along the first axis, it is.
        laid: how they lie there beside ours.
    """

    ours: str
    theirs: tuple[str, ...]
    laid: Literal["same", "transposed", "upside down"] = "same"


def pairs(layers: int, *, causal: bool) -> list[Pair]:
    """Every tensor of an encoder, with the names of `GPT2Model` where it is causal, of `BertModel` where not."""
    return _gpt2(layers) if causal else _bert(layers)


def _bert(layers: int) -> list[Pair]:
    tables = {"tokens": "word_embeddings", "positions": "position_embeddings", "kinds": "token_type_embeddings"}
    found = [Pair(f"{ours}.weight", (f"embeddings.{theirs}.weight",)) for ours, theirs in tables.items()]
    found += _linear("norm", "embeddings.LayerNorm")
    names = {
        "out": "attention.output.dense",
        "norm1": "attention.output.LayerNorm",
        "up": "intermediate.dense",
        "down": "output.dense",
        "norm2": "output.LayerNorm",
    }
    for i in range(layers):
        for kind in ("weight", "bias"):
            three = tuple(f"encoder.layer.{i}.attention.self.{part}.{kind}" for part in ("query", "key", "value"))
            found.append(Pair(f"layers.{i}.qkv.{kind}", three))
        for ours, theirs in names.items():
            found += _linear(f"layers.{i}.{ours}", f"encoder.layer.{i}.{theirs}")
    return found


def _gpt2(layers: int) -> list[Pair]:
    found = [Pair("tokens.weight", ("wte.weight",)), Pair("positions.weight", ("wpe.weight",)), *_linear("norm", "ln_f")]
    names = {"qkv": "attn.c_attn", "out": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"}
    for i in range(layers):
        for ours, theirs in names.items():
            found.append(Pair(f"layers.{i}.{ours}.weight", (f"h.{i}.{theirs}.weight",), "transposed"))
            found.append(Pair(f"layers.{i}.{ours}.bias", (f"h.{i}.{theirs}.bias",)))
        for ours, theirs in {"norm1": "ln_1", "norm2": "ln_2"}.items():
            found += _linear(f"layers.{i}.{ours}", f"h.{i}.{theirs}")
    return found


def _linear(ours: str, theirs: str, laid: Literal["same", "upside down"] = "same") -> list[Pair]:
    return [Pair(f"{ours}.{kind}", (f"{theirs}.{kind}",), laid) for kind in ("weight", "bias")]


MASKED_HEAD = [
    *_linear("transform.0", "cls.predictions.transform.dense"),
    *_linear("transform.2", "cls.predictions.transform.LayerNorm"),
    Pair("bias", ("cls.predictions.bias",)),
]
NEXT_HEAD = [*_linear("pooler.0", "bert.pooler.dense"), *_linear("follows", "cls.seq_relationship", "upside down")]


def to_theirs(tensors: Mapping[str, Tensor], wanted: list[Pair], prefix: str = "") -> dict[str, Tensor]:
    """Our tensors under their names, behind `prefix`; float32 and contiguous.

    Raises:
        KeyError: a pair's tensor is not there.
    """
    found = {}
    for pair in wanted:
        parts = _turned(tensors[pair.ours].detach().float(), pair).chunk(len(pair.theirs))
        found |= {prefix + name: part.clone(memory_format=torch.contiguous_format) for name, part in zip(pair.theirs, parts, strict=True)}
    return found


def to_ours(tensors: Mapping[str, Tensor], wanted: list[Pair], prefix: str = "") -> dict[str, Tensor]:
    """Their tensors under our names, in float32.

    Raises:
        ValueError: some are missing; names the first.
    """
    missing = [prefix + name for pair in wanted for name in pair.theirs if prefix + name not in tensors]
    if missing:
        raise ValueError(f'no tensor "{missing[0]}" ({len(missing)} are missing); expected all that its architecture has')
    return {pair.ours: _turned(torch.cat([tensors[prefix + name].float() for name in pair.theirs]), pair).contiguous() for pair in wanted}


def _turned(tensor: Tensor, pair: Pair) -> Tensor:
    if pair.laid == "transposed":
        return tensor.T
    return tensor.flip(0) if pair.laid == "upside down" else tensor


def their_config(network: TextTransformer, architecture: str) -> dict[str, Any]:
    """`config.json` of a network."""
    common = {
        "architectures": [architecture],
        "vocab_size": network.vocabulary_size,
        "pad_token_id": network.pad,
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
        "torch_dtype": "float32",
    }
    width, layers, drop = network.width, len(network.layers), network.dropout
    if network.causal:
        sizes = {"n_embd": width, "n_layer": layers, "n_head": network.heads, "n_positions": network.length, "n_inner": None}
        fixed = {"activation_function": "gelu_new", "layer_norm_epsilon": 1e-5}
        drops = {"resid_pdrop": drop, "embd_pdrop": drop, "attn_pdrop": drop}
        return {"model_type": "gpt2", **common, **sizes, **fixed, **drops, "bos_token_id": network.end, "eos_token_id": network.end}
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": network.heads, "intermediate_size": 4 * width}
    fixed = {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "type_vocab_size": 2, "position_embedding_type": "absolute"}
    drops = {"hidden_dropout_prob": drop, "attention_probs_dropout_prob": drop}
    return {"model_type": "bert", **common, **sizes, "max_position_embeddings": network.length, **fixed, **drops}


class Shape(NamedTuple):
    """What a folder's `config.json` says: which network to build."""

    architecture: str
    causal: bool
    width: int
    layers: int
    heads: int
    vocabulary_size: int
    length: int

    @property
    def name(self) -> str:
        """Of an encoder: one of `SIZES` where the shape is known, else "bert" or "gpt"."""
        family = "gpt" if self.causal else "bert"
        mine = (self.width, self.layers, self.heads)
        return next((name for name, shape in SIZES.items() if name.startswith(family) and shape == mine), family)


BERT_SIZES = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "vocabulary_size": "vocab_size",
    "length": "max_position_embeddings",
}
GPT2_SIZES = {"width": "n_embd", "layers": "n_layer", "heads": "n_head", "vocabulary_size": "vocab_size", "length": "n_positions"}
FIXED: dict[str, tuple[Any, ...]] = {"is_decoder": (False,), "add_cross_attention": (False,), "tie_word_embeddings": (True,)}
BERT_FIXED = {
    **FIXED,
    "hidden_act": ("gelu",),
    "layer_norm_eps": (1e-12,),
    "type_vocab_size": (2,),
    "position_embedding_type": ("absolute",),
}
GPT2_FIXED = {
    **FIXED,
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
}
"""Settings that change what is computed, and what these networks have; the first that a folder says otherwise is refused."""


def our_shape(config: Mapping[str, Any]) -> Shape:
    """The network of a `config.json`.

    Raises:
        ValueError: another architecture, or a setting that `TextTransformer` does not have; names it.
    """
    kind = config.get("model_type")
    told = config.get("architectures") or [{"bert": "BertModel", "gpt2": "GPT2Model"}.get(str(kind), "none")]
    architecture = str(told[0])
    if kind not in ("bert", "gpt2") or architecture not in CAUSAL or CAUSAL[architecture] != (kind == "gpt2"):
        raise ValueError(f'cannot read a {architecture} of type "{kind}"; expected one of {", ".join(CAUSAL)}')
    names, must = (GPT2_SIZES, GPT2_FIXED) if kind == "gpt2" else (BERT_SIZES, BERT_FIXED)
    sizes = {ours: config.get(theirs) for ours, theirs in names.items()}
    for ours, n in sizes.items():
        if not isinstance(n, int) or n < 1:
            raise ValueError(f'config.json: "{names[ours]}" must be a positive whole number, got {n!r}')
    width, heads = config[names["width"]], config[names["heads"]]
    if width % heads:
        raise ValueError(f"config.json: a width of {width} does not divide by {heads} heads")
    inner = {"n_inner": (None, 4 * width)} if kind == "gpt2" else {"intermediate_size": (4 * width,)}
    for key, allowed in {**must, **inner}.items():
        if key in config and config[key] not in allowed:
            raise ValueError(f'config.json: "{key}" is {config[key]!r}, and these networks have {" or ".join(map(repr, allowed))} only')
    return Shape(architecture, kind == "gpt2", **sizes)  # type: ignore[arg-type]


def check_names(tensors: Mapping[str, Tensor], wanted: list[Pair], prefix: str) -> None:
    """Raise ValueError for a tensor that the architecture does not have, such as an adapter's, which would change what it computes."""
    known = {prefix + name for pair in wanted for name in pair.theirs}
    rest = [name for name in tensors if name not in known]
    odd = [name for name in rest if not (name.removeprefix(prefix).startswith(BESIDE) or name.endswith(COUNTED))]
    if odd:
        raise ValueError(f'a tensor "{odd[0]}" ({len(odd)} such) that this architecture does not have; was it changed by an adapter?')
