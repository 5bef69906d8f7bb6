"""What the package says of itself: its types, its documents, its example."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path

import antiphon
import pytest

ROOT = Path(__file__).parents[1]


def tool(*words: str, folder: Path = ROOT) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def mypy() -> None:
    pytest.importorskip("mypy")
    # stubtest looks at a module as it was built, for the version of Python that runs.
    os.environ["MYPY_CACHE_DIR"] = os.devnull


@pytest.mark.usefixtures("mypy")
def test_the_package_and_its_examples_are_strictly_typed() -> None:
    tool("mypy", "antiphon", "tests/typed.py", "examples/conversation.py")


@pytest.mark.usefixtures("mypy")
def test_the_stub_is_what_the_module_is(tmp_path: Path) -> None:
    # Of the package as it is installed: where it is written there may be no module.
    tool("mypy.stubtest", "antiphon._native", folder=tmp_path)


def test_pyright_is_content_with_the_package_and_its_examples() -> None:
    if importlib.util.find_spec("pyright") is None or shutil.which("node") is None:
        pytest.skip("pyright is not here")
    # It is not in its own package: that fetches it the first time.
    if subprocess.run([sys.executable, "-m", "pyright", "--version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("pyright cannot be fetched")
    has_all = all(importlib.util.find_spec(name) for name in ["fastapi", "httpx", "openai", "ray", "websockets"])
    examples = "examples" if has_all else "examples/conversation.py"
    tool("pyright", "--pythonpath", sys.executable, "antiphon", "tests/typed.py", examples)


def test_what_is_offered_is_there_and_explains_itself() -> None:
    assert sorted(antiphon.__all__) == sorted(set(antiphon.__all__))
    for name in antiphon.__all__:
        one = getattr(antiphon, name)
        if not inspect.isclass(one):
            continue
        assert one.__doc__, name
        for member, value in vars(one).items():
            if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                assert value.__doc__, f"{name}.{member}"
    assert set(dir(antiphon)) == set(antiphon.__all__)
    with pytest.raises(AttributeError):
        antiphon.nothing  # type: ignore[attr-defined]


def test_the_examples_in_the_documents_run() -> None:
    from antiphon import _aio, _engine

    for module in (antiphon, _engine, _aio):
        outcome = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
        assert outcome.attempted and not outcome.failed
    outcome = doctest.testfile(str(ROOT / "README.md"), module_relative=False)
    assert outcome.attempted and not outcome.failed


def test_the_conversation_of_all_languages() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "conversation.py"], capture_output=True, text=True, timeout=120, check=True
    )
    first, second = done.stdout.rstrip().split("\n", 1)  # an answer with steps has more lines than one
    assert first.startswith("[help_request] ") and len(first) > 40
    assert second.startswith("[") and "password" in second


def test_to_import_it_is_cheap() -> None:
    program = "import sys, antiphon; print([name for name in ('asyncio', 'antiphon._aio') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]", "event loops come with the first use of what needs them"
