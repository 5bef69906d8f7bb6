"""Where our time goes, by kind of work: what stands behind the figures that are not reached.

    python3 benches/peers/profile.py [--out FILE]

What `python3 benches/peers` has built and made runs here alone, each task under `perf record` (linux-perf of Debian). A sample counts
for the first kind of work of which a function was inlined where it was taken.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from workshop import MODELS, OURS

# What is run: the model, threads and the task, so many times.
PROMPTS = [
    (f"{size}-Q8_0.gguf", 2, {"do": "prompt", "tokens": tokens}, 24) for size in ("135M", "0.5B", "1B") for tokens in (128, 512)
]
TEXTS = [
    ("MiniLM", threads, {"do": "encode", "texts": texts, "tokens": tokens, "seconds": 4}, 1)
    for texts, tokens in ((1, 16), (1, 128), (32, 32))
    for threads in (2, 1)
]
LOAD = [(f"{size}-Q8_0.gguf", 2, {"do": "first_token", "tokens": 8}, 12) for size in ("135M", "0.5B")]

# Kinds of work, by what their functions are called.
KINDS = {
    "products": r"linear::panel|linear::whole|linear::floats",
    "rounding to int8": r"^quantize",
    "attention": r"attention::",
    "GELU, SiLU": r"^(gelu|silu)<",
    "bias, residual": r"linear::finish",
    "norms and other rows": r"rows::",
    "waiting for the other thread": r"executor::",
    "hashing": r"blake3",
    "packing": r"matrix::put|Matrix::put_rows",
}
SYSTEM, OTHER = "the system", "other"
# Where programs lie when addresses are not random (personality ADDR_NO_RANDOMIZE).
BASE = 0x5555_5555_4000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the table there and not to the terminal")
    options = parser.parse_args()
    columns = [*KINDS, SYSTEM, OTHER]
    lines = ["| work | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns)]
    for model, threads, task, times in [*PROMPTS, *TEXTS, *LOAD]:
        shares = profile(model, threads, task, times)
        cells = [f"{100 * shares[kind]:.0f} %" if shares[kind] >= 0.005 else "" for kind in columns]
        lines.append(f"| {name(model, threads, task)} | " + " | ".join(cells) + " |")
    table = "\n".join(lines) + "\n"
    if options.out:
        options.out.write_text(table)
    else:
        print(table, end="")


def name(model: str, threads: int, task: dict[str, object]) -> str:
    what = {"prompt": "prompt of {tokens}", "encode": "{texts}×{tokens}", "first_token": "load"}[str(task["do"])]
    return f"{model.removesuffix('.gguf')}, {what.format(**task)}, {threads} thread{'s' * (threads > 1)}"


def profile(model: str, threads: int, task: dict[str, object], times: int) -> dict[str, float]:
    """The shares of all samples, by kind of work."""
    contestant = OURS / "contestant"
    with tempfile.NamedTemporaryFile() as data:
        record = ["setarch", "-R", "perf", "record", "-q", "-e", "cpu-clock", "-F", "2000", "-o", data.name]
        tasks = (json.dumps(task) + "\n") * times
        told([*record, contestant, MODELS / model, str(threads), "1"], tasks)
        script = told(["perf", "script", "-i", data.name, "-F", "ip,dso"])
    samples = Counter(re.findall(r"^\s*([0-9a-f]+) \((.*)\)$", script, re.MULTILINE))
    ours = {int(at, 16) - BASE: count for (at, place), count in samples.items() if place.endswith("/contestant")}
    kinds: Counter[str] = Counter()
    for address, functions in inlined(contestant, sorted(ours)).items():
        kinds[next((kind for kind, names in KINDS.items() if re.search(names, functions, re.MULTILINE)), OTHER)] += ours[address]
    kinds[SYSTEM] = samples.total() - sum(ours.values())
    return {kind: kinds[kind] / samples.total() for kind in [*KINDS, SYSTEM, OTHER]}


def inlined(program: Path, addresses: list[int]) -> dict[int, str]:
    """The functions at each address, from the innermost on."""
    asked = "\n".join(f"{address:#x}" for address in addresses)
    found: defaultdict[int, str] = defaultdict(str)
    address = 0
    for line in told(["addr2line", "-e", program, "-f", "-i", "-C", "-a"], asked).splitlines():
        if line.startswith("0x"):
            address = int(line, 16)
        else:
            found[address] += line + "\n"
    return found


def told(command: list[str | Path], asked: str = "") -> str:
    return subprocess.run(command, input=asked, text=True, check=True, stdout=subprocess.PIPE).stdout


if __name__ == "__main__":
    main()
