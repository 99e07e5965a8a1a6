"""Render chats with a model's own chat template and tokenize them, with the positions the loss is taken on. No torch.

:class:`ChatTokenizer` gives the same text and tokens as transformers' ``apply_chat_template`` for the same folder (tested).

:func:`control_token_breaker` and :func:`neutralise_chat` keep control tokens in user text from being read as such: a
tokenizer reads ``<|im_start|>`` as the beginning of a turn wherever it occurs, so a question or a document that contains
it could pose as the system. With a space inside, it is tokenized as plain text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, meta, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from rag.errors import BadInput
from runners.data.examples import Example
from runners.data.formats import Message
from runners.data.reasoning import TAGS, holds_reasoning, opened_reasoning, split_message
from runners.models.fingerprint import chat_template, read_json
from runners.tokenization import loss_mask
from runners.tokenization.template_features import (
    FIXED_DATE,
    TemplateFeatures,
    adapt_chat,
    detect_features,
)

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ':\\n' + message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '' }}{{ '\\n\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:\\n' }}{% endif %}"
)
"""Used, and saved with the tuned weights, when the base model has no chat template; see :attr:`ChatTokenizer.template`."""
PLAIN_NOTE = "the model has no chat template: a plain one is used, with the roles in words"

_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")
_PADS = ("<|pad|>", "<pad>", "[PAD]", "<|padding|>", "<|finetune_right_pad_id|>", "<|endoftext|>", "<unk>")


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """One example as tokens, or a piece of packed raw texts."""

    ids: tuple[int, ...]
    """Token ids of the whole row."""
    learnt: tuple[int, ...]
    """Target positions: indices into ``ids`` (never 0) that the loss is taken on, the assistant's turns with the tokens
    that end them."""
    line: int
    file: str = ""
    raw: bool = False
    """Whether this is raw text: every token is a target, and it need not end with an end token."""
    note: str = ""
    """Why fewer turns are trained on than were requested, "" when all are."""

    @property
    def place(self) -> str:
        """Return the place of the row: ``line 3``, or ``part/a.jsonl:3`` in a folder."""
        return f"{self.file}:{self.line}" if self.file else f"line {self.line}"

    @property
    def prompt(self) -> int:
        """Return the number of tokens before the first target."""
        return self.learnt[0] if self.learnt else len(self.ids)


class ChatTokenizer:
    """The tokenizer and chat template of one model folder."""

    def __init__(self, folder: Path, thinking: bool = False) -> None:
        """Read tokenizer and template of a folder; BadInput when the tokenizer is missing or the template invalid.

        ``thinking`` says whether a model whose template can switch reasoning on and off shall reason before it answers.
        """
        file = folder / "tokenizer.json"
        if not file.is_file():
            raise BadInput(
                f"{folder} has no tokenizer.json", "save the model's fast tokenizer into the folder"
            )
        self.tokenizer = Tokenizer.from_file(str(file))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.own_template = chat_template(folder)
        self.special = _special_tokens(folder)
        self._generation_ends = read_json(folder / "generation_config.json").get("eos_token_id")
        self.thinking = thinking
        environment = _environment()
        try:
            self._template = environment.from_string(self.template)
            self._variables = frozenset(meta.find_undeclared_variables(environment.parse(self.template)))
        except TemplateError as error:
            raise BadInput(f"the chat template of {folder} cannot be read: {error}") from error

    @cached_property
    def template(self) -> str:
        """The model's own template, else the plain one, which begins with the token the tokenizer puts before a text.

        Rendered chats are encoded without added tokens, so the template alone writes that token, once.
        """
        if self.own_template or self.begins is None:
            return self.own_template or PLAIN_TEMPLATE
        begin = self.tokenizer.id_to_token(self.begins)
        value = "bos_token" if begin == self.special.get("bos_token") else json.dumps(begin)
        return f"{{{{ {value} }}}}{PLAIN_TEMPLATE}"

    @cached_property
    def features(self) -> TemplateFeatures:
        """What the template accepts and asks for, found by rendering a few short chats."""
        return detect_features(
            self.template,
            self._variables,
            lambda turns, variables: self._rendered(
                turns, prompt=turns[-1]["role"] != "assistant", variables=variables
            ),
        )

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Sentences on how chats are written for this model, where that is not simply its own template."""
        plain = () if self.own_template else (PLAIN_NOTE,)
        return (*plain, *self.features.notes(self.thinking))

    def adapt(self, messages: Sequence[Message]) -> list[Message]:
        """Return a chat as the template accepts it; see :func:`runners.tokenization.template_features.adapt_chat`."""
        return adapt_chat(messages, self.features)

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """Tokens that end a turn: the tokenizer's end token, those of generation_config.json, and the template's."""
        ends = {self.tokenizer.token_to_id(self.special.get("eos_token", "")), self.turn_end}
        configured = self._generation_ends
        ends |= set(configured) if isinstance(configured, list) else {configured}
        return frozenset(end for end in ends if end is not None)

    @cached_property
    def turn_end(self) -> int | None:
        """The token that the template writes after an answer, which may differ from the tokenizer's end token."""
        probe: list[Message] = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Answer"}]
        try:
            after = self.render(probe).rpartition("Answer")[2].strip()
        except BadInput:
            return None
        first = next(iter(self.encode(after)), None) if after else None
        return first if first in self.special_ids else None

    @cached_property
    def begins(self) -> int | None:
        """The token that the tokenizer itself adds before every text, None when it adds none."""
        ids = self.tokenizer.encode("a").ids
        return (
            ids[0] if ids and ids[0] != self.tokenizer.encode("a", add_special_tokens=False).ids[0] else None
        )

    @cached_property
    def pad(self) -> str | None:
        """A padding token that is not an end token, None when the vocabulary has none."""
        candidates = (self.special.get("pad_token", ""), *_PADS, self.special.get("unk_token", ""))
        ids = ((c, self.tokenizer.token_to_id(c)) for c in candidates if c)
        return next((c for c, i in ids if i is not None and i not in self.eos_ids), None)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of the special tokens: end and padding tokens, and those that delimit turns."""
        return frozenset(i for i, t in self.tokenizer.get_added_tokens_decoder().items() if t.special)

    @cached_property
    def control_tokens(self) -> tuple[str, ...]:
        """Texts of the special tokens, which must not occur in user text."""
        added = self.tokenizer.get_added_tokens_decoder().values()
        return tuple(t.content for t in added if t.special and len(t.content) > 2)

    def render(
        self,
        messages: Sequence[Message],
        prompt: bool = False,
        tools: Sequence[dict[str, Any]] = (),
        marked: bool = False,
        thinking: bool | None = None,
    ) -> str:
        """Return the chat as text, rendered with the model's template after :meth:`adapt`.

        Args:
            messages: the turns.
            prompt: whether to end with the header of the assistant's next turn (``add_generation_prompt``).
            tools: tools that the chat may call.
            marked: whether to write :data:`runners.tokenization.loss_mask.OPEN` and ``CLOSE`` around the turns that the
                template marks by ``{% generation %}``.
            thinking: whether the model shall reason, where the template can say so; None as the tokenizer was opened.

        Raises:
            BadInput: the template refuses the chat, for instance because the first turn must be the user's.
        """
        variables = self.features.chosen(self.thinking if thinking is None else thinking)
        return self._rendered(self.adapt(messages), prompt, tools, marked, variables)

    def _rendered(
        self,
        messages: Sequence[Message],
        prompt: bool = False,
        tools: Sequence[dict[str, Any]] = (),
        marked: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the chat as text, rendered unchanged with these variables of the template."""
        marks = {"_open_mark": loss_mask.OPEN, "_close_mark": loss_mask.CLOSE} if marked else {}
        try:
            return self._template.render(
                messages=list(messages),
                tools=list(tools) or None,
                documents=None,
                add_generation_prompt=prompt,
                **self.special,
                **(variables or {}),
                **marks,
            )
        # A template may also add texts to lists, or read what a turn lacks.
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise BadInput(f"the model's chat template refuses this chat: {error}") from error

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a rendered text; no token is added, control tokens in it are recognised."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def count(self, text: str) -> int:
        """Return the number of tokens of a text."""
        return len(self.encode(text))

    def example(self, example: Example, turns: str = "all") -> EncodedRow:
        """Return a chat as tokens; targets are all assistant turns, or only the last, each with its end token.

        Args:
            example: a chat.
            turns: all or last.

        Raises:
            BadInput: the template cannot render the chat; the message names the row.
        """
        text, mask = self._written(example, turns)
        ids, offsets = self._encoded(text, mask.spans[-1][0] if mask.spans else 0)
        learnt = [
            position for start, end in mask.spans for position in self._positions_in(ids, offsets, start, end)
        ]
        return EncodedRow(tuple(ids), tuple(learnt), example.line, example.file, note=mask.note)

    def text_of(self, example: Example) -> str:
        """Return the text that :meth:`example` encodes: a chat with the reasoning that its last answer holds."""
        return self._written(example)[0]

    def _written(self, example: Example, turns: str = "all") -> tuple[str, loss_mask.LossMask]:
        """Return a chat as text, and what of it is learnt; see :meth:`example`."""
        messages = self.adapt(example.messages)
        # Reasoning that the row itself holds is learnt: the template must show it.
        switched = self.features.reasons == "switch" and holds_reasoning(messages[-1])
        thinking = self.thinking or switched
        render = partial(self.render, tools=example.tools, thinking=thinking)
        try:
            self._require_tools(example)
            text = render(messages)
            own = self._with_reasoning(messages, text, render)
            if own is not None:
                return own
            end = self.special.get("eos_token", "")
            return text, loss_mask.find_trained_spans(messages, text, render, turns, end)
        except BadInput as error:
            raise BadInput(f"example on {example.place}: {error.message}", error.hint) from error

    def _with_reasoning(
        self, messages: Sequence[Message], text: str, render: Callable[..., str]
    ) -> tuple[str, loss_mask.LossMask] | None:
        """Return the chat with the reasoning of its last answer written out, where the template itself does not do so.

        Some templates open the reasoning in the prompt (DeepSeek-R1), or cut it from every answer, and so write a last
        answer that does not follow its prompt. Then the answer is put after the prompt: first the row's reasoning, or
        none, with its closing tag. So the model learns what it is asked for. None when the template's own text is right.
        """
        if self.features.reasons == "no":
            return None
        before = render(messages[:-1], prompt=True)
        closing = opened_reasoning(before)
        last = split_message(messages[-1])
        dropped = self.features.reasons != "no" and last.reasoning and last.reasoning not in text
        if not dropped and (not closing or text.startswith(before)):
            return None
        answer: Message = {"role": "assistant", "content": last.answer}
        plain = render([*messages[:-1], answer])
        shared = loss_mask.common_length(before, plain)
        tags = next(tags for tags in TAGS if tags.closing == (closing or "</think>"))
        if before[shared:].strip() != (tags.opening if closing else ""):
            return None
        opening = "" if closing else f"{tags.opening}\n"
        line = "" if (opening or before).endswith("\n") else "\n"
        whole = f"{before}{opening}{line}{last.reasoning}\n{tags.closing}\n\n{plain[shared:].lstrip()}"
        indices = loss_mask.trained_turns(messages)
        learnt = len(messages) - 1 in indices
        note = (
            f"only the last of {len(indices)} answers is learnt, with its reasoning"
            if len(indices) > 1
            else ""
        )
        return whole, loss_mask.LossMask(((len(before), len(whole)),) if learnt else (), note)

    def _encoded(self, text: str, start: int) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the tokens of a rendered chat with their character offsets.

        Args:
            text: the chat.
            start: where the last answer begins. The tokens before it are those of the prompt, even where the tokenizer
                would join the end of the prompt and white space at the beginning of the answer into one token.
        """
        whole = self.tokenizer.encode(text, add_special_tokens=False)
        before = self.encode(text[:start]) if start else []
        if whole.ids[: len(before)] == before:
            return whole.ids, whole.offsets
        rest = self.tokenizer.encode(text[start:], add_special_tokens=False)
        ids = [*before, *rest.ids]
        decoded = (self.tokenizer.decode(each, skip_special_tokens=False) for each in (ids, whole.ids))
        if len(set(decoded)) > 1:  # the tokenizer adds something to the beginning of every text
            return whole.ids, whole.offsets
        first = self.tokenizer.encode(text[:start], add_special_tokens=False)
        return ids, [*first.offsets, *((a + start, b + start) for a, b in rest.offsets)]

    def _positions_in(
        self, ids: list[int], offsets: list[tuple[int, int]], start: int, end: int
    ) -> list[int]:
        """Return the positions of the tokens of a turn, up to and including its end token.

        Args:
            ids: token ids of the rendered chat.
            offsets: character offsets of each token.
            start: first character of the turn.
            end: character after the turn, which may be before its end token where a template marks turns.
        """
        # Position 0 has no token before it that could predict it. A token of no width counts inside, not at the start.
        inside = [
            i for i, (a, b) in enumerate(offsets) if i and start <= a <= b <= end and (a < b or a > start)
        ]
        ends = [i for i in inside if ids[i] in self.eos_ids]
        if ends:  # What the template writes after the end token ("\n", or the end of the text) is no part of the answer.
            return [i for i in inside if i <= ends[0]]
        after = inside[-1] + 1 if inside else len(ids)
        return [*inside, after] if after < len(ids) and ids[after] in self.eos_ids else inside

    def _require_tools(self, example: Example) -> None:
        calls = any("tool_calls" in m for m in example.messages)
        if calls and "tool_calls" not in self.template:
            raise BadInput(
                "the chat calls tools, which the chat template would drop",
                "choose a model whose template knows tool calls, or write them as text",
            )


def _special_tokens(folder: Path) -> dict[str, str]:
    config = {**read_json(folder / "special_tokens_map.json"), **read_json(folder / "tokenizer_config.json")}
    tokens = {}
    for key in _SPECIAL:
        value = config.get(key)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            tokens[key] = value
    return tokens


_MARKS = ("_open_mark", "_close_mark")


class _Generation(Extension):
    """The ``{% generation %}`` tag, by which some templates mark assistant turns; renders marks when they are defined."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        opened, closed = (nodes.Output([nodes.Name(name, "load")], lineno=line) for name in _MARKS)
        return [opened, *body, closed]


def _environment() -> ImmutableSandboxedEnvironment:
    """Return the Jinja environment with the filters and functions that transformers gives to templates."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = date.fromisoformat(FIXED_DATE).strftime
    return environment


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)


def _raise_exception(message: str) -> str:
    raise TemplateError(message)


def control_token_breaker(controls: Iterable[str]) -> Callable[[str], str]:
    """Return a function that inserts a space after the first character of every control token in a text."""
    # Longest first: a token may be the beginning of another.
    tokens = sorted(
        {token for token in controls if not token[1:2].isspace() and token[1:]}, key=len, reverse=True
    )
    if not tokens:
        return lambda text: text
    pattern = re.compile("|".join(map(re.escape, tokens)))

    def break_tokens(text: str) -> str:
        while pattern.search(text):  # two tokens may overlap by a character
            text = pattern.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
        return text

    return break_tokens


def neutralise_chat(chat: Sequence[Message], break_tokens: Callable[[str], str]) -> list[Message]:
    """Return the chat with the control tokens in every message broken up."""
    return [{**message, "content": break_tokens(message["content"])} for message in chat]
