"""Third-party clients, unchanged: the official openai package, llm, and curl."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam
from pydantic import BaseModel, Field

from tests.support.limits import HANG_S

QUESTION = "How many berths has the Heron Pier?"
HERON: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": QUESTION}]


@pytest.fixture(scope="module")
def client(served: Any) -> openai.OpenAI:
    """The official client of OpenAI."""
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="none-needed", max_retries=0)


def test_openai_client_lists_models_completes_and_streams(client: openai.OpenAI) -> None:
    assert "rag" in [model.id for model in client.models.list()]
    completion = client.chat.completions.create(model="rag", messages=HERON)
    usage = completion.usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert (completion.model_extra or {})["x_tunewise"]["arm"] == "rag"
    stream = client.chat.completions.create(
        model="rag", messages=HERON, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == (
        completion.choices[0].message.content
    )
    assert chunks[-1].usage == usage
    assert (chunks[-2].model_extra or {})["x_tunewise"]["arm"] == "rag"
    text = client.completions.create(model="lora-s0", prompt="Aye", max_tokens=3)
    assert text.usage is not None
    assert text.usage.completion_tokens == 3
    vector = client.embeddings.create(model="embedder", input="The Heron Pier").data[0].embedding
    assert len(vector) == 16


def test_openai_client_gets_equal_answers_concurrently(served: Any, client: openai.OpenAI) -> None:
    alone = client.chat.completions.create(model="lora", messages=HERON).choices[0].message.content

    async def ask() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none") as concurrent:
            whole = [concurrent.chat.completions.create(model="lora", messages=HERON) for _ in range(4)]
            stream = await concurrent.chat.completions.create(model="lora", messages=HERON, stream=True)
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
            completions = await asyncio.gather(*whole)
            return [*(c.choices[0].message.content for c in completions), "".join(pieces)]

    assert set(asyncio.run(ask())) == {alone}


def test_openai_client_raises_its_own_error_types(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-4o'"):
        client.chat.completions.create(model="gpt-4o", messages=HERON)
    with pytest.raises(openai.BadRequestError, match="tools is not supported") as caught:
        client.chat.completions.create(
            model="rag", messages=HERON, tools=[{"type": "function", "function": {"name": "find"}}]
        )
    assert caught.value.param == "tools"
    with pytest.raises(openai.UnprocessableEntityError):
        client.chat.completions.create(model="rag", messages=HERON, temperature=3)

    class Berths(BaseModel):
        count: list[Annotated[int, Field(ge=0, le=99)]] = Field(min_length=1, max_length=3)

    # A text that ends the answer may end its JSON too.
    with pytest.raises(openai.UnprocessableEntityError, match="not the JSON"):
        client.chat.completions.parse(model="lora", messages=HERON, response_format=Berths, stop=":")
    with (
        pytest.raises(openai.APIError, match="not the JSON"),
        client.chat.completions.stream(
            model="lora", messages=HERON, response_format=Berths, stop=":"
        ) as stream,
    ):
        list(stream)


def test_openai_client_parses_json_and_streams_it_and_refusals(client: openai.OpenAI) -> None:
    class Berths(BaseModel):
        count: list[Annotated[int, Field(ge=0, le=99)]] = Field(min_length=1, max_length=3)

    parsed = client.chat.completions.parse(
        model="lora", messages=HERON, response_format=Berths, max_tokens=40
    ).choices[0]
    assert isinstance(parsed.message.parsed, Berths)
    moon: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "Who owns the moon?"}]
    with client.chat.completions.stream(model="rag", messages=moon, response_format=Berths) as stream:
        kinds = [event.type for event in stream]
        message = stream.get_final_completion().choices[0].message
    assert "refusal.done" in kinds
    assert message.refusal == "I could not find that in our documents."
    assert message.parsed is None
    with client.chat.completions.stream(
        model="lora", messages=HERON, response_format=Berths, max_tokens=40
    ) as stream:
        kinds = [event.type for event in stream]
        message = stream.get_final_completion().choices[0].message
    assert kinds.count("content.delta") > 1
    assert message.parsed == parsed.message.parsed


def test_llm_command_gets_the_same_answer(served: Any, tmp_path: Path) -> None:
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path), "NO_COLOR": "1"}
    with served.client() as http:
        body = {"model": "rag", "messages": HERON}
        expected = http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
    url = f"{served.url}/v1"
    for options in ([], ["--no-stream"]):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "llm",
                "openai",
                "endpoint",
                url,
                "-m",
                "rag",
                QUESTION,
                *options,
            ],
            env=environment,
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == expected


JSON_TYPE = "-H 'Content-Type: application/json'"
MOON = '"messages": [{"role": "user", "content": "Who owns the moon?"}]'
CURL = (
    "curl -s URL/v1/models",
    f'curl -s URL/v1/chat/completions {JSON_TYPE} -d \'{{"model": "rag", {MOON}}}\'',
    f"curl -sN URL/v1/chat/completions {JSON_TYPE} -d '{{\"stream\": true, {MOON}}}'",
    f'curl -s URL/v1/search {JSON_TYPE} -d \'{{"query": "Heron Pier", "k": 1}}\'',
    "curl -s URL/v1/chat/completions -d hello",
)


def test_curl_gets_answers_streams_and_errors(served: Any) -> None:
    if shutil.which("curl") is None:
        pytest.fail("curl is needed: apt-get install curl")
    outputs = []
    for line in CURL:
        done = subprocess.run(
            ["bash", "-c", line.replace("URL", served.url)],
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=True,
        )
        outputs.append(done.stdout)
    assert json.loads(outputs[0])["object"] == "list"
    refusal = "I could not find that in our documents."
    assert json.loads(outputs[1])["choices"][0]["message"]["content"] == refusal
    assert f'"content": "{refusal}"' in outputs[2]
    assert outputs[2].endswith("data: [DONE]\n\n")
    assert json.loads(outputs[3])["generation"] >= 1
    assert json.loads(outputs[4])["error"]["code"] == "not_json"
