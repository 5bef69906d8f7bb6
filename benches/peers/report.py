"""What was measured, beside what was to be reached: `benches/RESULTS.md`."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Optional

import workshop
from contest import OURS, QUIET, Figures, Run, Side
from shapes import DECODERS, ENCODER

BATCHES = [(1, 16), (1, 128), (32, 32)]
# Our encoder models and what a row says of them.
ENCODERS = {"MiniLM": "", "MiniLM-row": ", one scale a row"}
HEAD = ["work", "beside", "ours", "theirs", "ratio", "at least", "aim", "of the roof"]
Row = list[str]
Roof = Optional[float]


def text(figures: Figures, rounds: int, minutes: float) -> str:
    return "\n".join(
        [
            "# Antiphon beside its peers",
            "",
            f"`python3 benches/peers --rounds {rounds}` made this in {minutes:.0f} minutes; `benches/peers` says what it does.",
            "",
            *machine(),
            *versions(),
            "",
            "Models have random weights of real shapes: 135M and 1B are Llama's, 0.5B is Qwen2's, MiniLM is BERT's. Competitors",
            "had turns in one run, each in a process of its own, after a warm-up and when no other process used more than",
            f"{QUIET} cores. Figures are medians over the rounds; a ratio is the median of the rounds' ratios, and above 1 where",
            "ours is faster. Ours has two threads unless the row says otherwise; a peer has as many as it is best with, or one",
            "in the rows of one thread.",
            "",
            *table(HEAD, [row for rows in ROWS for row in rows(figures)]),
            "",
            "The roof of a prompt or a batch of texts is what the processor multiplies in 8 bits, that of a decoder how fast a",
            "buffer as large as the model is read. Keys and values count as far as they are used.",
            "",
            "## Roofs",
            "",
            *table(["", "1 thread", "2 threads"], roofs(figures)),
            "",
            "## Every figure",
            "",
            "Tokens a second, texts a second, or loads a second. A number of threads with which an engine was slower by more than",
            "a quarter than with its other one has its warm-up only.",
            "",
            *table(["work", "engine", "median", "least", "most", "rounds", "others' cores, most"], every(figures)),
            "",
            disturbed(figures),
            agreement(figures),
            "",
        ]
    )


def decoded(figures: Figures) -> Iterator[Row]:
    best = ["llama.cpp", "candle", "CTranslate2"]
    llama, one = ["llama.cpp"], Side(OURS.engine, 1)
    for model, ours, peers, least, aim in [
        ("135M-Q8_0", OURS, best, "2.0×, 75 %", "2.5×"),
        ("0.5B-Q8_0", OURS, best, "1.7×, 88 %", "2.0×"),
        ("135M-Q8_0", one, best, "1.1×", "the roof"),
        ("0.5B-Q8_0", one, best, "0.97×", "the roof"),
        ("135M-Q8_0", one, llama, "2.5×", "the roof"),
        ("0.5B-Q8_0", one, llama, "1.7×", "the roof"),
        ("1B-Q8_0", OURS, best, "1.15×", "1.25×"),
        ("1B-Q4_K_M", OURS, best, "1.6×", "1.8×"),
        ("135M-Q4_0", OURS, llama, "1.8×", "2.5×"),
        ("135M-Q4_K_M", OURS, llama, "1.8×", "2.5×"),
        ("0.5B-Q4_0", OURS, llama, "1.8×", "2.5×"),
        ("0.5B-Q4_K_M", OURS, llama, "1.8×", "2.5×"),
        ("135M-Q8_0, 8 streams", OURS, ["llama.cpp", "CTranslate2"], "2.2×", "3×"),
        ("0.5B-Q8_0, 8 streams", OURS, ["llama.cpp", "CTranslate2"], "2.2×", "3×"),
    ]:
        yield from compared(figures, f"decode {model}", ours, peers, least, aim)


def prompted(figures: Figures) -> Iterator[Row]:
    peers = ["llama.cpp", "candle", "CTranslate2"]
    for name, share in {"135M": 40, "0.5B": 50, "1B": 50}.items():
        for tokens in (128, 512):
            work = f"prompt {name}-Q8_0, {tokens} tokens"
            yield from compared(figures, work, OURS, peers, f"1.7×, {share} %", "2.5×")


def encoded(figures: Figures) -> Iterator[Row]:
    for how in ENCODERS.values():
        for texts, tokens in BATCHES:
            for threads in (2, 1):
                side = Side(OURS.engine, threads)
                yield from compared(figures, f"encode {texts}×{tokens}{how}", side, ["onnxruntime"], "1.4×", "2×")


def beside_another(figures: Figures) -> Iterator[Row]:
    work, quiet = "decode 135M-Q8_0, one core busy", "decode 135M-Q8_0, quiet"
    if work not in figures.runs:
        return
    ours = figures.counted(work, OURS)
    alone = figures.counted(quiet, Side(OURS.engine, 1))
    theirs = figures.counted(work, Side("llama.cpp", 2))
    yield row(work, "own thread, quiet machine", ours, alone, "1.15×", "1.35×")
    yield row(work, "llama.cpp, 2 threads", ours, theirs, "", "")
    for name, runs in (("ours", ours), ("llama.cpp", theirs)):
        gaps = sorted(gap for run in runs for gap in run.result["gaps"])
        late, usual = gaps[int(0.99 * (len(gaps) - 1))], median(gaps)
        cells = [f"{late * 1e3:.1f} ms", f"{usual * 1e3:.1f} ms", f"{late / usual:.1f}"]
        yield [f"{work}: p99 gap of {name}", "its median gap", *cells, "≤ 2.5" if name == "ours" else "", "", ""]


def loaded(figures: Figures) -> Iterator[Row]:
    for name in ("135M", "0.5B"):
        yield from compared(figures, f"load {name}-Q8_0", OURS, ["llama.cpp"], "1×", "1.43×")


def resident(figures: Figures) -> Iterator[Row]:
    single = figures.single
    for name in ("135M", "0.5B"):
        for streams in (1, 8):
            work = f"memory {name}-Q8_0, {streams}"
            if f"{work}, file" not in single:
                continue
            needed = single[f"{work}, file"] + single[f"{work}, keys and values"]
            for engine, goals in (("antiphon", ("≤ 1.15", "1.05")), ("llama.cpp", ("", ""))):
                used, peak = single[f"{work}, {engine}"], single[f"{work}, {engine}, peak"]
                what = f"resident, {name}-Q8_0, {counted(streams, 'stream')}: {engine}"
                cells = [f"{used / 2**20:.0f} MiB, at most {peak / 2**20:.0f}", f"{needed / 2**20:.0f} MiB", f"{used / needed:.2f}"]
                yield [what, "file + keys and values", *cells, *goals, ""]


def first_answers(figures: Figures) -> Iterator[Row]:
    goals = {"first token of process": ("≤ 8 ms", "5 ms"), "analysis on one core": ("≤ 1.0 ms", "0.5 ms")}
    for what, (least, aim) in goals.items():
        if what in figures.single:
            yield [f"bundled, {what}", "", f"{figures.single[what]:.2f} ms", "", "", least, aim, ""]


ROWS = [decoded, prompted, encoded, beside_another, loaded, resident, first_answers]


def compared(figures: Figures, work: str, ours: Side, engines: list[str], least: str, aim: str) -> Iterator[Row]:
    """Ours beside the best of these engines: with as many threads as it likes, or with one like us."""
    if work not in figures.runs:
        return
    peers = [side for side in figures.runs[work] if side.engine in engines and figures.counted(work, side)]
    if ours.threads == 1:
        peers = [side for side in peers if side.threads == 1]
    best = max(peers, key=lambda side: speed(figures.counted(work, side)))
    name = work if ours == OURS else f"{work}, 1 thread"
    runs = figures.counted(work, ours)
    yield row(name, str(best), runs, figures.counted(work, best), least, aim, roof_share(figures, work, ours, runs))


def row(work: str, beside: str, ours: list[Run], theirs: list[Run], least: str, aim: str, share: Roof = None) -> Row:
    ratio = median(mine.speed / its.speed for mine, its in zip(ours, theirs))
    roof = "" if share is None else f"{share:.0%}".replace("%", " %")
    return [work, beside, shown(ours), shown(theirs), f"**{ratio:.2f}×**", least, aim, roof]


def shown(runs: list[Run]) -> str:
    kind = runs[0].task["do"]
    if kind in ("decode", "prompt"):
        return f"{digits(speed(runs))} tokens/s"
    seconds = median(run.seconds for run in runs)
    return f"{digits(seconds * 1e3)} ms"


def digits(value: float) -> str:
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def speed(runs: list[Run]) -> float:
    return median(run.speed for run in runs)


def roof_share(figures: Figures, work: str, side: Side, runs: list[Run]) -> Roof:
    task = runs[0].task
    if task["do"] == "decode" and task["streams"] == 1:
        model = work.removeprefix("decode ")
        return speed(runs) * figures.single[f"size {model}"] / figures.single[f"read {model}, {side.threads}"]
    multiplied = figures.single.get(f"multiply, {side.threads}")
    if not multiplied:
        return None
    seconds = median(run.seconds for run in runs)
    if task["do"] == "prompt":
        shape = DECODERS[work.removeprefix("prompt ").partition("-")[0]]
        return shape.prompt_operations(task["tokens"]) / seconds / multiplied
    if task["do"] == "encode":
        return ENCODER.operations(task["texts"] * task["tokens"]) / seconds / multiplied
    return None


def roofs(figures: Figures) -> Iterator[Row]:
    names = sorted({name.rpartition(",")[0] for name in figures.single if name.startswith(("read ", "multiply"))})
    for name in names:
        one, two = (figures.single[f"{name}, {threads}"] for threads in (1, 2))
        if name == "multiply":
            cells = [f"{value / 1e9:.0f} GOP/s" if value else "none" for value in (one, two)]
            yield ["8-bit multiplications and additions, AVX-512 VNNI", *cells]
        else:
            yield [f"{name}'s size", *(f"{value / 1e9:.1f} GB/s" for value in (one, two))]


def every(figures: Figures) -> Iterator[Row]:
    for work, sides in figures.runs.items():
        for side, runs in sides.items():
            counting = [run for run in runs if run.counts]
            speeds = [run.speed for run in counting or runs]
            spread = [digits(value) for value in (median(speeds), min(speeds), max(speeds))]
            rounds = str(len(counting) or "warm-up")
            yield [work, str(side), *spread, rounds, f"{max(run.others for run in counting or runs):.2f}"]


def disturbed(figures: Figures) -> str:
    runs = [run for sides in figures.runs.values() for each in sides.values() for run in each if run.counts]
    loud = sum(run.others > QUIET for run in runs)
    waited = sum(not run.was_quiet for run in runs)
    return (
        f"Of {counted(len(runs), 'run')}, {loud} had other processes beside them that used more than {QUIET} cores, and {waited} "
        "began when waiting for a quiet machine had taken too long."
    )


def agreement(figures: Figures) -> str:
    """Whoever reads the same file has to find the same token after a prompt, or does not do the same work."""
    after = {
        work: {side.engine: runs[0].result["token"] for side, runs in sides.items()}
        for work, sides in figures.runs.items()
        if work.startswith(("prompt", "load"))
    }
    others = {(work, engine): token for work, tokens in after.items() for engine, token in tokens.items() if engine != OURS.engine}
    same = sorted({engine for work, engine in others if others[work, engine] == after[work][OURS.engine]})
    differing = [f"{engine} ({work})" for (work, engine), token in others.items() if token != after[work][OURS.engine]]
    if not others:
        return ""
    return (
        f"The token after a prompt was the same with ours and with {', '.join(same) or 'nobody'}"
        f"{', but for ' + ', '.join(differing) if differing else ''}. CTranslate2 rounds the weights in its own way."
    )


def machine() -> list[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    info = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    info = {key.strip(): value.strip() for key, value in info.items()}
    has = set(info["flags"].split())
    known = ["avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8"]
    sets = ", ".join(name for name in known if name in has)
    cores = sum(line.startswith("processor") for line in lines)
    family = f"family {info['cpu family']}, model {info['model']}"
    return [f"- machine: {info['model name']} ({family}), {cores} cores, {sets}; {platform.system()} {platform.release()}"]


def versions() -> list[str]:
    found = ", ".join(f"{name} {version}" for name, version in workshop.versions().items())
    return [f"- versions: {found}"]


def counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def table(head: Row, rows: Iterator[Row] | list[Row]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows]]
