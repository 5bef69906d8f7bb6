"""Antiphon beside llama.cpp, candle, CTranslate2 and onnxruntime, on the same cores in one run.

    python3 benches/peers [--rounds N] [--only NAME[,NAME]] [--out FILE]

Installs and builds each, makes models with random weights (all in `target/peers`, which takes a while once), lets them compete
in turns, and writes `benches/RESULTS.md`. Where only some is measured, that goes to the standard output instead.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import report
import workshop
from contest import OURS, Contestant, Figures, Settings, Side, compete, said, wait_until_quiet

CONTEXT, TOKENS, SECONDS = 128, 64, 1.5
# Beside whom each model is decoded.
DECODED = {
    "135M-Q8_0": ["llama.cpp", "candle", "CTranslate2"],
    "0.5B-Q8_0": ["llama.cpp", "candle", "CTranslate2"],
    "1B-Q8_0": ["llama.cpp", "candle"],
    "1B-Q4_K_M": ["llama.cpp", "candle"],
    "135M-Q4_0": ["llama.cpp"],
    "135M-Q4_K_M": ["llama.cpp"],
    "0.5B-Q4_0": ["llama.cpp"],
    "0.5B-Q4_K_M": ["llama.cpp"],
}
SMALL = ["135M-Q8_0", "0.5B-Q8_0"]
PROMPTED = [*SMALL, "1B-Q8_0"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured after its warm-up [default: 5]")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--out", type=Path, help="where the result goes [default: benches/RESULTS.md if all is measured]")
    parser.add_argument("--patience", type=float, default=20, help="seconds to wait for a quiet machine [default: 20]")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    if unknown := set(wanted) - set(SECTIONS):
        parser.error(f"--only: {', '.join(sorted(unknown))}, expected some of {', '.join(SECTIONS)}")

    workshop.prepare()
    settings, figures, begun = Settings(arguments.rounds, arguments.patience), Figures(), time.monotonic()
    for name in wanted:
        SECTIONS[name](figures, settings)
    text = report.text(figures, arguments.rounds, (time.monotonic() - begun) / 60)
    out = arguments.out or (workshop.ROOT / "benches" / "RESULTS.md" if wanted == list(SECTIONS) else None)
    if out:
        out.write_text(text)
    print(text)


def decode(figures: Figures, settings: Settings) -> None:
    """One stream after a context of 128 tokens, 64 tokens or what a second and a half is enough for."""
    task = {"do": "decode", "context": CONTEXT, "tokens": TOKENS, "streams": 1, "seconds": SECONDS}
    for model, peers in DECODED.items():
        with opened(model, ["antiphon", *peers]) as contestants:
            measure_reading(figures, model, contestants)
            compete(figures, f"decode {model}", task, contestants, settings, all_threads=model in SMALL)
            measure_reading(figures, model, contestants)


def streams(figures: Figures, settings: Settings) -> None:
    """Eight streams at once."""
    task = {"do": "decode", "context": CONTEXT, "tokens": TOKENS, "streams": 8, "seconds": SECONDS}
    for model in SMALL:
        with opened(model, ["antiphon", "llama.cpp", "CTranslate2"], streams=8) as contestants:
            compete(figures, f"decode {model}, 8 streams", task, contestants, settings)


def prompt(figures: Figures, settings: Settings) -> None:
    """From a prompt's tokens to the token after them."""
    for model in PROMPTED:
        with opened(model, ["antiphon", "llama.cpp", "candle", "CTranslate2"]) as contestants:
            measure_multiplying(figures, contestants)
            for tokens in (128, 512):
                task = {"do": "prompt", "tokens": tokens}
                compete(figures, f"prompt {model}, {tokens} tokens", task, contestants, settings)


def encoder(figures: Figures, settings: Settings) -> None:
    """Batches of texts through MiniLM's shape, exactly as Q8_0 says and with one scale a row."""
    for model, how in report.ENCODERS.items():
        with opened(model, ["antiphon", "onnxruntime"]) as contestants:
            measure_multiplying(figures, contestants)
            for texts, tokens in report.BATCHES:
                task = {"do": "encode", "texts": texts, "tokens": tokens, "seconds": 0.5}
                compete(figures, f"encode {texts}×{tokens}{how}", task, contestants, settings, all_threads=True)


def busy(figures: Figures, settings: Settings) -> None:
    """Another process computes all the time: two threads then, beside one thread on a machine of its own."""
    task = {"do": "decode", "context": CONTEXT, "tokens": 2 * TOKENS, "streams": 1, "seconds": 2 * SECONDS}
    with opened("135M-Q8_0", ["antiphon", "llama.cpp"]) as contestants:
        for contestant in contestants:
            contestant.ask(task)
        for _ in range(settings.rounds):
            for contestant in contestants:
                if contestant.side.threads == 1:
                    figures.add("decode 135M-Q8_0, quiet", contestant.side, contestant.measured(task, settings))
                    continue
                was_quiet = wait_until_quiet(settings.patience_seconds)
                with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
                    time.sleep(0.2)
                    run = contestant.measured(task, settings, beside=other)
                    other.kill()
                run.was_quiet = was_quiet
                figures.add("decode 135M-Q8_0, one core busy", contestant.side, run)


def load(figures: Figures, settings: Settings) -> None:
    """From opening the file, which the system has in memory, to the token after a prompt of 8."""
    for model in SMALL:
        said(f"load {model}")
        for turn in range(settings.rounds + 1):
            for engine in ("antiphon", "llama.cpp"):
                with Contestant(Side(engine, 2), model_path(engine, model)) as contestant:
                    run = contestant.measured({"do": "first_token", "tokens": 8}, settings)
                run.counts = turn > 0
                figures.add(f"load {model}", contestant.side, run)


def memory(figures: Figures, settings: Settings) -> None:
    """What is resident, beyond what the process had before it opened the model, and the most that was."""
    task = {"do": "decode", "context": CONTEXT, "tokens": TOKENS, "seconds": SECONDS}
    for model in SMALL:
        said(f"memory {model}")
        for count in (1, 8):
            for engine in ("antiphon", "llama.cpp"):
                with Contestant(Side(engine, 2), model_path(engine, model), streams=count) as contestant:
                    contestant.ask({**task, "streams": count})
                    told = contestant.ask({"do": "memory"})
                work = f"memory {model}, {count}"
                figures.single[f"{work}, {engine}"] = told["bytes"]
                figures.single[f"{work}, {engine}, peak"] = told["peak_bytes"]
                if engine == "antiphon":
                    figures.single[f"{work}, file"] = model_path(engine, model).stat().st_size
                    figures.single[f"{work}, keys and values"] = told["key_value_bytes"]


def bundled(figures: Figures, settings: Settings) -> None:
    """What `antiphon bench` says of the bundled models: with all cores, and on one."""
    said("bundled")
    command = [str(workshop.OURS / "antiphon"), "bench", "--json"]
    wait_until_quiet(settings.patience_seconds)
    figures.single["first token of process"] = json.loads(subprocess.check_output(command))["first_token_ms"]
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    wait_until_quiet(settings.patience_seconds)
    figures.single["analysis on one core"] = json.loads(subprocess.check_output(command))["analysis"]["p50_ms"]
    os.sched_setaffinity(0, cores)


SECTIONS: dict[str, Callable[[Figures, Settings], None]] = {
    section.__name__: section for section in (decode, streams, prompt, encoder, busy, load, memory, bundled)
}


@contextmanager
def opened(model: str, engines: list[str], streams: int = 1) -> Iterator[list[Contestant]]:
    """Each engine with one thread and with two."""
    with ExitStack() as stack:
        sides = [Side(engine, threads) for threads in (1, 2) for engine in engines]
        yield [stack.enter_context(Contestant(side, model_path(side.engine, model), streams)) for side in sides]


def model_path(engine: str, model: str) -> Path:
    name = model.partition("-")[0]
    if engine == "CTranslate2":
        return workshop.MODELS / f"{name}-int8"
    if engine == "onnxruntime":
        return workshop.MODELS / f"{name}.onnx"
    return workshop.MODELS / (model if name == "MiniLM" else f"{model}.gguf")


def measure_reading(figures: Figures, model: str, contestants: list[Contestant]) -> None:
    size = model_path("antiphon", model).stat().st_size
    figures.single[f"size {model}"] = size
    for contestant in contestants:
        if contestant.side.engine == OURS.engine:
            told = contestant.ask({"do": "read", "bytes": size})
            figures.keep_best(f"read {model}, {contestant.side.threads}", told["bytes_per_second"])


def measure_multiplying(figures: Figures, contestants: list[Contestant]) -> None:
    for contestant in contestants:
        if contestant.side.engine == OURS.engine:
            told = contestant.ask({"do": "multiply"})
            figures.keep_best(f"multiply, {contestant.side.threads}", told["operations_per_second"])


if __name__ == "__main__":
    main()
