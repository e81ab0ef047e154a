"""How long `selfsup --help` takes, beside a Python that does nothing.

python benchmarks/startup.py --out results/startup.json
"""

import argparse
import subprocess
import sys
from pathlib import Path

from common import announce, interleaved, median, seconds, setting, table, write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--out", type=Path, help="JSON")
    arguments = parser.parse_args()
    script = str(Path(sys.executable).parent / "selfsup")
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "selfsup --help": [script, "--help"],
        "selfsup methods": [script, "methods"],
        "selfsup pretrain simclr --help": [script, "pretrain", "simclr", "--help"],
    }
    facts = setting()
    announce(facts)
    found: dict[str, list[float]] = {name: [] for name in commands}
    for command in commands.values():  # warm: bytecode, files
        start(command)
    for _, name in interleaved(list(commands), arguments.rounds):
        found[name].append(seconds(lambda name=name: start(commands[name])))
    rows = [{"command": name, "median s": median(s), "least": min(s), "most": max(s)} for name, s in found.items()]
    table(rows)
    write_json(arguments.out, {**facts, "options": vars(arguments), "summary": rows, "rounds": found})


def start(command: list[str]) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    main()
