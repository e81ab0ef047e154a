"""`python -m selfsup.tasks.methods_table`: the table of methods as README.md has it."""

from selfsup.methods import METHODS, describe


def table() -> str:
    """Markdown, one row a method."""
    head = "| id | data | hidden | predicted | paper |\n|---|---|---|---|---|\n"
    return head + "".join(_row(method) for method in METHODS)


def _row(method: str) -> str:
    f = describe(method)
    links = ", ".join(f"[{url.rsplit('/', 1)[-1]}]({url})" for url in f.paper.split())
    return f"| `{f.id}` | {f.modality} | {f.hidden.rstrip('.')} | {f.predicted.rstrip('.')} | {f.title.rstrip('.')} {links} |\n"


if __name__ == "__main__":
    print(table(), end="")
