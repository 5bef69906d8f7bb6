"""The official client, unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionStreamOptionsParam

from .service import HANG_SECONDS, Service, running, until

CHAT: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello, I need help with my account"}]


def connect(service: Service) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0, timeout=HANG_SECONDS)


@pytest.fixture
def chat(service: Service) -> Iterator[openai.OpenAI]:
    with connect(service) as client:
        yield client


def test_a_completion_has_text_and_usage(chat: openai.OpenAI) -> None:
    completion = chat.chat.completions.create(model="responder", messages=CHAT)
    choice = completion.choices[0]
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason == "stop"
    assert completion.model == "responder"
    usage = completion.usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens > 0


def test_a_stream_says_the_same_in_pieces_and_ends_with_usage(chat: openai.OpenAI) -> None:
    whole = chat.chat.completions.create(model="responder", messages=CHAT)
    options: ChatCompletionStreamOptionsParam = {"include_usage": True}
    with chat.chat.completions.create(model="responder", messages=CHAT, stream=True, stream_options=options) as stream:
        chunks = list(stream)
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert len(pieces) > 2
    assert "".join(pieces) == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None and whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_a_stream_has_no_usage_that_nobody_asked_for(chat: openai.OpenAI) -> None:
    with chat.chat.completions.create(model="responder", messages=CHAT, stream=True) as stream:
        assert all(chunk.usage is None and chunk.choices for chunk in stream)


def test_options_have_their_openai_meaning(chat: openai.OpenAI) -> None:
    short = chat.chat.completions.create(model="responder", messages=CHAT, max_completion_tokens=3)
    assert short.choices[0].finish_reason == "length"
    assert short.usage is not None and short.usage.completion_tokens == 3
    create = chat.chat.completions.create
    sampled = [create(model="responder", messages=CHAT, temperature=1.2, seed=7) for _ in range(2)]
    assert sampled[0].choices[0].message.content == sampled[1].choices[0].message.content
    text = short.choices[0].message.content
    assert text is not None
    stopped = create(model="responder", messages=CHAT, stop=[text[-3:]])
    assert text[-3:] not in (stopped.choices[0].message.content or "")
    likely = create(model="responder", messages=CHAT, max_tokens=2, logprobs=True, top_logprobs=3)
    tokens = likely.choices[0].logprobs
    assert tokens is not None and tokens.content is not None
    assert [len(token.top_logprobs) for token in tokens.content] == [3, 3]


def test_content_may_come_in_parts(chat: openai.OpenAI) -> None:
    parts: list[ChatCompletionMessageParam] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello, "}, {"type": "text", "text": "who are you?"}]},
    ]
    plain: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello, who are you?"},
    ]
    answers = [chat.chat.completions.create(model="responder", messages=turns) for turns in (parts, plain)]
    assert answers[0].choices[0].message.content == answers[1].choices[0].message.content


def test_the_models_that_generate_are_listed(chat: openai.OpenAI) -> None:
    assert [model.id for model in chat.models.list()] == ["responder"]


def test_an_error_is_of_the_clients_own_class(chat: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        chat.chat.completions.create(model="gpt-none", messages=CHAT)
    assert unknown.value.type == "VALIDATION"
    assert isinstance(unknown.value.body, dict)
    assert (unknown.value.body["code"], unknown.value.body["kind"]) == (-105, "unknown_model")
    with pytest.raises(openai.BadRequestError, match="temperature"):
        chat.chat.completions.create(model="responder", messages=CHAT, temperature=3)
    with pytest.raises(openai.BadRequestError, match="tools"):
        chat.chat.completions.create(model="responder", messages=CHAT, extra_body={"tools": []})
    # A stream that cannot begin fails with a status as well.
    with pytest.raises(openai.NotFoundError):
        chat.chat.completions.create(model="gpt-none", messages=CHAT, stream=True)


def test_a_quota_that_is_used_up_is_a_rate_limit_to_the_client() -> None:
    with running(RATE_LIMIT="on", RATE_LIMIT_REQUESTS="1") as service, connect(service) as client:
        client.chat.completions.create(model="responder", messages=CHAT, user="anna")
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(model="responder", messages=CHAT, user="anna")
        assert int(refused.value.response.headers["Retry-After"]) > 0


def test_a_stream_that_breaks_ends_with_an_error_after_what_there_was(endless: Service) -> None:
    pieces: list[str] = []
    with connect(endless) as client, pytest.raises(openai.APIError) as broken:
        with client.chat.completions.create(model="broken", messages=CHAT, stream=True) as stream:
            pieces.extend(chunk.choices[0].delta.content or "" for chunk in stream)
    assert "".join(pieces) == "so far so good"
    assert isinstance(broken.value.body, dict)
    assert broken.value.body["kind"] == "plugin_failed"
    path = "/v1/chat/completions"
    until(lambda: endless.metric("ai_requests_total", endpoint=path, status="plugin_failed") == 1)


def is_idle(service: Service) -> bool:
    return service.metric("antiphon_running_requests") == 0


def test_closing_a_stream_ends_its_work(endless: Service) -> None:
    with connect(endless) as client:
        with client.chat.completions.create(model="endless", messages=CHAT, stream=True) as stream:
            pieces = [next(stream).choices[0].delta.content or "" for _ in range(5)]
            assert "and on" in "".join(pieces)
            assert not is_idle(endless)
        until(lambda: is_idle(endless))
    path = "/v1/chat/completions"
    until(lambda: endless.metric("ai_requests_total", endpoint=path, status="cancelled") > 0)


def test_cancelling_a_task_that_awaits_a_completion_ends_its_work(endless: Service) -> None:
    async def cancel() -> None:
        async with openai.AsyncOpenAI(base_url=f"{endless.url}/v1", api_key="none", max_retries=0) as client:
            task = asyncio.create_task(client.chat.completions.create(model="endless", messages=CHAT))
            while await asyncio.to_thread(is_idle, endless):
                assert not task.done()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(asyncio.wait_for(cancel(), HANG_SECONDS))
    until(lambda: is_idle(endless))
