"""The engine for programs that wait."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import weakref
from pathlib import Path
from typing import Any

import antiphon
import pytest

from conftest import Run

HELP = "Hello, I need help with my account"


def test_a_message_is_understood_and_answered(engine: antiphon.Engine) -> None:
    reply = engine.process(HELP, max_tokens=16)
    assert reply.intent == "help_request"
    assert reply.sentiment == "neutral"
    assert [(entity.type, entity.value, entity.start, entity.end) for entity in reply.entities] == [
        ("account", "account", 27, 34)
    ]
    assert reply.response and reply.finish_reason == "length"
    assert reply.usage.completion_tokens == 16
    assert reply.analysis == engine.analyze(HELP)


def test_the_labels_are_ranked_as_pipelines_rank_them(engine: antiphon.Engine) -> None:
    for text in (HELP, "I hate this", "qwertz uiop"):
        analysis, intents, sentiments = engine.analyze(text), engine.intent(text), engine.sentiment(text)
        assert intents[0] == {"label": analysis.intent.label, "score": analysis.intent.confidence}
        assert len({intent["label"] for intent in intents}) == len(intents)
        assert sentiments[0]["label"] == analysis.sentiment.label
        scores = [sentiment["score"] for sentiment in sentiments]
        assert scores == sorted(scores, reverse=True)
    assert engine.entities(HELP)[0].value == "account"


def test_texts_are_analysed_in_one_call(engine: antiphon.Engine) -> None:
    texts = [HELP, "Where is order 4711?"]
    assert engine.analyze_batch(texts) == [engine.analyze(text) for text in texts]
    assert engine.analyze_batch(text for text in texts) == engine.analyze_batch(tuple(texts))
    assert engine.analyze_batch([]) == []
    with pytest.raises(antiphon.InvalidTextError, match="text 1 is empty"):
        engine.analyze_batch(["fine", ""])


def test_vectors_have_unit_length(engine: antiphon.Engine) -> None:
    one, (again, other) = engine.embed("Hello"), engine.embed(["Hello", "Where is order 4711?"])
    assert one == again != other
    assert abs(sum(number * number for number in one) - 1) < 1e-5


def test_a_text_is_summarized(engine: antiphon.Engine) -> None:
    text = "The lamp is blue. My parcel with the blue lamp has not arrived. Please send another lamp. Thank you."
    assert engine.summarize(text, sentences=1) in text
    assert engine.summarize(text, share=1.0) == text
    with pytest.raises(antiphon.InvalidArgumentError, match="`sentences` is 0"):
        engine.summarize(text, sentences=0)


def test_a_conversation_remembers(engine: antiphon.Engine) -> None:
    with engine.conversation(tenant_id="acme", history=[{"role": "user", "content": "Hi"}]) as conversation:
        first = "".join(event.content for event in conversation.say(HELP, max_tokens=8))
        assert conversation.history[1:] == [
            {"role": "user", "content": HELP},
            {"role": "assistant", "content": first},
        ]
        stream = conversation.say("And now?", max_tokens=8)
        with pytest.raises(antiphon.InvalidArgumentError, match="still being read"):
            conversation.say("Too early")
        next(stream), next(stream)
        stream.close()
        assert len(conversation.history) == 5, "a cut answer counts as far as it was read"
        conversation.reset()
        assert conversation.history == [{"role": "user", "content": "Hi"}]
    with pytest.raises(antiphon.ClosedError):
        conversation.say("Hello?")


def test_the_cache_is_looked_after(engine: antiphon.Engine) -> None:
    with antiphon.Engine(threads=1) as own:
        own.cache.warm("Hello", max_tokens=4)
        assert own.process("Hello", max_tokens=4).metadata.response_generation.cache == "hit"
        stats = own.cache.stats()
        assert (stats.hits, stats.entries) == (1, 1)
        own.cache.clear("another")
        assert own.cache.stats().entries == 1
        own.cache.clear()
        assert own.cache.stats().entries == 0
        own.cache.resize(0)
        assert own.cache.stats().max_bytes == 0
        with pytest.raises(antiphon.InvalidArgumentError, match="max_bytes"):
            own.cache.resize(-1)


def test_an_engine_says_how_it_is() -> None:
    with antiphon.Engine(threads=1) as engine:
        assert engine.ready() and engine.health().status == "healthy"
        assert {model.model_name: model.task for model in engine.models()} == {
            "analyst": "analysis",
            "responder": "generation",
        }
        assert {check.result for check in engine.diagnose().checks} == {"success"}
        engine.analyze("Hello")
        assert 'ai_requests_total{endpoint="analyze",status="success"}' in engine.metrics()
    assert not engine.ready()
    assert engine.health().status == "unhealthy"


def test_closing_ends_everything_and_can_be_done_again() -> None:
    engine = antiphon.Engine(threads=1)
    stream = engine.stream(HELP)
    conversation = engine.conversation()
    engine.close()
    engine.close()
    with pytest.raises(antiphon.ClosedError):
        for _ in stream:
            pass
    for call in (
        lambda: engine.process(HELP),
        lambda: engine.analyze(HELP),
        lambda: engine.stream(HELP),
        lambda: engine.embed(HELP),
        lambda: engine.summarize(HELP),
        lambda: engine.generate([{"role": "user", "content": "Hello"}]),
        lambda: conversation.say(HELP),
    ):
        with pytest.raises(antiphon.ClosedError):
            call()


def test_a_drain_lets_those_finish_who_run() -> None:
    engine = antiphon.Engine(threads=1)
    stream = engine.stream(HELP, max_tokens=8)
    engine.drain(timeout=60)
    assert list(stream)[-1].type == "done"
    with pytest.raises(antiphon.ClosedError):
        engine.process(HELP)


def test_a_configuration_is_checked() -> None:
    with pytest.raises(antiphon.InvalidConfigError, match="`threadz`"):
        antiphon.Engine(threadz=1)
    with pytest.raises(FileNotFoundError) as missing:
        antiphon.Engine(responder=Path("/nowhere"))
    assert isinstance(missing.value, antiphon.ModelNotFoundError)


def test_an_engine_that_is_forgotten_closes_and_its_stream_keeps_it() -> None:
    engine = antiphon.Engine(threads=1)
    gone = weakref.ref(engine)
    stream = engine.stream(HELP, max_tokens=8)
    del engine
    gc.collect()
    assert gone() is not None
    assert [event.type for event in stream][-1] == "done"
    del stream
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
def test_faults_71_what_runs_is_neither_pickled_nor_copied(engine: antiphon.Engine, copied: Any) -> None:
    with engine.stream(HELP) as stream, engine.conversation() as conversation:
        for thing in (engine, stream, conversation, engine._native, stream._native, conversation._native):
            with pytest.raises(TypeError):
                copied(thing)


def test_faults_71_texts_are_str_and_nothing_else(engine: antiphon.Engine) -> None:
    numpy = pytest.importorskip("numpy")

    class Word(str):
        def __str__(self) -> str:
            raise AssertionError("a subclass is read as the text it is")

    assert engine.analyze(Word(HELP)) == engine.analyze(HELP) == engine.analyze(numpy.str_(HELP))
    assert engine.process(Word(HELP), max_tokens=4).response == engine.process(HELP, max_tokens=4).response
    for wrong in (HELP.encode(), bytearray(HELP.encode()), memoryview(HELP.encode()), None, 7, [HELP]):
        for call in (engine.analyze, engine.process, engine.stream, engine.summarize):
            with pytest.raises(TypeError):
                call(wrong)
    for wrong in (HELP, b"bytes", None, 7, [b"bytes"], [HELP, 7]):
        with pytest.raises(TypeError):
            engine.analyze_batch(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        engine.process(HELP, history=[{"role": "user", "content": b"bytes"}])  # type: ignore[dict-item]


def test_faults_71_numbers_of_numpy_are_numbers(engine: antiphon.Engine) -> None:
    numpy = pytest.importorskip("numpy")
    options = {"max_tokens": numpy.int64(4), "temperature": numpy.float32(0.5), "seed": numpy.uint64(7)}
    plain = {"max_tokens": 4, "temperature": 0.5, "seed": 7}
    assert engine.process(HELP, **options).response == engine.process(HELP, **plain).response
    assert engine.process(HELP, stop=numpy.array(["help"]), max_tokens=4).response


def test_faults_71_what_is_given_may_change_while_it_is_read(engine: antiphon.Engine) -> None:
    texts = ["Where is order 4711?"] * 64

    def changing() -> Any:
        for text in list(texts):
            texts.clear()
            yield text

    assert len(engine.analyze_batch(changing())) == 64
    history = [{"role": "user", "content": "Hi"}]
    stream = engine.stream(HELP, history=history, max_tokens=4)
    history.clear()
    assert list(stream)[-1].type == "done"


def test_a_text_without_a_form_in_utf8_is_named(engine: antiphon.Engine) -> None:
    for call, place in (
        (lambda: engine.analyze("a\ud800"), "text is not UTF-8 from byte 1 on"),
        (lambda: engine.process("ä\udcff"), "message is not UTF-8 from byte 2 on"),
        (lambda: engine.process("a", user_id="\ud800"), "user_id is not UTF-8"),
        (lambda: engine.process("a", history=[{"role": "user", "content": "\ud800"}]), r"history\[0\].content is not UTF-8"),
        (lambda: engine.process("a", context={"\ud800": 1}), "a key of context is not UTF-8"),
        (lambda: engine.process("a", stop=["\ud800"]), r"options.stop\[0\] is not UTF-8"),
        (lambda: engine.summarize("\ud800"), "text is not UTF-8 from byte 0 on"),
        (lambda: antiphon.Engine(responder="\ud800"), "responder is not UTF-8"),
    ):
        with pytest.raises(antiphon.InvalidTextError, match=place):
            call()
    assert engine.analyze("Grüße 👋🏽, where is order 4711?").entities[0].start == 25


def test_options_that_cannot_be_are_named(engine: antiphon.Engine) -> None:
    itself: dict[str, Any] = {}
    itself["self"] = itself
    for options, place in (
        ({"temperature": float("nan")}, "temperature. is NaN"),
        ({"top_p": float("inf")}, "top_p. is inf"),
        ({"max_tokens": 2**70}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"colour": "red"}, "colour"),
        ({"context": itself}, "holds itself"),
    ):
        with pytest.raises(antiphon.InvalidArgumentError, match=place):
            engine.process(HELP, **options)  # type: ignore[arg-type]
    assert engine.process(HELP, max_tokens=4, seed=None, stop=None).usage.completion_tokens == 4


def test_faults_67_a_second_interpreter_is_refused_by_name(run: Run) -> None:
    """One process, one interpreter: the import in another one is an ImportError that says so."""
    support = pytest.importorskip("test.support")
    if not hasattr(support, "run_in_subinterp"):
        pytest.skip("this Python has no tests of its own")
    done = run(
        """
        import antiphon
        from test.support import run_in_subinterp
        program = '''
        try:
            import antiphon
        except ImportError as error:
            print(error)
        else:
            print("it was imported")
        '''
        import textwrap
        run_in_subinterp(textwrap.dedent(program))
        print(antiphon.Engine(threads=1, responder=None).process("Hello").intent)
        """
    )
    refusal, answer = done.stdout.splitlines()
    assert "subinterpreter" in refusal
    assert answer == "greeting", "the first one goes on"


def test_results_are_frozen_and_equal_by_value(engine: antiphon.Engine) -> None:
    analysis = engine.analyze(HELP)
    with pytest.raises(AttributeError):
        analysis.tokens = 3  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del analysis._json
    analysis.to_dict()["intent"]["label"] = "changed"
    analysis["entities"].clear()
    assert analysis.intent.label == "help_request" and analysis.entities
    assert analysis["tokens"] == analysis.tokens and "tokens" in analysis and "colour" not in analysis
    again = antiphon.Analysis.from_json(json.dumps(analysis.to_dict()))
    assert again == analysis and hash(again) == hash(analysis) and again is not analysis
    assert pickle.loads(pickle.dumps(analysis)) == analysis == copy.deepcopy(analysis)
    assert "help_request" in repr(analysis)
    assert analysis.intent != analysis.sentiment


def test_a_later_engine_may_say_more() -> None:
    entity = antiphon.Entity({"type": "a", "value": "b", "confidence": 1.0, "start": 0, "end": 1, "new": 7})
    assert entity["new"] == 7 and entity.to_dict()["new"] == 7
