"""What each peer does with the tasks of `contest.rs`, in terms of its own interface.

    theirs.py ENGINE MODEL THREADS STREAMS

Reads a task a line and writes a result a line. The model is opened by the first task.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy
from shapes import ENCODER

ROOM = 2048  # tokens that each stream has room for
FEWEST = 8  # steps that are taken however slow they are

Result = dict[str, Any]


def main() -> None:
    engine, model, threads, streams = sys.argv[1:]
    contestant = ENGINES[engine](model, int(threads), int(streams))
    before = resident("VmRSS")
    for line in sys.stdin:
        task = json.loads(line)
        kind = task.pop("do")
        if kind == "memory":
            result = {"bytes": resident("VmRSS") - before, "peak_bytes": resident("VmHWM") - before}
        else:
            result = getattr(contestant, kind)(**task)
        print(json.dumps(result), flush=True)


def steps(gaps: list[float]) -> Result:
    return {"steps": len(gaps), "seconds": sum(gaps), "gaps": gaps}


def token(stream: int, position: int, vocabulary: int) -> int:
    """As in `contest.rs`: numbers without a pattern that a cache could find."""
    return (position * 7919 + stream * 104_729 + 1) % vocabulary


def resident(which: str) -> int:
    """Bytes that are resident now (VmRSS), or the most that ever were (VmHWM)."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith(f"{which}:"))
    return int(line.split()[1]) * 1024


class LlamaCpp:
    """Through the C interface: its Python classes would take part of the time."""

    def __init__(self, model: str, threads: int, streams: int) -> None:
        import llama_cpp

        self.api = llama_cpp
        self.silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self.silent, None)
        llama_cpp.llama_backend_init()
        self.path, self.threads, self.streams = model, threads, streams
        self.context: Any = None
        # Of each stream, how much of the prompt is held and the token after it.
        self.held: dict[int, tuple[int, int]] = {}

    def open(self) -> None:
        if self.context is not None:
            return
        api = self.api
        model = api.llama_model_load_from_file(self.path.encode(), api.llama_model_default_params())
        settings = api.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max = ROOM * self.streams, self.streams
        settings.n_threads = settings.n_threads_batch = self.threads
        self.context = api.llama_init_from_model(model, settings)
        self.memory = api.llama_get_memory(self.context)
        self.vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
        self.batch = api.llama_batch_init(ROOM, 0, 1)

    def decode_batch(self, rows: list[tuple[int, int, int, bool]]) -> None:
        """Rows of stream, position, token, and whether logits are wanted."""
        batch = self.batch
        batch.n_tokens = len(rows)
        for index, (stream, position, number, wanted) in enumerate(rows):
            batch.token[index], batch.pos[index], batch.logits[index] = number, position, wanted
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, stream
        if self.api.llama_decode(self.context, batch) != 0:
            raise RuntimeError("llama_decode failed")

    def likeliest(self, row: int) -> int:
        logits = self.api.llama_get_logits_ith(self.context, row)
        return int(numpy.ctypeslib.as_array(logits, (self.vocabulary,)).argmax())

    def read(self, stream: int, tokens: int) -> None:
        self.api.llama_memory_seq_rm(self.memory, stream, -1, -1)
        last = tokens - 1
        self.decode_batch([(stream, at, token(stream, at, self.vocabulary), at == last) for at in range(tokens)])
        self.held[stream] = tokens, self.likeliest(last)

    def first_token(self, tokens: int) -> Result:
        begun = perf_counter()
        self.open()
        self.read(0, tokens)
        return {"seconds": perf_counter() - begun, "token": self.held[0][1]}

    def prompt(self, tokens: int) -> Result:
        self.open()
        begun = perf_counter()
        self.read(0, tokens)
        return {"seconds": perf_counter() - begun, "token": self.held[0][1]}

    def decode(self, context: int, tokens: int, streams: int, seconds: float) -> Result:
        self.open()
        for stream in range(streams):
            if self.held.get(stream, (0, 0))[0] != context:
                self.read(stream, context)
            self.api.llama_memory_seq_rm(self.memory, stream, context, -1)
        following = [self.held[stream][1] for stream in range(streams)]
        gaps: list[float] = []
        while len(gaps) < tokens and (len(gaps) < FEWEST or sum(gaps) < seconds):
            begun = perf_counter()
            at = context + len(gaps)
            self.decode_batch([(stream, at, number, True) for stream, number in enumerate(following)])
            following = [self.likeliest(row) for row in range(streams)]
            gaps.append(perf_counter() - begun)
        return steps(gaps)


class CTranslate2:
    def __init__(self, model: str, threads: int, streams: int) -> None:
        import ctranslate2

        self.path, self.threads = model, threads
        self.api = ctranslate2
        self.generator: Any = None

    def open(self) -> None:
        if self.generator is None:
            self.generator = self.api.Generator(self.path, compute_type="int8", intra_threads=self.threads)
            with open(f"{self.path}/vocabulary.json") as vocabulary:
                self.vocabulary = len(json.load(vocabulary))

    def write(self, context: int, tokens: int, streams: int, heard: Callable[[Any], bool] | None) -> list[Any]:
        prompts = [[str(token(stream, at, self.vocabulary)) for at in range(context)] for stream in range(streams)]
        results: list[Any] = self.generator.generate_batch(
            prompts, min_length=tokens, max_length=tokens, include_prompt_in_result=False, sampling_topk=1, callback=heard
        )
        return results

    def prompt(self, tokens: int) -> Result:
        self.open()
        begun = perf_counter()
        [written] = self.write(tokens, 1, 1, None)
        return {"seconds": perf_counter() - begun, "token": written.sequences_ids[0][0]}

    def decode(self, context: int, tokens: int, streams: int, seconds: float) -> Result:
        self.open()
        heard: list[float] = []

        def hear(step: Any) -> bool:
            if step.batch_id == 0:
                heard.append(perf_counter())
            # True ends the stream.
            return len(heard) > FEWEST and heard[-1] - heard[0] >= seconds

        self.write(context, tokens + 1, streams, hear)
        return steps([later - earlier for earlier, later in zip(heard, heard[1:])])


class OnnxRuntime:
    def __init__(self, model: str, threads: int, streams: int) -> None:
        import onnxruntime

        self.api, self.path, self.threads = onnxruntime, model, threads
        self.session: Any = None

    def open(self) -> None:
        if self.session is None:
            settings = self.api.SessionOptions()
            settings.intra_op_num_threads = self.threads
            self.session = self.api.InferenceSession(self.path, settings, providers=["CPUExecutionProvider"])

    def encode(self, texts: int, tokens: int, seconds: float) -> Result:
        self.open()
        ids = [[token(text, at, ENCODER.vocabulary) for at in range(tokens)] for text in range(texts)]
        batch = {"input_ids": numpy.array(ids, numpy.int64)}
        spans: list[float] = []
        while len(spans) < 3 or sum(spans) < seconds:
            begun = perf_counter()
            self.session.run(None, batch)
            spans.append(perf_counter() - begun)
        return {"calls": len(spans), "seconds": float(numpy.median(spans))}


ENGINES: dict[str, Callable[[str, int, int], Any]] = {
    "llama.cpp": LlamaCpp,
    "CTranslate2": CTranslate2,
    "onnxruntime": OnnxRuntime,
}

if __name__ == "__main__":
    main()
