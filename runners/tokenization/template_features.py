"""What a chat template accepts and asks for, found by rendering short chats with it; and chats changed to what it accepts.

:func:`detect_features` finds whether the template shows a system turn, takes turns of one role after another, and has a
switch for reasoning. :func:`adapt_chat` folds and merges turns accordingly. Training and asking use the same features, so
a model is asked with the very text it was trained on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from rag.errors import BadInput
from runners.data.formats import Message
from runners.data.reasoning import TAGS, opened_reasoning

FIXED_DATE = "2024-07-26"
"""The day that templates write as today's: answers must not change overnight. It is the day that the templates of Llama 3.1
to 3.3 fall back on where no clock is given to them."""
SEPARATOR = "\n\n"
"""Between texts that are joined into one turn."""
SWITCHES = ("enable_thinking", "thinking")
"""Variables by which templates switch reasoning on and off: Qwen3, SmolLM3, GLM-4.5, EXAONE 4, Hunyuan; DeepSeek-V3.1,
Granite 3.2."""
EFFORT = "reasoning_effort"
"""The variable of gpt-oss, whose least value is low: its reasoning cannot be switched off."""
_SYSTEM, _USER, _ANSWER, _LATER = "Qzs1 words", "Qzu1 words", "Qza1 words", "Qzu2 words"

RenderTurns = Callable[[Sequence[Message], Mapping[str, Any]], str]
"""Renders turns with variables of the template, and the header of the next answer after a user turn; raises BadInput when
the template refuses them."""


@dataclass(frozen=True, slots=True)
class TemplateFeatures:
    """What one chat template accepts and asks for."""

    system: bool = True
    """Whether the first turn may be the system's, and is shown."""
    late_system: bool = True
    """Whether a system turn between others is shown."""
    repeats: bool = True
    """Whether turns of one role may follow each other."""
    reasons: Literal["no", "switch", "always"] = "no"
    """Whether the model writes reasoning before its answers: never, as a variable says, or always."""
    variables: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the template with which it does not reason, or as little as it can."""
    reasoning_variables: Mapping[str, Any] = field(default_factory=dict)
    """Variables of the template with which it reasons."""
    dated: bool = False
    """Whether the template writes today's date, which is then :data:`FIXED_DATE`."""
    own_system: bool = False
    """Whether the template writes instructions of its own into a chat that has none."""

    def chosen(self, thinking: bool) -> Mapping[str, Any]:
        """Return the variables for a model that shall reason, or shall not."""
        return self.reasoning_variables if thinking else self.variables

    def notes(self, thinking: bool = False) -> tuple[str, ...]:
        """Return sentences on what differs from plain use of the template, for the reader of a run."""
        notes = []
        if not self.system:
            notes.append(
                "the chat template has no system role: instructions are put at the top of the first user turn"
            )
        if not self.repeats:
            notes.append("the chat template requires alternating roles: turns of one role are joined")
        if self.dated:
            notes.append(f"the chat template writes today's date: here it is always {FIXED_DATE}")
        if self.reasons == "switch":
            state = "on" if thinking else "off"
            names = ", ".join(f"{name}={value}" for name, value in self.chosen(thinking).items())
            notes.append(f"the model can reason before it answers: that is {state} ({names})")
        if self.reasons == "always":
            notes.append(
                "the model reasons before every answer, and its chat template cannot switch that off: it gets "
                "the tokens of thinking.max_tokens for it, and the reasoning is cut from its answers"
            )
        return tuple(notes)


def detect_features(template: str, variables: frozenset[str], render: RenderTurns) -> TemplateFeatures:
    """Return the features of a template.

    Args:
        template: its text.
        variables: the names that the template reads and does not set itself.
        render: renders turns with it.
    """
    user: Message = {"role": "user", "content": _USER}
    answer: Message = {"role": "assistant", "content": _ANSWER}
    later: Message = {"role": "user", "content": _LATER}
    system: Message = {"role": "system", "content": _SYSTEM}
    plain = _rendered(render, [user])
    if plain is None:  # it refuses every chat: nothing that is changed in a chat would help
        return TemplateFeatures()
    # Most templates take everything; then one chat is enough to know.
    everything = [system, user, later, answer, dict(answer, content=f"{_ANSWER}2"), system, user]
    text = _rendered(render, everything) or ""
    takes_all = text.count(_SYSTEM) == 2 and all(part in text for part in (_USER, _LATER, f"{_ANSWER}2"))
    # Some templates (Mistral v0.3) put the instructions into the last question, and leave them out after an answer.
    first = all(_shows(render, [system, user, answer, later][:length], 1) for length in (2, 3, 4))
    head = [system] if first else []
    off, on, reasons = _reasoning(template, variables, render, plain)
    return TemplateFeatures(
        system=first,
        late_system=(first and takes_all)
        or _shows(render, [*head, user, answer, system, later], 1 + len(head)),
        repeats=takes_all or _rendered_all(render, user, answer, later),
        reasons=reasons,
        variables=off,
        reasoning_variables=on,
        dated="strftime_now" in template,
        own_system=_writes_own_system(plain, _rendered(render, [system, user]) if first else None),
    )


def adapt_chat(messages: Sequence[Message], features: TemplateFeatures) -> list[Message]:
    """Return a chat as the template accepts it: instructions folded into user turns, turns of one role joined.

    A chat that is adapted once stays as it is, and the turns before an answer are adapted alike with and without the
    turns that follow: so the prompt of a chat is the beginning of the same chat in training.
    """
    turns = list(messages)
    if not (features.system and features.late_system):
        turns = _folded(turns, keep_first=features.system)
    return turns if features.repeats else _joined(turns)


def _folded(messages: Sequence[Message], keep_first: bool) -> list[Message]:
    """Return the chat with system turns put at the top of the next user turn.

    A system turn that no user turn follows before an answer becomes a user turn of its own.
    """
    turns: list[Message] = []
    waiting: list[str] = []
    for number, message in enumerate(messages):
        role = message["role"]
        if role == "system" and not (keep_first and number == 0):
            waiting.append(message["content"].strip())
            continue
        if waiting and role == "user":
            message = {**message, "content": SEPARATOR.join([*waiting, message["content"]])}
            waiting = []
        elif waiting and role == "assistant":
            turns.append({"role": "user", "content": SEPARATOR.join(waiting)})
            waiting = []
        turns.append(message)
    if waiting:
        turns.append({"role": "user", "content": SEPARATOR.join(waiting)})
    return turns


def _joined(messages: Sequence[Message]) -> list[Message]:
    """Return the chat with turns of one role joined; a turn with tool calls stays alone.

    A joined answer is learnt only where all its parts are.
    """
    turns: list[Message] = []
    for message in messages:
        last = turns[-1] if turns else None
        apart = last is None or any("tool_calls" in turn for turn in (last, message))
        if last is None or apart or last["role"] != message["role"] or message["role"] == "tool":
            turns.append(message)
            continue
        joined = {**last, **message, "content": SEPARATOR.join((last["content"], message["content"]))}
        if 0 in (last.get("weight", 1), message.get("weight", 1)):
            joined["weight"] = 0
        turns[-1] = joined
    return turns


def _reasoning(
    template: str, variables: frozenset[str], render: RenderTurns, plain: str
) -> tuple[dict[str, Any], dict[str, Any], Literal["no", "switch", "always"]]:
    """Return the variables without and with reasoning, and whether the template can switch it."""
    user: Message = {"role": "user", "content": _USER}
    for name in SWITCHES:
        if name in variables:
            off, on = (_rendered(render, [user], {name: value}) for value in (False, True))
            if off is not None and off != on:
                return {name: False}, {name: True}, "switch"
    if EFFORT in variables and "<|channel|>" in template:
        return {EFFORT: "low"}, {EFFORT: "medium"}, "always"
    # A template that opens reasoning in the prompt, or cuts it from earlier answers, belongs to a model that reasons.
    cuts = re.search(
        r"split\(\s*['\"](?:" + "|".join(re.escape(t.closing) for t in TAGS) + r")['\"]\s*\)", template
    )
    return {}, {}, "always" if opened_reasoning(plain) or cuts else "no"


def _rendered(
    render: RenderTurns, messages: Sequence[Message], variables: Mapping[str, Any] | None = None
) -> str | None:
    """Return the rendered chat, None when the template refuses it."""
    try:
        return render(messages, variables or {})
    except BadInput:
        return None


def _shows(render: RenderTurns, messages: Sequence[Message], count: int) -> bool:
    """Return whether the template shows the instructions ``count`` times, and all turns in their order."""
    text = _rendered(render, messages) or ""
    starts = [-1]
    for message in messages:
        starts.append(text.find(message["content"], starts[-1] + 1))
    return text.count(_SYSTEM) == count and all(a < b for a, b in pairwise(starts))


def _rendered_all(render: RenderTurns, user: Message, answer: Message, later: Message) -> bool:
    """Return whether the template shows two user turns, and two answers, one after the other."""
    second: Message = {**answer, "content": f"{_ANSWER}2"}
    texts = [_rendered(render, chat) or "" for chat in ([user, later], [user, answer, second, later])]
    return _USER in texts[0] and _LATER in texts[0] and f"{_ANSWER}2" in texts[1]


def _writes_own_system(plain: str, with_system: str | None) -> bool:
    """Return whether a chat without instructions is rendered with words that one with instructions lacks."""
    if with_system is None:
        return False
    before = plain.partition(_USER)[0]
    return bool(set(re.findall(r"[A-Za-z]{4,}", before)) - set(re.findall(r"[A-Za-z]{4,}", with_system)))
