"""Chat completions in OpenAI's shape."""

from __future__ import annotations

import pickle
from typing import Any

import antiphon
import pytest

from conftest import GOES_ON

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]


def test_a_completion_has_openais_shape(engine: antiphon.Engine) -> None:
    completion = engine.generate(MESSAGES, max_tokens=5)
    shape = completion.to_dict()
    assert shape.keys() == {"id", "object", "created", "model", "choices", "usage"}
    assert (shape["object"], shape["model"]) == ("chat.completion", "responder")
    choice = completion.choices[0]
    assert (choice.index, choice.message.role, choice.finish_reason, choice.logprobs) == (0, "assistant", "length", None)
    assert choice.message.content == completion.reply.response != ""
    usage = completion.usage
    assert usage.completion_tokens == 5
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details["cached_tokens"] <= usage.prompt_tokens
    assert pickle.loads(pickle.dumps(completion)) == completion
    assert pickle.loads(pickle.dumps(completion)).reply == completion.reply


def test_chunks_have_openais_shape(engine: antiphon.Engine) -> None:
    completion = engine.generate(messages=MESSAGES, max_tokens=5)
    stream = engine.generate(MESSAGES, stream=True, max_tokens=5, stream_options={"include_usage": True})
    assert stream.reply is None
    first, *middle, last, usage = stream
    assert first.choices[0].delta.to_dict() == {"role": "assistant", "content": ""}
    assert "".join(chunk.choices[0].delta.content or "" for chunk in middle) == completion.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in middle] == [None] * len(middle)
    assert last.choices[0].finish_reason == "length" and last.choices[0].delta.content is None
    assert usage.choices == [] and usage.usage is not None
    assert usage.usage.completion_tokens == completion.usage.completion_tokens
    assert {chunk.id for chunk in (first, *middle, last, usage)} == {first.id} != {completion.id}
    assert {chunk.object for chunk in middle} == {"chat.completion.chunk"}
    assert stream.reply is not None and stream.reply.response == completion.reply.response
    assert "usage" not in next(engine.generate(MESSAGES, stream=True, max_tokens=1)).to_dict()


def test_words_of_openais_that_mean_the_same_are_understood(engine: antiphon.Engine) -> None:
    plain = engine.generate(MESSAGES, max_tokens=6, stop=["zzz"], user_id="u").reply.response
    assert engine.generate(MESSAGES, max_completion_tokens=6, n=1, stop="zzz", user="u").reply.response == plain
    for wrong, place in (
        ({"n": 2}, "`n`"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_completion_tokens"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"colour": 1}}, "stream_options"),
        ({"stream": True, "on_event": print}, "on_event"),
        ({"tools": []}, "tools"),
    ):
        with pytest.raises(antiphon.InvalidArgumentError, match=place):
            engine.generate(MESSAGES, **wrong)  # type: ignore[call-overload]


def test_tokens_have_the_probabilities_that_were_asked_for(engine: antiphon.Engine) -> None:
    completion = engine.generate(MESSAGES, max_tokens=3, logprobs=True, top_logprobs=2)
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None and len(logprobs.content) == 3
    token = logprobs.content[0]
    assert token.bytes == list(token.token.encode()) and token.logprob <= 0 and len(token.top_logprobs) == 2
    chunks = list(engine.generate(MESSAGES, stream=True, max_tokens=3, logprobs=True, top_logprobs=2))
    streamed = [one for chunk in chunks if (found := chunk.choices[0].logprobs) for one in found.content]
    assert streamed == logprobs.content
    assert engine.generate(MESSAGES, max_tokens=1, logprobs=False).choices[0].logprobs is None


def test_a_prompt_is_continued_as_it_stands(engine: antiphon.Engine) -> None:
    assert engine.generate(prompt="Hello", max_tokens=4).usage.prompt_tokens == 1
    with pytest.raises(antiphon.InvalidArgumentError, match="either prompt or messages"):
        engine.generate(MESSAGES, prompt="Hello")
    with pytest.raises(antiphon.InvalidArgumentError, match="`messages` is empty"):
        engine.generate()


def test_a_consumer_of_a_completion_may_stop(engine: antiphon.Engine) -> None:
    heard: list[Any] = []

    def stops(event: antiphon.Event) -> bool:
        heard.append(event.content)
        return len(heard) == 2

    completion = engine.generate(MESSAGES, on_event=stops, **GOES_ON)
    assert len(heard) == 2
    assert completion.reply.finish_reason == "cancelled" and completion.choices[0].finish_reason == "stop"


def test_a_stream_of_chunks_is_cancelled_and_stopped(engine: antiphon.Engine) -> None:
    with engine.generate(MESSAGES, stream=True, **GOES_ON) as stream:
        [next(stream), next(stream)]
        stream.cancel()
        with pytest.raises(antiphon.RequestCancelledError):
            next(stream)
    with engine.generate(MESSAGES, stream=True, **GOES_ON) as stream:
        [next(stream), next(stream)]
        stream.stop()
        assert list(stream)[-1].choices[0].finish_reason == "stop"
        assert stream.reply is not None and stream.reply.finish_reason == "cancelled"
