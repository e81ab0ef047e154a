"""Exchange with transformers and sentence-transformers: the largest difference of outputs, on untrained networks of three sizes.

    python benchmarks/hugging_face.py --out results/hugging_face.json

For BERT and GPT-2, each way: selfsup trains for two steps and exports, transformers loads (last layer, scores of the head, token numbers);
transformers makes a network and saves it, selfsup imports (last layer, scores of the head; of GPT-2 also as `selfsup.load`'s vectors, by
hand). Then `SentenceTransformer(folder).encode` beside `selfsup.embed`. Texts have several lengths, so that padding is met. Weights are
scaled up, since those that a network begins with hide errors: what attention does is then almost nothing.
"""

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torchvision_on_cpu  # noqa: F401 - makes torchvision load, which transformers imports
from common import announce, setting, table, write_json

os.environ["HF_HUB_OFFLINE"] = "1"

import transformers
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

import selfsup
from selfsup.engine.state import unique_state
from selfsup.tasks.saved.trained_method import TrainedMethod, load_method

SIZES = {"bert": ("bert_tiny", "bert_mini", "bert_small"), "gpt": ("gpt_nano", "gpt_mini", "gpt2")}
BERT_SHAPES = ((64, 2, 2), (256, 4, 4), (384, 3, 12))
GPT_SHAPES = ((64, 2, 2), (128, 4, 4), (192, 3, 6))
VERBS = ("sees", "hides", "predicts", "keeps", "reads")
WORDS = ("the small cat", "an encoder", "every token of a text", "what is hidden", "Zürich", "unbelievable numbers")
TEXTS = [f"{a} {v} {b}." * (1 + i % 3) for i, a in enumerate(WORDS) for v in VERBS for b in WORDS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    facts = {**setting(), "transformers": transformers.__version__}
    announce(facts)
    rows = []
    for method, names in SIZES.items():
        for name in names:
            for extra in ({}, {"next_sentence": True}) if name == "bert_tiny" else ({},):
                with TemporaryDirectory() as folder:
                    rows.append(outward(method, name, Path(folder), extra))
                    print(rows[-1], flush=True)
    for family, shapes in (("bert", BERT_SHAPES), ("gpt", GPT_SHAPES)):
        for shape in shapes:
            with TemporaryDirectory() as folder:
                rows.append(inward(family, shape, Path(folder)))
                print(rows[-1], flush=True)
    print()
    table(rows)
    worst = max(v for row in rows for v in row.values() if isinstance(v, float))
    print(f"largest difference {worst:.2g}")
    write_json(arguments.out, {**facts, "rows": rows, "largest": worst})
    if worst > 1e-4 or not all(row["ids"] for row in rows):
        raise SystemExit("outputs differ by more than 1e-4")


def stirred(module: nn.Module) -> None:
    """Weights that a trained network might have: larger, no bias 0, no scale 1."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * (0.05 if p.ndim > 1 else 0.1))


def outward(method: str, name: str, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """From selfsup to transformers."""
    documents = ["\n".join(TEXTS[i : i + 6]) for i in range(0, len(TEXTS), 6)]
    short: dict[str, Any] = {"steps": 2, "batch_size": 4, "vocabulary_size": 400, "sequence_length": 48, "quiet": True}
    run = selfsup.pretrain(documents, method, encoder=name, out=folder / "run", **short, **options).path
    trained = load_method(run)
    stirred(trained.method)
    rewrite(run, trained)
    selfsup.export(run, out=folder / "hf")
    ids = padded(trained)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "hf")
    assert trained.tokenizer is not None
    given = tokenizer(TEXTS, truncation=True, padding=True, return_tensors="pt")
    plain = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    same = plain == [x.tolist() for x in trained.tokenizer.encode(TEXTS)]
    same &= torch.equal(given["input_ids"], ids) if method == "bert" else True
    base = transformers.AutoModel.from_pretrained(folder / "hf").eval()
    auto = transformers.AutoModelForMaskedLM if method == "bert" else transformers.AutoModelForCausalLM
    whole = auto.from_pretrained(folder / "hf").eval()
    selfsup.export(run, out=folder / "st", format="sentence-transformers")
    sentences = SentenceTransformer(str(folder / "st"), device="cpu")
    with torch.no_grad():
        mask = (ids != trained.method.encoder.pad).long()
        theirs, scores = base(input_ids=ids, attention_mask=mask), whole(input_ids=ids, attention_mask=mask).logits
        hidden = trained.method.encoder.hidden(ids)
        row = {
            "from": "selfsup",
            "network": name,
            "as": base.config.architectures[0],
            "last layer": largest(theirs.last_hidden_state, hidden, mask),
            "scores": largest(scores, trained.method.scores(hidden), mask),
            "ids": bool(same),
        }
        if options:
            pair = transformers.BertForPreTraining.from_pretrained(folder / "hf").eval()
            m = trained.method
            row["next sentence"] = largest(
                pair(input_ids=ids, attention_mask=mask).seq_relationship_logits.flip(1), m.follows(m.pooler(hidden[:, 0]))
            )
        found = torch.from_numpy(sentences.encode(TEXTS, convert_to_numpy=True))
        row["sentences"] = largest(found, torch.from_numpy(selfsup.embed(run, TEXTS)))
    return row


def rewrite(run: Path, trained: TrainedMethod) -> None:
    """Put the changed weights into the run, as a checkpoint and as its encoder."""
    from selfsup.engine.checkpoint import checkpoint_path, load_tensors, read_json, save_tensors, steps_saved
    from selfsup.tasks.saved.trained_encoder import save_encoder

    last = checkpoint_path(run / "checkpoints", steps_saved(run / "checkpoints")[-1])
    optimizer, state = load_tensors(last, "optimizer"), read_json(last / "state.json")
    save_tensors(last, {"model": unique_state(trained.method), "optimizer": optimizer}, {"state": state})
    save_encoder(run / "encoder", trained.method.encoder, trained.config, trained.tokenizer)


def padded(trained: TrainedMethod) -> Tensor:
    """Token numbers of the texts, as the network takes them."""
    items = trained.open(TEXTS)
    return items.batch(np.arange(len(items)))["text"]


def largest(a: Tensor, b: Tensor, mask: Tensor | None = None) -> float:
    """Largest difference, where no padding is."""
    off = (a - b).abs()
    return float((off if mask is None else off[mask.bool()]).max())


def inward(family: str, shape: tuple[int, int, int], folder: Path) -> dict[str, Any]:
    """From transformers to selfsup."""
    width, layers, heads = shape
    from selfsup.data.text.tokenizer import train_tokenizer

    made = train_tokenizer(TEXTS, "wordpiece" if family == "bert" else "bpe", vocabulary_size=400)
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=made._inner, **special)
    if family == "bert":
        config: Any = transformers.BertConfig(
            vocab_size=made.size,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            max_position_embeddings=64,
        )
        model: Any = transformers.BertForPreTraining(config)
    else:
        config = transformers.GPT2Config(vocab_size=made.size, n_embd=width, n_layer=layers, n_head=heads, n_positions=64)
        model = transformers.GPT2LMHeadModel(config)
    model.eval()
    stirred(model)
    model.save_pretrained(folder / "hf")
    theirs.save_pretrained(folder / "hf")
    encoder = selfsup.import_encoder(folder / "hf", out=folder / "imported")
    trained = load_method(folder / "imported")
    ids = padded(trained)
    network: Any = encoder.network
    mask = (ids != network.pad).long()
    with torch.no_grad():
        base = model.bert if family == "bert" else model.transformer
        out = model(input_ids=ids, attention_mask=mask)
        hidden = network.hidden(ids)
        last = base(input_ids=ids, attention_mask=mask).last_hidden_state
        same = [theirs(t, add_special_tokens=False)["input_ids"] for t in TEXTS] == [x.tolist() for x in trained.tokenizer.encode(TEXTS)]
        row = {
            "from": "transformers",
            "network": encoder.config["encoder"]["name"],
            "as": type(model).__name__,
            "last layer": largest(last, hidden, mask),
            "scores": largest(out.logits if family == "gpt" else out.prediction_logits, trained.method.scores(hidden), mask),
            "ids": same,
        }
        if family == "bert":
            m: Any = trained.method
            row["next sentence"] = largest(out.seq_relationship_logits.flip(1), m.follows(m.pooler(hidden[:, 0])))
        mean = (last * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        row["sentences"] = largest(mean, torch.from_numpy(selfsup.embed(folder / "imported", TEXTS)))
    return row


if __name__ == "__main__":
    main()
