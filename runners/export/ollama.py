"""The `ollama` export: the GGUF file with a Modelfile that prompts it as the trial did.

Ollama needs the chat template as a Go template. Jinja cannot be translated in general, so `template_pieces` renders a few
chats, takes the text that the Jinja template writes around each turn, and accepts these pieces only when they reproduce
several chats of different shapes exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag.errors import BadInput
from rag.files import write_text
from runners.data.formats import Message
from runners.export.card import refuse_secrets
from runners.export.gguf import GGUF_FILE, family_of, write_gguf
from runners.export.job import ExportedFiles, ExportJob
from runners.export.peft import prompting_notes
from runners.models.fingerprint import read_json
from runners.tokenization.chat_template import ChatTokenizer
from runners.tokenization.template_features import FIXED_DATE

_SYSTEM = "Xq1"
_FIRST = "Xq2"
_ANSWER = "Xq3"
_SECOND = "Xq4"
CHAT_SHAPES = ("u", "su", "uau", "suau", "uauau", "suauau")
"""Chats that both templates must render alike: s is a system turn, u a user's, a the assistant's."""
_ROLES = {"s": "system", "u": "user", "a": "assistant"}
MODELFILE = "Modelfile"
GO_QUOTES = '"""'
_NOT_IN_MODELFILE = (
    "no_repeat_ngram_size",
    "bad_words_ids",
    "suppress_tokens",
    "min_new_tokens",
    "min_length",
)
"""Settings of a generation_config that change greedy answers and have no parameter in a Modelfile."""
DEFAULT_CONTEXT = 8192
"""Longest context requested of Ollama, whose own default would truncate prompts with passages."""


@dataclass(frozen=True, slots=True)
class TemplatePieces:
    """The text that a chat template writes around the content of each turn."""

    start: str
    """Text before everything."""
    default: str
    """Text in place of the system turn, for a chat without one."""
    system: tuple[str, str]
    """Text before and after the content of a system turn."""
    user: tuple[str, str]
    assistant: tuple[str, str]
    generation: str
    """Text after the last user turn, before the assistant's answer."""

    def render(self, messages: Sequence[Message]) -> str:
        """Render a chat as the Go template does."""
        parts = [self.start, "" if any(m["role"] == "system" for m in messages) else self.default]
        for message in messages:
            before, after = {"system": self.system, "user": self.user, "assistant": self.assistant}[
                message["role"]
            ]
            parts += [before, message["content"], after]
        return "".join([*parts, self.generation])

    def go_template(self) -> str:
        """Return the Go template; braces in the pieces are escaped."""
        turns = [
            f'{{{{ {"if" if n == 0 else "else if"} eq .Role "{role}" }}}}'
            f"{_escape(before)}{{{{ .Content }}}}{_escape(after)}"
            for n, (role, (before, after)) in enumerate(
                (("system", self.system), ("user", self.user), ("assistant", self.assistant))
            )
        ]
        default = f"{{{{ if not .System }}}}{_escape(self.default)}{{{{ end }}}}" if self.default else ""
        loop = f"{{{{ range .Messages }}}}{''.join(turns)}{{{{ end }}}}{{{{ end }}}}"
        return f"{_escape(self.start)}{default}{loop}{_escape(self.generation)}"


def make_ollama(job: ExportJob) -> ExportedFiles:
    """Write the GGUF file and its Modelfile; `BadInput` for a family, tokenizer or template that has no exact equivalent."""
    family_of(read_json(job.source.base.folder / "config.json"))
    text, notes = modelfile(job)
    checked, gguf_notes = write_gguf(job)
    write_text(job.folder / MODELFILE, text)
    name = job.name.lower()
    usage = f"```bash\nollama create {name} -f Modelfile  # inside this folder\nollama run {name}\n```\n"
    checked = {
        **checked,
        "Ollama's template writes what the original does": f"{len(CHAT_SHAPES)} shapes of chats",
    }
    return ExportedFiles(usage + prompting_notes(job.source), checked, notes=(*notes, *gguf_notes))


def greedy_parameters(generation_config: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return a Modelfile's lines for greedy decoding with the trial's penalty, and notes of what is missing."""
    penalty = float(generation_config.get("repetition_penalty") or 1)
    lines = ["PARAMETER temperature 0", f"PARAMETER repeat_penalty {penalty:g}"]
    if penalty != 1:
        # transformers applies the penalty to the whole text, Ollama by default to the last 64 tokens.
        lines.append("PARAMETER repeat_last_n -1")
    missing = sorted(name for name in _NOT_IN_MODELFILE if generation_config.get(name))
    notes = [
        f"A Modelfile cannot express {', '.join(missing)} of the model's generation_config, which the trial applied."
    ]
    return lines, notes if missing else []


def modelfile(job: ExportJob) -> tuple[str, list[str]]:
    """Return the Modelfile, with the trial's template, stop texts, instructions and greedy decoding; and notes."""
    source = job.source
    chat = ChatTokenizer(source.weights_folder, source.plan.thinking.enabled)
    template = template_pieces(chat).go_template()
    system = source.plan.prompts.system
    parameters, notes = greedy_parameters(read_json(source.base.folder / "generation_config.json"))
    if "strftime_now" in chat.own_template:
        notes.append(
            f"The chat template writes today's date; the Modelfile always writes {FIXED_DATE}, as the trial did."
        )
    for name, text in (("chat template", template), ("instructions", system)):
        if GO_QUOTES in text:
            raise BadInput(f"the {name} contains {GO_QUOTES}, which a Modelfile cannot", "use --to gguf")
        refuse_secrets(text, "the Modelfile")
    stops = [token for i in sorted(chat.eos_ids) if (token := chat.tokenizer.id_to_token(i))]
    context = int(read_json(source.base.folder / "config.json")["max_position_embeddings"])
    lines = [
        f"FROM ./{GGUF_FILE}",
        f"TEMPLATE {GO_QUOTES}{template}{GO_QUOTES}",
        *([f"SYSTEM {GO_QUOTES}{system}{GO_QUOTES}"] if system else []),
        *(f'PARAMETER stop "{token}"' for token in stops),
        *parameters,
        f"PARAMETER num_predict {source.plan.max_new_tokens}",
        f"PARAMETER num_ctx {min(context, DEFAULT_CONTEXT)}",
    ]
    return "\n".join(lines) + "\n", notes


def template_pieces(chat: ChatTokenizer) -> TemplatePieces:
    """Return the pieces of a chat template; raise `BadInput` when no pieces reproduce its chats exactly."""
    end = chat.tokenizer.id_to_token(chat.turn_end) if chat.turn_end is not None else None
    for pieces in (_derive_pieces(chat, end or ""), _derive_pieces(chat, "")):
        if pieces and all(
            pieces.render(messages) == chat.render(messages, prompt=True)
            for messages in map(_sample_chat, CHAT_SHAPES)
        ):
            return pieces
    raise BadInput(
        "this chat template cannot be written exactly as an Ollama template",
        "use --to gguf: llama.cpp reads the original template from the file",
    )


def _derive_pieces(chat: ChatTokenizer, end_token: str) -> TemplatePieces | None:
    """Render two chats and split them at the turns' contents.

    The text between two turns is split after `end_token`, the token that ends a turn. With "" it is split where the
    text before every user turn, and after every one, is the same.

    Returns:
        The pieces; None when the template leaves contents out or repeats them.
    """
    turns: list[Message] = [
        {"role": "system", "content": _SYSTEM},
        {"role": "user", "content": _FIRST},
        {"role": "assistant", "content": _ANSWER},
        {"role": "user", "content": _SECOND},
    ]
    full = _split_at(chat.render(turns, prompt=True), (_SYSTEM, _FIRST, _ANSWER, _SECOND))
    single = _split_at(chat.render(turns[1:2], prompt=True), (_FIRST,))
    if full is None or single is None:
        return None
    before_system, system_user, user_answer, answer_user, end = full
    first = single[0]
    after_user = _end_of_turn(user_answer, end_token) if end_token else _common_prefix(user_answer, end)
    user = (
        system_user[len(_end_of_turn(system_user, end_token)) :]
        if end_token
        else _common_suffix(system_user, answer_user)
    )
    user = _common_suffix(user, first)
    rest = first[: len(first) - len(user)]
    # What a template without default instructions writes first, it also writes before a system turn.
    start = rest if before_system.startswith(rest) else ""
    return TemplatePieces(
        start=start,
        default=rest[len(start) :],
        system=(before_system[len(start) :], system_user[: len(system_user) - len(user)]),
        user=(user, after_user),
        assistant=(user_answer[len(after_user) :], answer_user[: len(answer_user) - len(user)]),
        generation=end[len(after_user) :],
    )


def _end_of_turn(between: str, end_token: str) -> str:
    """Return the part that belongs to the turn before: up to the end token and the white space after it."""
    before, token, after = between.partition(end_token)
    return before + token + after[: len(after) - len(after.lstrip())] if token else ""


def _split_at(text: str, markers: Sequence[str]) -> list[str] | None:
    """Split a text at markers, each of which must occur exactly once and in this order; None otherwise."""
    parts = []
    for marker in markers:
        before, match, text = text.partition(marker)
        if not match:
            return None
        parts.append(before)
    parts.append(text)
    return None if any(marker in part for part in parts for marker in markers) else parts


def _common_prefix(a: str, b: str) -> str:
    length = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return a[:length]


def _common_suffix(a: str, b: str) -> str:
    return _common_prefix(a[::-1], b[::-1])[::-1]


def _sample_chat(shape: str) -> list[Message]:
    return [
        {"role": _ROLES[turn], "content": f"Words {n} of a turn,\nin two lines."}
        for n, turn in enumerate(shape)
    ]


def _escape(text: str) -> str:
    """Escape plain text for a Go template, where two braces begin an action."""
    return text.replace("{{", '{{ "{{" }}')
