"""Chats as tokens, without torch: the model's own chat template and tokenizer, and which tokens are learnt.

The text and tokens equal what transformers' ``apply_chat_template`` gives for the same folder (tested).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from rag.errors import BadInput
from runners.data import Example
from runners.fingerprint import chat_template, read_json
from runners.shapes import Message

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ':\\n' + message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '' }}{{ '\\n\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:\\n' }}{% endif %}"
)
"""Used, and kept with the tuned weights, when the base model brings no template of its own."""

_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")
_PADS = ("<|pad|>", "<pad>", "[PAD]", "<|padding|>", "<|finetune_right_pad_id|>", "<|endoftext|>", "<unk>")


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as tokens."""

    ids: tuple[int, ...]
    learnt: tuple[int, ...]
    """Positions in ``ids`` (never 0) that the loss is taken on: the assistant's words and its turns' ends."""
    line: int

    @property
    def prompt(self) -> int:
        """Return how many tokens come before the first learnt one."""
        return self.learnt[0] if self.learnt else len(self.ids)


class Chat:
    """The tokenizer and chat template of one model folder."""

    def __init__(self, folder: Path) -> None:
        """Read tokenizer and template of a folder; BadInput when one is missing or broken."""
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
        self._ends = read_json(folder / "generation_config.json").get("eos_token_id")
        try:
            self._template = _environment().from_string(self.own_template or PLAIN_TEMPLATE)
        except TemplateError as error:
            raise BadInput(f"the chat template of {folder} cannot be read: {error}") from error

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """Tokens that end a turn: the tokenizer's end token and the ones generation stops at."""
        ends = {self.tokenizer.token_to_id(self.special.get("eos_token", ""))}
        ends |= set(self._ends) if isinstance(self._ends, list) else {self._ends}
        return frozenset(e for e in ends if e is not None)

    @cached_property
    def pad(self) -> str | None:
        """A padding token that is not an end token, None when the vocabulary has none."""
        candidates = (self.special.get("pad_token", ""), *_PADS, self.special.get("unk_token", ""))
        ids = ((c, self.tokenizer.token_to_id(c)) for c in candidates if c)
        return next((c for c, i in ids if i is not None and i not in self.eos_ids), None)

    @cached_property
    def control_tokens(self) -> tuple[str, ...]:
        """Tokens with a meaning of their own, which must not occur in what people wrote."""
        added = self.tokenizer.get_added_tokens_decoder().values()
        return tuple(t.content for t in added if t.special and len(t.content) > 2)

    def render(self, messages: Sequence[Message], prompt: bool = False) -> str:
        """Return the chat as the model reads it; with ``prompt`` it ends where the assistant is to speak.

        Raises BadInput when the template refuses the chat, for instance because roles must alternate.
        """
        try:
            return self._template.render(
                messages=list(messages),
                tools=None,
                documents=None,
                add_generation_prompt=prompt,
                **self.special,
            )
        except TemplateError as error:
            raise BadInput(f"the model's chat template refuses this chat: {error}") from error

    def encode(self, text: str) -> list[int]:
        """Return a rendered text's tokens; nothing is added, control tokens in it are recognised."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def count(self, text: str) -> int:
        """Return how many tokens a text has."""
        return len(self.encode(text))

    def example(self, example: Example) -> Encoded:
        """Return an example as tokens; learnt is each assistant turn with the token that ends it."""
        try:
            text = self.render(example.messages)
            spans = self._spans(example.messages, text)
        except BadInput as error:
            raise BadInput(f"example on line {example.line}: {error.message}", error.hint) from error
        found = self.tokenizer.encode(text, add_special_tokens=False)
        learnt: list[int] = []
        for start, end in spans:
            places = enumerate(found.offsets)
            inside = [i for i, (a, b) in places if i and start <= a <= b <= end and (a < b or a > start)]
            ends = [i for i in inside if found.ids[i] in self.eos_ids]
            # What the template writes after the turn's end ("\n") is no answer; without an end, all is kept.
            learnt.extend(i for i in inside if not ends or i <= ends[-1])
        return Encoded(tuple(found.ids), tuple(learnt), example.line)

    def _spans(self, messages: Sequence[Message], text: str) -> list[tuple[int, int]]:
        """Find where each assistant turn stands in ``text``, by rendering the chat up to it and to its end.

        Some templates rewrite earlier turns (dropping old reasoning); then only the last turn is learnt.
        """
        turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
        spans = []
        for i in turns:
            spoken = messages[i]["content"].strip()
            before = self.render(messages[:i], prompt=True) if i else text[: max(text.find(spoken), 0)]
            upto = self.render(messages[: i + 1])
            if text.startswith(before) and text.startswith(upto) and len(upto) > len(before):
                spans.append((len(before), len(upto)))
            elif i == turns[-1]:
                raise BadInput("the chat template does not keep the last answer after its prompt")
        return spans


def pieces(encoded: Encoded, chat: Chat) -> list[tuple[str, bool]]:
    """Return an example as runs of text, each with whether it is learnt: what ``--show`` prints."""
    learnt = set(encoded.learnt)
    runs: list[tuple[list[int], bool]] = []
    for position, token in enumerate(encoded.ids):
        if not runs or runs[-1][1] != (position in learnt):
            runs.append(([], position in learnt))
        runs[-1][0].append(token)
    return [(chat.tokenizer.decode(ids, skip_special_tokens=False), flag) for ids, flag in runs]


def _special_tokens(folder: Path) -> dict[str, str]:
    config = {**read_json(folder / "special_tokens_map.json"), **read_json(folder / "tokenizer_config.json")}
    found = {}
    for key in _SPECIAL:
        value = config.get(key)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            found[key] = value
    return found


class _Generation(Extension):
    """``{% generation %}`` marks the assistant's words in some templates; here it only has to render."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **more: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **more)


def _refuse(message: str) -> str:
    raise TemplateError(message)
