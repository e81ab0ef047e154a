"""A page as one file: style, script and data inside, and a policy under which nothing else is loaded or run."""

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from selfsup.report.numbers import compact, count, head, labels, listing, plain, tail

HERE = Path(__file__).parent


def write_page(
    page: Path,
    template: str,
    contents: Mapping[str, Any],
    *,
    styles: Sequence[str] = ("style.css",),
    scripts: Sequence[str],
    variables: Mapping[str, int] | None = None,
) -> Path:
    """Render a template into a page; the same contents give the same bytes.

    Args:
        page: where to write it; a reader meets the old page or the new one, never half of one.
        template: its file in this folder; what it names is in `contents`.
        styles, scripts: files of this folder, in the order in which they are joined.
        variables: custom properties of the style sheet.

    Returns:
        `page`.

    Raises:
        OSError: the page cannot be written.
    """
    inlined = _inlined(styles, scripts, variables or {})
    html = _environment().get_template(template).render(**contents, **inlined)
    beside = page.with_name(f".{page.name}.{os.getpid()}")
    try:
        beside.write_text(html, encoding="utf-8", newline="\n")
        beside.replace(page)
    finally:
        beside.unlink(missing_ok=True)
    return page


@cache  # templates are compiled once, which takes as long as all the rest of a small page
def _environment() -> Environment:
    # Autoescape is off by default in Jinja2; every name on these pages comes from somebody's files.
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, auto_reload=False
    )
    # No NaN: JSON.parse refuses it, and with it the whole page's data. No ASCII escapes: names in other scripts are long enough.
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
    filters = (count, compact, plain, head, tail, labels, listing)
    environment.filters |= {function.__name__: function for function in filters}
    return environment


def _inlined(styles: Sequence[str], scripts: Sequence[str], variables: Mapping[str, int]) -> dict[str, Any]:
    """Style and script with the only content security policy under which they, and nothing else, are allowed."""
    own = "".join(f":root{{--{name}:{value}}}\n" for name, value in variables.items())
    style = _joined(styles) + own
    script = '"use strict";\n' + _joined(scripts)
    policy = f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; base-uri 'none'; form-action 'none'"
    return {"style": Markup(style), "script": Markup(script), "policy": policy}


def _joined(names: Sequence[str]) -> str:
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in names)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
