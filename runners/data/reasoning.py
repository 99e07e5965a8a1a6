"""Reasoning that a model writes before its answer: the tags around it, and how it is cut from a text or a stream.

:func:`split_reasoning` cuts a whole text, :class:`ReasoningSplitter` one that arrives piece by piece. Only reasoning at the
beginning of a text is cut: tags inside an answer are part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ReasoningTags:
    """The texts that one family of models writes around its reasoning."""

    opening: str
    closing: str


TAGS = (
    ReasoningTags("<think>", "</think>"),  # Qwen3, DeepSeek-R1, SmolLM3, GLM-4.5, QwQ, Hunyuan, MiniMax
    ReasoningTags("<thought>", "</thought>"),  # EXAONE Deep
    ReasoningTags("[THINK]", "[/THINK]"),  # Magistral
    ReasoningTags("<seed:think>", "</seed:think>"),  # Seed-OSS
    ReasoningTags("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A Reasoning
    ReasoningTags("◁think▷", "◁/think▷"),  # Kimi
    # gpt-oss (harmony): a message in the channel "analysis" or "commentary" before the one in "final".
    ReasoningTags("<|channel|>", "<|channel|>final<|message|>"),
)
"""The tags of the families that reason in the text itself."""
_FIRST = frozenset(tags.opening[0] for tags in TAGS)
"""The characters that a text with reasoning begins with."""


class ReasoningSplitter:
    """Cuts the reasoning from the beginning of one text as it arrives, however its tags are divided between pieces."""

    def __init__(self, closing: str = "", maybe: bool = False) -> None:
        """Start at the beginning of a text.

        Args:
            closing: the tag that ends the reasoning which the prompt has begun, "" when it has begun none.
            maybe: whether it is not known that the reasoning has begun: a text without the closing tag is then an answer,
                given out at its end.
        """
        self._closing = closing
        self._maybe = maybe and bool(closing)
        self._held = ""
        self._answering = False
        self._parts: list[str] = []

    @property
    def reasoning(self) -> str:
        """The reasoning so far, without its tags and outer white space."""
        return "".join(self._parts).strip()

    @property
    def inside(self) -> bool:
        """Whether the text so far ends inside the reasoning."""
        return bool(self._closing)

    @property
    def undecided(self) -> bool:
        """Whether the text so far may be the beginning of a tag that opens reasoning."""
        return not self._closing and not self._answering and bool(self._held.strip())

    def assume_answer(self) -> None:
        """Take the text for an answer from its beginning, as when a server gives the reasoning apart from it."""
        if self._maybe:
            self._closing, self._maybe = "", False

    def assume_reasoning(self) -> None:
        """Take a text that may have begun with reasoning, and has not closed it, for reasoning."""
        self._maybe = False

    def add(self, piece: str) -> str:
        """Take the next piece of the text; return the part of the answer that is certain by now, often ""."""
        self._held += piece
        while not self._answering:
            if self._closing:
                if not self._leave():
                    return ""
            elif not self._enter():
                return ""
        answer, self._held = self._held, ""
        return answer

    def finish(self) -> str:
        """Return the rest of the answer at the end of the text; reasoning that was not closed is no part of it."""
        if self._closing and not self._maybe:
            self._parts.append(self._held)
            self._held = ""
            return ""
        if self._maybe:
            self._held = "".join(self._parts) + self._held
            self._parts.clear()
        self._closing, self._maybe, self._answering = "", False, True
        answer, self._held = self._held, ""
        return answer

    def _leave(self) -> bool:
        """Move past the closing tag, when it is there; else keep what may be its beginning."""
        before, tag, after = self._held.partition(self._closing)
        if not tag:
            kept_back = len(self._closing) - 1
            split = max(0, len(self._held) - kept_back)
            self._parts.append(self._held[:split])
            self._held = self._held[split:]
            return False
        self._parts.append(before)
        self._held, self._closing, self._maybe = after, "", False
        return True

    def _enter(self) -> bool:
        """Decide whether the text goes on with reasoning or with the answer; False while that is open."""
        text = self._held.lstrip()
        for tags in TAGS:
            if text.startswith(tags.opening):
                # The channel that ends harmony's reasoning begins like the one that opens it.
                if not tags.closing.startswith(tags.opening):
                    text = text.removeprefix(tags.opening)
                self._held, self._closing = text, tags.closing
                return True
        if any(tags.opening.startswith(text) for tags in TAGS):
            return False
        self._answering = True
        return True


@dataclass(frozen=True, slots=True)
class SplitText:
    """A text as its reasoning and its answer."""

    reasoning: str
    answer: str
    unfinished: bool
    """Whether the text ends before its reasoning does; then there is no answer."""


def split_reasoning(text: str, closing: str = "") -> SplitText:
    """Return the reasoning at the beginning of a text, and the answer after it.

    Args:
        text: what a model wrote.
        closing: the tag that ends the reasoning which the prompt has begun, "" when it has begun none.
    """
    splitter = ReasoningSplitter(closing)
    answer = splitter.add(text)
    unfinished = splitter.inside
    answer += splitter.finish()
    if splitter.reasoning or unfinished or answer != text:
        answer = answer.lstrip()
    return SplitText(splitter.reasoning, answer, unfinished)


def answer_of(text: str) -> str:
    """Return a text without the reasoning at its beginning."""
    return split_reasoning(text).answer if text.lstrip()[:1] in _FIRST else text


def split_message(message: Mapping[str, Any]) -> SplitText:
    """Return the reasoning and the answer of a turn; the reasoning may be in ``reasoning_content``."""
    split = split_reasoning(str(message["content"]))
    apart = str(message.get("reasoning_content") or "").strip()
    return SplitText(apart, split.answer, False) if apart else split


def opened_reasoning(prompt: str) -> str:
    """Return the tag that ends the reasoning which the end of a prompt begins, "" when it begins none."""
    end = prompt.rstrip()
    return next((tags.closing for tags in TAGS if end.endswith(tags.opening)), "")


def holds_reasoning(message: Mapping[str, Any]) -> bool:
    """Return whether a turn holds reasoning: ``reasoning_content``, or tags at the beginning of its text."""
    return bool(split_message(message).reasoning)
