"""Pydantic models of the request bodies.

Unknown fields are ignored, and listed in the response; fields of OpenAI's API that are not supported are refused by
name, unless their value asks for nothing.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from runners.inference.types import Sampling
from runners.plan.gate import Check
from runners.serving.http.errors import ApiError
from runners.serving.http.service import ServerLimits

UNSUPPORTED_FIELDS: dict[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "n": (1,),
    "best_of": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "suffix": ("",),
    "echo": (False,),
}
"""Fields of OpenAI's API that are not supported, with the values that ask for nothing."""
_MIN_TEMPERATURE = 1e-4
"""Below it decoding is greedy: the likeliest token's probability is 1 up to rounding, and the division could overflow."""
_MIN_TOP_P = 1e-6


class OpenModel(BaseModel):
    """A request body; its unknown fields are kept, so that the response can list them."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _no_lone_surrogates(cls, body: Any) -> Any:
        """Refuse lone surrogates, which JSON escapes can spell and no tokenizer takes."""
        try:
            json.dumps(body, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a text has half a character (a lone surrogate)") from None
        return body

    def ignored(self) -> list[str]:
        """Return the names of the unknown fields."""
        return sorted(name[:64] for name in self.model_extra or {} if name not in UNSUPPORTED_FIELDS)

    def refuse_unsupported(self) -> None:
        """Raise `ApiError` for the first field that asks for something unsupported."""
        for name, value in (self.model_extra or {}).items():
            neutral = UNSUPPORTED_FIELDS.get(name)
            if neutral is not None and value is not None and not any(_equal(value, each) for each in neutral):
                raise ApiError(400, f"{name} is not supported", param=name, code="unsupported_parameter")


class StreamOptions(BaseModel):
    """What a stream sends besides the answer."""

    model_config = ConfigDict(strict=True, extra="ignore")

    include_usage: bool | None = Field(None, description="Send the usage in a chunk of its own at the end.")


class SamplingFields(OpenModel):
    """The fields that chat completions and completions share."""

    model: str | None = Field(
        None, max_length=256, description="An id of /v1/models; by default the verdict's arm."
    )
    max_tokens: int | None = Field(
        None, ge=1, le=1 << 31, description="Longest answer, up to the server's limit; by default the plan's."
    )
    temperature: float | None = Field(
        None, ge=0, le=2, description="0, the default, takes the likeliest token each time, as the trial did."
    )
    top_p: float | None = Field(None, ge=0, le=1)
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 64)
    stop: str | list[str] | None = Field(
        None, description="Texts that end the answer; they are no part of it."
    )
    check: Check | None = Field(
        None,
        description="refuse or mark: what becomes of an answer that the passages do not support; by default what the trial "
        "settled for the arm.",
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with a chunk for the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def length(self) -> int | None:
        """Most tokens of the answer, as the request asks; None for the plan's."""
        return self.max_tokens

    def sampling(self, limits: ServerLimits) -> Sampling:
        """Return how tokens are sampled; without a seed, each request draws a new one."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stops) > limits.stops or any(not text or len(text) > 200 for text in stops):
            raise ApiError(400, f"stop takes up to {limits.stops} texts of 1 to 200 characters", param="stop")
        temperature = self.temperature or 0.0
        seed = secrets.randbits(40) if self.seed is None else self.seed % (1 << 40)
        if temperature < _MIN_TEMPERATURE:
            return Sampling(stop=tuple(stops))
        top_p = 1.0 if self.top_p is None else max(self.top_p, _MIN_TOP_P)
        return Sampling(temperature, top_p, seed, tuple(stops))


class MessagePart(BaseModel):
    """A part of a message's content."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: str = Field(max_length=64)
    text: str | None = None


class RequestMessage(BaseModel):
    """One message of a chat."""

    model_config = ConfigDict(extra="allow", strict=True)

    role: str = Field(max_length=64, description="system, developer, user or assistant.")
    content: str | list[MessagePart] | None = None


class ChatRequest(SamplingFields):
    """The body of a chat completion's request."""

    messages: list[RequestMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(
        None, ge=1, le=1 << 31, description="Takes precedence over max_tokens."
    )
    response_format: dict[str, Any] | None = Field(
        None,
        description="text, json_object or json_schema. A model of this process is constrained to it while it generates; "
        "answers of an endpoint are checked when they arrive.",
    )

    @property
    def length(self) -> int | None:
        """Most tokens of the answer, as the request asks; None for the plan's."""
        return self.max_completion_tokens or self.max_tokens


def _no_token_ids(value: Any, info: ValidationInfo) -> Any:
    """Refuse token ids, which some clients send instead of texts: they are another tokenizer's ids."""
    if isinstance(value, list) and any(isinstance(item, int | list) for item in value):
        hint = " (LangChain: check_embedding_ctx_length=False)" if info.field_name == "input" else ""
        raise ApiError(
            400,
            f"{info.field_name}: token ids are not read, send texts{hint}",
            param=info.field_name,
            code="unsupported_parameter",
        )
    return value


class CompletionRequest(SamplingFields):
    """The body of a completion's request."""

    prompt: str | list[str] = Field(
        description="A text that a model without an arm continues; a question for an arm."
    )
    _refuse_token_ids = field_validator("prompt", mode="before")(_no_token_ids)


class EmbeddingRequest(OpenModel):
    """The body of an embeddings request."""

    input: str | list[str] = Field(description="Texts to embed.")
    input_type: Literal["document", "query"] = Field(
        "document", description="Which of the embedder's prompts is put before the texts."
    )
    _refuse_token_ids = field_validator("input", mode="before")(_no_token_ids)
    model: str | None = Field(None, max_length=256)
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1, description="Only the embedder's own.")


class SearchRequest(OpenModel):
    """The body of a search."""

    query: str = Field(min_length=1)
    k: int = Field(5, ge=1, le=50, description="Hits wanted.")
    where: list[Annotated[str, Field(max_length=500)]] = Field(
        [], max_length=16, description="Conditions such as tags=ferry, date>=2026-05."
    )
    as_of: str | None = Field(None, max_length=32, description="The day to answer for, as 2026-05-01.")
    expired: bool = Field(False, description="Search expired documents too.")


def _equal(value: Any, neutral: Any) -> bool:
    """Return whether two JSON values are equal; unlike in Python, True does not equal 1."""
    if isinstance(value, bool) != isinstance(neutral, bool):
        return False
    return bool(value == neutral) and isinstance(value, Mapping) == isinstance(neutral, Mapping)
