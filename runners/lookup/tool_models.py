"""The models that ask for calls: by an endpoint's ``tools``, or by the format of tools in a local model's chat template.

:class:`EndpointCalls` and :class:`TemplateCalls` keep :class:`ToolModel`. With tools a model has to call one of them: an
endpoint by ``tool_choice`` and the form of its text, a local model by that form, the JSON of a call. How a local model's
template writes tools, calls and results is seen by rendering a chat (:func:`template_problem`), not by a list of families.
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
from runners.inference.constraints.constraint import OutputConstraint
from runners.inference.http_client import NO_DEADLINE, RequestCaller
from runners.inference.servers.dialect import is_too_long
from runners.inference.types import GREEDY, Completion, CompletionStream, Generator, ToolCall
from runners.lookup.tools import TOOLS, tool_definitions
from runners.tokenization.chat_template import ChatTokenizer, control_token_breaker, neutralise_chat
from runners.tokenization.token_estimate import estimate_tokens

if TYPE_CHECKING:
    from runners.inference.local import LocalGenerator
    from runners.inference.remote import RemoteGenerator

CALL_TOKENS = 256
"""Tokens that a reply with calls may have."""
PROBE_TOKENS = 64
SHOWN_SHARE = 0.25
"""Share of the estimated tokens of the tools' definitions that a prompt with them has at least, however they are written."""
USUAL_OPENING = "<tool_call>"
"""What models of several families write before a call."""


class ContextFull(BadInput):
    """A chat with its results is longer than the model reads."""


class ToolModel(Protocol):
    """A model that answers a chat, or asks for calls of tools."""

    at_once: int
    """Answers that may be asked for at a time."""
    note: str
    """What :meth:`refusal` noticed of a model that takes tools; "" for nothing."""

    @property
    def generator(self) -> Generator:
        """The model as it answers chats."""
        ...

    def reply(
        self,
        chat: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        max_new_tokens: int,
        caller: RequestCaller = NO_DEADLINE,
        constraint: OutputConstraint | None = None,
    ) -> Completion:
        """Return what asks for calls; without tools the answer, held to the constraint. ContextFull for too long a chat."""
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
        constraint: OutputConstraint | None = None,
    ) -> Completion:
        """Send a request; see :class:`ToolModel`."""
        limit = CALL_TOKENS if tools else max_new_tokens
        try:
            form = _call_form(tools) or constraint
            completion = self.generator.answer_or_call(chat, limit, tools, caller, form)
        except BadInput as problem:
            if is_too_long(problem.message):
                raise ContextFull(problem.message, problem.hint) from None
            raise
        # llama-server takes no heed of tool_choice, but of the form; others leave calls in the text that they cannot parse
        return completion if completion.calls and tools else with_calls(completion, tools)

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
    """A model on this machine, given the tools by its chat template and held to the JSON of a call."""

    at_once = 1
    note = ""

    def __init__(self, generator: LocalGenerator) -> None:
        """Take the loaded model."""
        self.generator = generator
        self._break_controls = control_token_breaker(generator.chat.control_tokens)

    def reply(
        self,
        chat: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        max_new_tokens: int,
        caller: RequestCaller = NO_DEADLINE,
        constraint: OutputConstraint | None = None,
    ) -> Completion:
        """Render the chat with the tools, generate, and read the call; see :class:`ToolModel`."""
        turns = neutralise_chat(_template_turns(chat, self._break_controls), self._break_controls)
        text = self.generator.chat.render(turns, prompt=True, tools=tools)
        form = _call_form(tools) or constraint
        limit = self.generator.forms.answer_tokens(form, CALL_TOKENS if tools else max_new_tokens)
        try:
            prompt = self.generator.prompt(text, limit)
        except BadInput as problem:
            raise ContextFull(problem.message, problem.hint) from None

        def is_cancelled() -> bool:
            return not caller.is_waiting() or time.monotonic() >= caller.deadline

        running = self.generator.follow(prompt, limit, GREEDY, is_cancelled, constraint=form)
        return with_calls(CompletionStream(running).finish(), tools)

    def refusal(self) -> str:
        """Return why the template takes no tools, "" where it does; nothing is generated."""
        return template_problem(self.generator.chat)


def _call_form(tools: Sequence[dict[str, Any]]) -> OutputConstraint | None:
    """Return the constraint to the JSON of a call of one of the tools; None without tools."""
    calls = []
    for tool in tools:
        function = tool["function"]
        arguments = {**function["parameters"], "additionalProperties": False}
        parts = {"name": {"const": function["name"]}, "arguments": arguments}
        closed = {"required": list(parts), "additionalProperties": False}
        calls.append({"type": "object", "properties": parts, **closed})
    return OutputConstraint.of_schema({"anyOf": calls}) if calls else None


def with_calls(completion: Completion, tools: Sequence[dict[str, Any]]) -> Completion:
    """Return a completion with the calls that its text asks for; what the model writes behind the first one is left out.

    A model that goes on after its call invents the result. A text with the usual opening of a call and without a valid one
    is a malformed call. Where no tools were offered there are no calls, but they are no answer either.
    """
    calls: list[ToolCall] = []
    first = len(completion.text)
    for start, name, arguments in _written_calls(completion.text):
        if name in TOOLS or completion.text[:start].rstrip().endswith(USUAL_OPENING):
            first = min(first, start)
            calls.append(ToolCall(f"call-{len(calls) + 1}", name, arguments))
    if not calls and USUAL_OPENING in completion.text:
        first = completion.text.index(USUAL_OPENING)
        calls.append(ToolCall("call-1", "", completion.text[first:]))
    text = completion.text[:first].rstrip().removesuffix(USUAL_OPENING).strip() if calls else completion.text
    return replace(completion, text=text, calls=tuple(calls) if tools else ())


def template_problem(chat: ChatTokenizer) -> str:
    """Return why a model's chat template cannot be given the tools, "" where it can."""
    without = _rendered(chat, [_QUESTION], ())
    with_tools = _rendered(chat, [_QUESTION], _SAMPLE_TOOLS)
    if with_tools is None or with_tools == without or "grep" not in with_tools:
        return "its chat template takes no tools"
    called = _rendered(chat, [_QUESTION, _CALL, _RESULT], _SAMPLE_TOOLS)
    if called is None or "berth nine" not in called or "ferry" not in called:
        return "its chat template writes no calls, or no results of them"
    return ""


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
