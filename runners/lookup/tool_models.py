"""The models that ask for calls: by an endpoint's ``tools``, or by the format of tools in a local model's chat template.

:class:`EndpointCalls` and :class:`TemplateCalls` keep :class:`ToolModel`. A template's format is not read from a list of
families: a chat with a call is rendered, and the model is refused where the call is not found again in what the template
writes (:func:`template_problem`).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from rag.errors import BadInput, Problem
from runners.data.formats import Message
from runners.inference.http_client import NO_DEADLINE, RequestCaller
from runners.inference.servers.dialect import is_too_long
from runners.inference.types import GREEDY, Completion, CompletionStream, ToolCall
from runners.lookup.tools import TOOLS, tool_definitions
from runners.tokenization.chat_template import ChatTokenizer, control_token_breaker, neutralise_chat
from runners.tokenization.token_estimate import estimate_tokens

if TYPE_CHECKING:
    from runners.inference.local import LocalGenerator
    from runners.inference.remote import RemoteGenerator

CALL_TOKENS = 256
"""Tokens that a reply may have for its calls, beside those of an answer."""
PROBE_TOKENS = 64
SHOWN_SHARE = 0.25
"""Share of the estimated tokens of the tools' definitions that a prompt with them has at least, however they are written."""
USUAL_OPENING = "<tool_call>"
"""What models of several families write before a call."""
_OPENING_CHARS = 40


class ContextFull(BadInput):
    """A chat with its results is longer than the model reads."""


class ToolModel(Protocol):
    """A model that answers a chat, or asks for calls of tools before."""

    at_once: int
    """Answers that may be asked for at a time."""
    note: str
    """What :meth:`refusal` noticed of a model that takes tools; "" for nothing."""

    def reply(
        self,
        chat: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        max_new_tokens: int,
        caller: RequestCaller = NO_DEADLINE,
    ) -> Completion:
        """Return the answer, or what asks for calls; without tools it is an answer. ContextFull for too long a chat."""
        ...

    def refusal(self) -> str:
        """Ask once whether the model takes tools; return why not, "" where it does."""
        ...


class EndpointCalls:
    """A model by an OpenAI-compatible server, given the tools in each request."""

    def __init__(self, generator: RemoteGenerator) -> None:
        """Take the generator of its endpoint, or of the servers of a backend."""
        self.generator = generator
        self.at_once = generator.limits.at_once
        self.note = ""

    def reply(
        self,
        chat: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        max_new_tokens: int,
        caller: RequestCaller = NO_DEADLINE,
    ) -> Completion:
        """Send a request; see :class:`ToolModel`."""
        limit = max_new_tokens + (CALL_TOKENS if tools else 0)
        try:
            completion = self.generator.answer_or_call(chat, limit, tools, caller)
        except BadInput as problem:
            if is_too_long(problem.message):
                raise ContextFull(problem.message, problem.hint) from None
            raise
        # a server without a parser for the model's calls leaves them in the text
        return completion if completion.calls and tools else _as_asked(completion, tools, USUAL_OPENING)

    def refusal(self) -> str:
        """Send a small request with tools; a server that does not know them says so, or breaks.

        One that takes them and does not show them to the model is told by its own count of the prompt's tokens.
        """
        chat: list[Message] = [{"role": "user", "content": "Which documents are there?"}]
        tools = tool_definitions(search=False)
        try:
            reply = self.generator.answer_or_call(chat, PROBE_TOKENS, tools)
        except Problem as problem:
            if re.search(r"tool|function", problem.message, re.IGNORECASE):
                return problem.message
            raise
        least = SHOWN_SHARE * estimate_tokens(json.dumps(tools))
        if not (reply.calls or reply.estimated) and reply.prompt_tokens < least:
            self.note = (
                f"{self.generator.name} seems not to be shown the tools: its server counts {reply.prompt_tokens} tokens in "
                "a prompt with them; does its chat template take tools?"
            )
        return ""


class TemplateCalls:
    """A model on this machine, given the tools by its chat template; calls are read from the text that it writes."""

    at_once = 1
    note = ""

    def __init__(self, generator: LocalGenerator) -> None:
        """Take the loaded model."""
        self.generator = generator
        self._break_controls = control_token_breaker(generator.chat.control_tokens)
        self._opening = call_opening(generator.chat)

    def reply(
        self,
        chat: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        max_new_tokens: int,
        caller: RequestCaller = NO_DEADLINE,
    ) -> Completion:
        """Render the chat with the tools, generate, and read the calls; see :class:`ToolModel`."""
        turns = neutralise_chat(_template_turns(chat, self._break_controls), self._break_controls)
        text = self.generator.chat.render(turns, prompt=True, tools=tools)
        limit = max_new_tokens + (CALL_TOKENS if tools else 0)
        try:
            prompt = self.generator.prompt(text, limit)
        except BadInput as problem:
            raise ContextFull(problem.message, problem.hint) from None

        def is_cancelled() -> bool:
            return not caller.is_waiting() or time.monotonic() >= caller.deadline

        completion = CompletionStream(self.generator.follow(prompt, limit, GREEDY, is_cancelled)).finish()
        return _as_asked(completion, tools, self._opening)

    def refusal(self) -> str:
        """Return why the template takes no tools, "" where it does; nothing is generated."""
        return template_problem(self.generator.chat)


def _as_asked(completion: Completion, tools: Sequence[dict[str, Any]], opening: str) -> Completion:
    """Return a completion with the calls in its text; where no tools were offered they are left out, and are no answer."""
    read = with_calls(completion, opening)
    return read if tools else replace(read, calls=())


def with_calls(completion: Completion, opening: str = "") -> Completion:
    """Return a completion with the calls that its text asks for; what the model writes behind the first one is left out.

    A model that goes on after its call invents the result.

    Args:
        completion: what the model wrote.
        opening: what its template writes before a call; a text with it and without a valid call is a malformed one.
    """
    calls: list[ToolCall] = []
    first = len(completion.text)
    for start, name, arguments in _written_calls(completion.text):
        opened = bool(opening) and completion.text[:start].rstrip().endswith(opening)
        if name in TOOLS or opened:
            first = min(first, start)
            calls.append(ToolCall(f"call-{len(calls) + 1}", name, arguments))
    if not calls and opening and opening in completion.text:
        first = completion.text.index(opening)
        calls.append(ToolCall("call-1", "", completion.text[first:]))
    if not calls:
        return completion
    text = (
        completion.text[:first].rstrip().removesuffix(opening).rstrip()
        if opening
        else completion.text[:first]
    )
    return replace(completion, text=text.strip(), calls=tuple(calls))


def template_problem(chat: ChatTokenizer) -> str:
    """Return why a model's chat template cannot be given the tools, "" where it can."""
    without = _rendered(chat, [_QUESTION], ())
    with_tools = _rendered(chat, [_QUESTION], _SAMPLE_TOOLS)
    if with_tools is None or with_tools == without or "grep" not in with_tools:
        return "its chat template takes no tools"
    called = _rendered(chat, [_QUESTION, _CALL, _RESULT], _SAMPLE_TOOLS)
    if called is None or "berth nine" not in called or "ferry" not in called:
        return "its chat template writes no calls, or no results of them"
    found_calls = [(name, json.loads(arguments)) for _, name, arguments in _written_calls(called)]
    if ("grep", {"pattern": "ferry"}) not in found_calls:
        return "its chat template writes calls in a form that is not read here"
    return ""


def call_opening(chat: ChatTokenizer) -> str:
    """Return what a model's template writes before a call, such as ``<tool_call>``; "" where it is no mark of its own."""
    called = _rendered(chat, [_QUESTION, _CALL], _SAMPLE_TOOLS) or ""
    start = next((start for start, name, arguments in _written_calls(called) if '"ferry"' in arguments), None)
    if start is None:
        return ""
    before = called[max(0, start - _OPENING_CHARS) : start].rstrip()
    mark = re.search(r"(?:<[^<>\s]+>|\[[A-Z_]+\])$", before)
    return mark[0] if mark and mark[0] not in chat.control_tokens else ""


_SAMPLE_TOOLS = tool_definitions(search=False)
_QUESTION: Message = {"role": "user", "content": "Where is it?"}
_CALL: Message = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "call00001",
            "type": "function",
            "function": {"name": "grep", "arguments": {"pattern": "ferry"}},
        }
    ],
}
_RESULT: Message = {"role": "tool", "name": "grep", "tool_call_id": "call00001", "content": "berth nine"}


def _rendered(chat: ChatTokenizer, turns: Sequence[Message], tools: Sequence[dict[str, Any]]) -> str | None:
    """Return a chat as the template writes it; None where it refuses it."""
    try:
        return chat.render(turns, prompt=turns[-1]["role"] != "assistant", tools=tools)
    except BadInput:
        return None


def _template_turns(chat: Sequence[Message], break_controls: Callable[[str], str]) -> list[Message]:
    """Return turns as templates expect them: arguments as mappings, results with their tool's name, no control tokens."""
    names: dict[str, str] = {}
    turns = []
    for turn in chat:
        calls = []
        for call in turn.get("tool_calls", ()):
            function = {key: break_controls(text) for key, text in call["function"].items()}
            names[call["id"]] = function["name"]
            calls.append({**call, "function": {**function, "arguments": json.loads(function["arguments"])}})
        named = {"name": names.get(turn["tool_call_id"], "")} if turn["role"] == "tool" else {}
        turns.append({**turn, **named, **({"tool_calls": calls} if calls else {})})
    return turns


def _written_calls(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield the calls in a text, each with its offset, name and arguments: JSON objects with these two keys."""
    decoder = json.JSONDecoder()
    at = 0
    while (at := text.find("{", at)) >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
            continue
        function = value.get("function", value)
        named = function if isinstance(function, dict) else value
        name, arguments = named.get("name"), named.get("arguments", named.get("parameters"))
        if isinstance(name, str) and isinstance(arguments, dict | str) and "description" not in named:
            yield at, name, arguments if isinstance(arguments, str) else json.dumps(arguments)
        at = end
