"""What is needed before anything can be measured: the peers installed, both sides built, the models made. All of it lies in
`target/peers`, and what is there already is used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HOME = ROOT / "target" / "peers"
MODELS = HOME / "models"
# Where cargo puts what it builds of ours.
OURS = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
PYTHON = HOME / "venv" / "bin" / "python"

# The peers are pinned, so that two runs compare the same; the rest makes models.
PACKAGES = ["llama-cpp-python==0.3.36", "ctranslate2==4.8.5", "onnxruntime==1.32.0", "onnx", "gguf", "numpy"]


def prepare() -> None:
    if not PYTHON.exists():
        told([sys.executable, "-m", "venv", "--clear", HOME / "venv"])
    # From its source, for this machine: its wheels are for every machine.
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    told([*pip, *PACKAGES], CMAKE_ARGS="-DGGML_NATIVE=ON")
    # Ours as it is shipped: for every machine, and the command apart from what only benches want of the crates below it.
    cargo = ["cargo", "build", "--quiet", "--locked"]
    told([*cargo, "--release", "-p", "antiphon-cli"], RUSTFLAGS="")
    told([*cargo, "--release", "-p", "antiphon-benches", "--bin", "contestant"], RUSTFLAGS="")
    # Candle as its documentation says: for this machine, and with its own optimisation.
    native = [*cargo, "--profile", "bench", "-p", "antiphon-benches", "--bin", "candle_contestant"]
    told([*native, "--target-dir", str(HOME / "candle")], RUSTFLAGS="-C target-cpu=native")
    told([PYTHON, "-W", "ignore", HERE / "models.py", MODELS])


def told(command: list[str | Path], **environment: str) -> None:
    print("+", " ".join(str(word).replace(f"{ROOT}/", "") for word in command), file=sys.stderr, flush=True)
    subprocess.run(command, check=True, cwd=ROOT, stdout=sys.stderr, env={**os.environ, **environment})


def command(engine: str, model: Path, threads: int, streams: int) -> tuple[list[str], dict[str, str]]:
    """How a contestant is started, and its environment."""
    arguments = [str(model), str(threads), str(streams)]
    if engine == "antiphon":
        return [str(OURS / "contestant"), *arguments], {}
    if engine == "candle":
        return [str(HOME / "candle" / "release" / "candle_contestant"), *arguments], {"RAYON_NUM_THREADS": str(threads)}
    return [str(PYTHON), str(HERE / "theirs.py"), engine, *arguments], {}


def versions() -> dict[str, str]:
    show = "import importlib.metadata, json, sys; print(json.dumps({n: importlib.metadata.version(n) for n in sys.argv[1:]}))"
    names = ["llama-cpp-python", "ctranslate2", "onnxruntime"]
    found: dict[str, str] = json.loads(subprocess.check_output([PYTHON, "-c", show, *names]))
    lock = (ROOT / "Cargo.lock").read_text()
    found["candle"] = lock.partition('name = "candle-core"\nversion = "')[2].partition('"')[0]
    found["antiphon"] = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True).strip()
    return found
