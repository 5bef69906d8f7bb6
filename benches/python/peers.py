"""The package beside what a Python service has instead: transformers' pipelines, onnxruntime, llama-cpp-python.

Each is measured in processes of its own, in turns, on the same two cores; the figures are medians over the rounds, and in
brackets how many times ours they are. Wants our wheel (`cargo xtask test python` leaves it in `target/wheels`), installed, and

    CMAKE_ARGS=-DGGML_NATIVE=ON pip install gguf llama-cpp-python onnx onnxruntime onnxscript torch transformers

Models have random weights (`peers_models.py`), ours the bundled ones. A sentiment pipeline has, by default, DistilBERT's shape;
beside it stands one of our own analyst's shape. Ours finds the intent and the entities in the same pass. The decoder is one and
the same for all: 135 million parameters, in a GGUF of Q8_0 for llama.cpp and for us, as float32 for transformers.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.request import Request, urlopen

HERE = Path(__file__).parent
MESSAGE = "I have been waiting two weeks for my order, please help me"

MEASURE = """
    import json, os, statistics, sys, time

    def rss():
        return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def took(call, times):
        spans = []
        for _ in range(times):
            begun = time.perf_counter()
            call()
            spans.append(time.perf_counter() - begun)
        return statistics.median(spans)

    begun = time.perf_counter()
"""

# What each peer does, in terms of `MODELS`: import, open, and read one message or many texts, or write a number of tokens.
OURS = """
    import antiphon
    imported = time.perf_counter()
    engine = antiphon.Engine(responder=None)
    one = engine.sentiment
    many = engine.analyze_batch
"""

TRANSFORMERS = """
    from transformers import pipeline
    imported = time.perf_counter()
    pipe = pipeline("sentiment-analysis", model=f"{{MODELS}}/{shape}")
    one = pipe
    def many(texts):
        return pipe(texts, batch_size=32)
"""

ONNXRUNTIME = """
    import numpy, onnxruntime
    from tokenizers import Tokenizer
    imported = time.perf_counter()
    tokenizer = Tokenizer.from_file(f"{{MODELS}}/{shape}/tokenizer.json")
    tokenizer.enable_padding()
    tokenizer.enable_truncation(512)
    session = onnxruntime.InferenceSession(f"{{MODELS}}/{shape}/int8.onnx", providers=["CPUExecutionProvider"])
    def batch(texts):
        encoded = tokenizer.encode_batch(texts)
        given = {{
            "input_ids": numpy.array([text.ids for text in encoded], dtype=numpy.int64),
            "attention_mask": numpy.array([text.attention_mask for text in encoded], dtype=numpy.int64),
        }}
        return session.run(None, given)[0]
    def one(text):
        return batch([text])
    def many(texts):
        return [row for begin in range(0, len(texts), 32) for row in batch(texts[begin : begin + 32])]
"""

CLASSIFY = """
    message, count = sys.argv[1], int(sys.argv[2])
    one(message)
    opened = time.perf_counter()
    texts = [f"{message} {number}" for number in range(count)]
    latency = took(lambda: one(message), 50)
    assert len(many(texts)) == count
    throughput = count / took(lambda: many(texts), 1)
    print(json.dumps([imported - begun, opened - imported, latency, throughput, rss()]))
"""

OUR_DECODER = """
    import antiphon
    imported = time.perf_counter()
    engine = antiphon.Engine(analyst=None, responder=f"{MODELS}/135M/q8_0.gguf", context_tokens=1024)
    def write(prompt, tokens):
        reply = engine.generate(prompt=prompt, max_tokens=tokens, cache="bypass")
        return reply["usage"]["completion_tokens"]
"""

LLAMA = """
    from llama_cpp import Llama
    imported = time.perf_counter()
    llama = Llama(f"{MODELS}/135M/q8_0.gguf", n_ctx=1024, n_threads=os.cpu_count(), verbose=False)
    def write(prompt, tokens):
        return llama.create_completion(prompt, max_tokens=tokens, temperature=0)["usage"]["completion_tokens"]
"""

TRANSFORMERS_DECODER = """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    imported = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(f"{MODELS}/135M")
    model = AutoModelForCausalLM.from_pretrained(f"{MODELS}/135M", dtype=torch.float32)
    def write(prompt, tokens):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        return model.generate(ids, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False).shape[1] - ids.shape[1]
"""

GENERATE = """
    write("Hello", 1)
    opened = time.perf_counter()
    # About 300 tokens, another beginning each time so that nothing is found again.
    def prompt(number):
        return f"{number} says: " + "where is the order that I have paid for? " * 28
    first = took(lambda numbers=iter(range(100)): write(prompt(next(numbers)), 1), 3)
    again = prompt(100)
    write(again, 1)
    short, long = took(lambda: write(again, 1), 3), took(lambda: write(again, 65), 3)
    assert write(again, 65) == 65
    print(json.dumps([imported - begun, opened - imported, first, 64 / (long - short), rss()]))
"""


@dataclass
class Peer:
    name: str
    program: str
    packages: tuple[str, ...]


CLASSIFIERS = [
    Peer("antiphon", OURS, ("antiphon",)),
    Peer("transformers, DistilBERT's shape", TRANSFORMERS.format(shape="distilbert"), ("transformers", "torch")),
    Peer("transformers, our shape", TRANSFORMERS.format(shape="analyst"), ("transformers", "torch")),
    Peer("onnxruntime int8, DistilBERT's shape", ONNXRUNTIME.format(shape="distilbert"), ("onnxruntime", "tokenizers")),
    Peer("onnxruntime int8, our shape", ONNXRUNTIME.format(shape="analyst"), ("onnxruntime", "tokenizers")),
]
DECODERS = [
    Peer("antiphon", OUR_DECODER, ("antiphon",)),
    Peer("llama-cpp-python", LLAMA, ("llama-cpp-python",)),
    Peer("transformers, float32", TRANSFORMERS_DECODER, ("transformers", "torch")),
]


def measured(peer: Peer, measurement: str, models: Path, *words: str) -> list[float]:
    program = textwrap.dedent(MEASURE) + f"MODELS = {str(models)!r}\n" + textwrap.dedent(peer.program + measurement)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    done = subprocess.run([sys.executable, "-c", program, *words], stdout=subprocess.PIPE, text=True, check=True, env=environment)
    figures: list[float] = json.loads(done.stdout.splitlines()[-1])
    return figures


@cache
def installed_bytes(packages: tuple[str, ...]) -> int:
    """What the packages and all that they need take on disk."""
    seen: dict[str, int] = {}
    waiting = list(packages)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in seen:
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            seen[name] = 0
            continue
        files = {Path(str(file.locate())).resolve() for file in distribution.files or []}
        seen[name] = sum(file.stat().st_size for file in files if file.is_file() and file.suffix != ".pyc")
        needs = [need for need in distribution.requires or [] if "extra ==" not in need]
        waiting += [match.group() for need in needs if (match := re.match(r"[\w.-]+", need))]
    return sum(seen.values())


@cache
def downloaded_bytes(packages: tuple[str, ...]) -> int:
    """What `pip install` fetches for them in an empty environment: wheels, or the source of what has none."""
    if packages == ("antiphon",):
        return max((HERE.parents[1] / "target" / "wheels").glob("*.whl"), key=os.path.getmtime).stat().st_size
    command = ["-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    done = subprocess.run([sys.executable, *command, *packages], stdout=subprocess.PIPE, text=True, check=True)
    total = 0
    for package in json.loads(done.stdout)["install"]:
        with urlopen(Request(package["download_info"]["url"], method="HEAD"), timeout=60) as answer:
            total += int(answer.headers["Content-Length"])
    return total


def compare(title: str, columns: list[str], peers: list[Peer], rounds: int, measurement: str, models: Path, *words: str) -> None:
    runs: dict[str, list[list[float]]] = {peer.name: [] for peer in peers}
    for _ in range(rounds):
        for peer in peers:
            runs[peer.name].append(measured(peer, measurement, models, *words))
    print(f"\n{title}")
    columns = [*columns, "resident MiB", "downloaded MiB", "installed MiB"]
    print(f"{'':<38}" + "".join(f"{column:>19}" for column in columns))
    ours: list[float] = []
    for peer in peers:
        figures = [statistics.median(column) for column in zip(*runs[peer.name])]
        figures = [figures[0] * 1e3, figures[1] * 1e3, figures[2] * 1e3, figures[3], figures[4] / 2**20]
        figures += [downloaded_bytes(peer.packages) / 2**20, installed_bytes(peer.packages) / 2**20]
        ours = ours or figures
        cells = [f"{shown(value)} ({shown(value / own)})" for value, own in zip(figures, ours)]
        print(f"{peer.name:<38}" + "".join(f"{cell:>19}" for cell in cells))


def shown(value: float) -> str:
    """Three digits or so."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    parser.add_argument("--models", type=Path, help="where the random models are, or are to be kept; else they are made anew")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = arguments.models or Path(folder)
        if not (models / "135M" / "q8_0.gguf").exists():
            subprocess.run([sys.executable, "-W", "ignore", HERE / "peers_models.py", models], check=True)
        compare(
            "sentiment of a message of 12 words (ours: intent and entities, too)",
            ["import ms", "open ms", "one message ms", "256 texts, per s"],
            CLASSIFIERS,
            arguments.rounds,
            CLASSIFY,
            models,
            MESSAGE,
            "256",
        )
        compare(
            "135M decoder, one stream, prompt of about 300 tokens",
            ["import ms", "open ms", "first token ms", "tokens per s"],
            DECODERS,
            arguments.rounds,
            GENERATE,
            models,
        )


if __name__ == "__main__":
    main()
