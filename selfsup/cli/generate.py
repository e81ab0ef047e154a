"""`selfsup generate`: images, vectors or texts that a trained method makes. Results go to stdout, progress and errors to stderr."""

import json
from pathlib import Path
from typing import Any


def generate(
    run: Path,
    data: str | None = None,
    /,
    *,
    out: Path | None = None,
    what: str | None = None,
    count: int | None = None,
    prompt: str | None = None,
    tokens: int | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    best: bool = False,
    max_bad: float = 0.01,
    device: str = "auto",
    quiet: bool = False,
) -> None:
    """Let a trained method make samples, interpolations between items, and reconstructions: image grids and arrays; or texts.

    Args:
        run: a run's folder.
        data: items to interpolate between and to reconstruct, as pretrain takes them; of text, a file with a prompt a line.
        out: an empty or new folder; of text, a .jsonl to write instead of printing.
        what: samples, interpolations, reconstructions, with commas; all that the method can when not given.
        count: samples, items to reconstruct, and frames of interpolations (8 a row), 64 when not given; texts for each prompt, 1 when not
            given.
        prompt: what a text begins with.
        tokens: most tokens that a text gets, 200 when not given.
        temperature: of the draw of tokens, 0 for the likeliest; 1 when not given.
        top_k: draw from the k likeliest tokens only; from all when not given.
        top_p: draw from the likeliest tokens that together have this probability, above 0 to 1.
        seed: of the noise and of the draw of items.
        best: the best checkpoint by the label-free measure instead of the last.
        max_bad: largest fraction of unreadable files, 0 to 1.
        device: auto, cpu, cuda or cuda:N.
        quiet: nothing on stderr.
    """
    from selfsup.tasks.saved.trained_method import load_method

    trained = load_method(run, best=best)
    of_text: dict[str, Any] = {"--prompt": prompt, "--tokens": tokens, "--temperature": temperature, "--top-k": top_k, "--top-p": top_p}
    strange = ["--what"] if trained.tokenizer and what is not None else []
    strange = strange if trained.tokenizer else [name for name, value in of_text.items() if value is not None]
    if strange:
        kind = "images and vectors" if trained.tokenizer else "text"
        raise ValueError(f"{strange[0]} is for runs on {kind}; {run} is a run of {trained.config['method']}")
    if trained.tokenizer:
        _texts(trained, data, out, count, seed, device, of_text)
        return
    if out is None:
        raise ValueError("give a folder for what is made: --out FOLDER")
    import selfsup
    from selfsup.tasks.make.generate import in_words

    kinds = None if what is None else [name.strip() for name in what.split(",") if name.strip()]
    rest: dict[str, Any] = {"count": 64 if count is None else count, "seed": seed, "max_bad": max_bad, "device": device, "quiet": quiet}
    print(in_words(selfsup.generate(trained, data, out=out, what=kinds, **rest), out))


def _texts(trained: Any, data: str | None, out: Path | None, count: int | None, seed: int, device: str, options: dict[str, Any]) -> None:
    from selfsup.data.text.rows import read_lines
    from selfsup.engine.checkpoint import replace_file
    from selfsup.tasks.make.language import continue_texts

    prompt = options.pop("--prompt")
    if data is not None and prompt is not None:
        raise ValueError("give prompts in a file or by --prompt, not both")
    if data is not None and not Path(data).is_file():
        raise ValueError(f"there is no file {data}; expected a prompt a line")
    prompts = [prompt or ""] if data is None else [line for line in read_lines(Path(data)) if line.strip()]
    given = {name[2:].replace("-", "_"): value for name, value in options.items() if value is not None}
    made = continue_texts(trained, prompts, count=1 if count is None else count, seed=seed, device=device, **given)
    if out is not None:
        replace_file(
            out, "".join(json.dumps(text._asdict(), ensure_ascii=False) + "\n" for text in made).encode("utf-8", "backslashreplace")
        )
        print(f"{len(made)} texts in {out}")
        return
    print("\n\n".join(text.text for text in made))


VERBS = (generate,)
