"""The bodies of responses in OpenAI's shape; tunewise's own keys are in `x_tunewise`, which strict clients ignore."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from runners.serving.request import RequestResult
from runners.serving.served_models import ServedModel


@dataclass(frozen=True, slots=True)
class ResponseIdentity:
    """The id, time and model of one response, which all its chunks repeat."""

    model: ServedModel
    chat: bool
    """Whether it answers /v1/chat/completions, rather than /v1/completions."""
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def new(cls, model: ServedModel, chat: bool) -> ResponseIdentity:
        """Return an identity with a random id."""
        return cls(model, chat, f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}")

    def full_body(self, results: list[RequestResult], extra: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the body of a response that is not streamed.

        Args:
            results: one for each choice.
            extra: the `x_tunewise` of each.
        """
        choices: list[dict[str, Any]] = []
        for index, result in enumerate(results):
            content: dict[str, Any] = {"text": result.text}
            if self.chat:
                # Where JSON was asked for, clients must be able to tell a refusal from an answer.
                refusal = result.text if "response_format" in extra[index] and _is_refusal(result) else None
                content = {"message": {"role": "assistant", "content": result.text, "refusal": refusal}}
            reason = finish_reason(result)
            choices.append({"index": index, **content, "logprobs": None, "finish_reason": reason})
        x_tunewise = extra[0] if len(extra) == 1 else {"schema": 1, "choices": extra}
        usage = usage_body(*results)
        return {**self._head(""), "choices": choices, "usage": usage, "x_tunewise": x_tunewise}

    def first_chunk(self) -> dict[str, Any]:
        """Return the first chunk, with the role and no text."""
        return self._chunk({"delta": {"role": "assistant", "content": ""}} if self.chat else {"text": ""})

    def text_chunk(self, text: str) -> dict[str, Any]:
        """Return a chunk with a piece of the answer."""
        return self._chunk({"delta": {"content": text}} if self.chat else {"text": text})

    def answer_chunk(self, result: RequestResult) -> dict[str, Any]:
        """Return a chunk with the whole answer as `content`, or the refusal as `refusal`."""
        return self._chunk({"delta": {"refusal" if _is_refusal(result) else "content": result.text}})

    def last_chunk(self, result: RequestResult, extra: dict[str, Any]) -> dict[str, Any]:
        """Return the chunk with the finish reason and, in `x_tunewise`, the citations."""
        return {
            **self._chunk({"delta": {}} if self.chat else {"text": ""}, finish_reason(result)),
            "x_tunewise": extra,
        }

    def usage_chunk(self, result: RequestResult) -> dict[str, Any]:
        """Return the chunk with the usage, which has no choices."""
        return {**self._head(".chunk"), "choices": [], "usage": usage_body(result)}

    def _chunk(self, content: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": reason}
        return {**self._head(".chunk"), "choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        name = f"chat.completion{kind}" if self.chat else "text_completion"
        return {"id": self.id, "object": name, "created": self.created, "model": self.model.id}


def finish_reason(result: RequestResult) -> str:
    """Return OpenAI's `finish_reason` of an answer; a refusal is an answer like any other."""
    return "length" if result.completion.finish == "length" else "stop"


def usage_body(*results: RequestResult) -> dict[str, Any]:
    """Return OpenAI's `usage`: tokens of the prompts and of the answers, and of reasoning among these."""
    prompt = sum(result.completion.prompt_tokens for result in results)
    completion = sum(result.completion.completion_tokens for result in results)
    reasoning = sum(result.completion.reasoning_tokens for result in results)
    details = {"completion_tokens_details": {"reasoning_tokens": reasoning}} if reasoning else {}
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        **details,
    }


def x_tunewise_body(result: RequestResult, model: ServedModel, notes: dict[str, Any]) -> dict[str, Any]:
    """Return the `x_tunewise` of an answer: the keys of `ask --json` without text and tokens, and notes.

    The key `answer` is there only where the text that the citations' offsets refer to differs from the text that the
    client got; `unmarked` only where an arm without retrieval, whose later prompts hold its earlier answers, gave a text
    that was changed for display.

    Args:
        result: the answer.
        model: the model that gave it.
        notes: further keys, such as the fields of the request that were ignored.
    """
    body: dict[str, Any] = {"schema": 1, "arm": None if model.raw else model.id}
    if result.answer is not None:
        body = result.answer.reply_json(model.id)
        del body["usage"]
        if body["answer"] == result.text == result.streamed:
            del body["answer"]
        if not model.step.retrieval and result.answer.text != result.answer.marked:
            body["unmarked"] = result.answer.text
        if result.completion.reasoning_cut:
            body["reasoning_cut"] = True
    body |= {"seconds": round(result.completion.seconds, 3), **notes}
    if result.timed_out:
        body["cut"] = "the time limit ended the answer"
    if result.completion.estimated:
        body["tokens_estimated"] = True
    return body


def _is_refusal(result: RequestResult) -> bool:
    return result.answer is not None and result.answer.refused
