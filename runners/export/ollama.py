"""The `ollama` export: the GGUF file with a Modelfile that asks it as it was measured. Light.

A chat template as Ollama's Go template: found from what it writes, and taken only when it writes the same. Light.

Jinja cannot be translated in general. What a template writes around each turn can be seen from a few chats; when those
pieces, put together again, give every one of some differently shaped chats to the letter, they are the template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rag.errors import BadInput
from rag.files import write_text
from runners.data.formats import Message
from runners.export.card import refuse_secrets
from runners.export.gguf import GGUF_FILE, family_of, write_gguf
from runners.export.job import ExportedFiles, ExportJob
from runners.export.peft import prompting_notes
from runners.models.fingerprint import read_json
from runners.tokenization.chat_template import ChatTokenizer

_SYSTEM, _FIRST, _ANSWER, _SECOND = "Xq1", "Xq2", "Xq3", "Xq4"
CHAT_SHAPES = ("u", "su", "uau", "suau", "uauau", "suauau")
"""Chats that both templates must write alike: s a system turn, u a user's, a the assistant's."""
_ROLES = {"s": "system", "u": "user", "a": "assistant"}


@dataclass(frozen=True, slots=True)
class TemplatePieces:
    """What stands before and after the words of each turn."""

    start: str
    """Before everything."""
    default: str
    """In the place of a system turn, where a chat has none."""
    system: tuple[str, str]
    user: tuple[str, str]
    assistant: tuple[str, str]
    generation: str
    """After the last user turn, where the assistant is to speak."""

    def write(self, messages: Sequence[Message]) -> str:
        """Write a chat as the Go template does."""
        parts = [self.start, "" if any(m["role"] == "system" for m in messages) else self.default]
        for message in messages:
            before, after = {"system": self.system, "user": self.user, "assistant": self.assistant}[
                message["role"]
            ]
            parts += [before, message["content"], after]
        return "".join([*parts, self.generation])

    def go(self) -> str:
        """Return the Go template; what is text in it stays text, whatever it looks like."""
        turns = [
            f'{{{{ {"if" if n == 0 else "else if"} eq .Role "{role}" }}}}'
            f"{_text(before)}{{{{ .Content }}}}{_text(after)}"
            for n, (role, (before, after)) in enumerate(
                (("system", self.system), ("user", self.user), ("assistant", self.assistant))
            )
        ]
        default = f"{{{{ if not .System }}}}{_text(self.default)}{{{{ end }}}}" if self.default else ""
        body = "".join(turns)
        loop = f"{{{{ range .Messages }}}}{body}{{{{ end }}}}{{{{ end }}}}"
        return f"{_text(self.start)}{default}{loop}{_text(self.generation)}"


def template_pieces(chat: ChatTokenizer) -> TemplatePieces:
    """Return what a chat template writes around turns; BadInput where no such pieces write what it does."""
    end = chat.tokenizer.id_to_token(chat.turn_end) if chat.turn_end is not None else None
    for found in (_taken_apart(chat, end or ""), _taken_apart(chat, "")):
        if found and all(found.write(m) == chat.render(m, prompt=True) for m in map(_chat, CHAT_SHAPES)):
            return found
    raise BadInput(
        "this chat template cannot be written exactly as an Ollama template",
        "use --to gguf: llama.cpp reads the original template from the file",
    )


def _taken_apart(chat: ChatTokenizer, mark: str) -> TemplatePieces | None:
    """Cut two chats at their words; None where a template leaves words out or repeats them.

    What stands between two turns is cut after ``mark``, the token that ends a turn. Without a mark it is cut where it
    begins to be the same before every user turn, and after every one.
    """
    turns: list[Message] = [
        {"role": "system", "content": _SYSTEM},
        {"role": "user", "content": _FIRST},
        {"role": "assistant", "content": _ANSWER},
        {"role": "user", "content": _SECOND},
    ]
    whole = _cut(chat.render(turns, prompt=True), (_SYSTEM, _FIRST, _ANSWER, _SECOND))
    bare = _cut(chat.render(turns[1:2], prompt=True), (_FIRST,))
    if whole is None or bare is None:
        return None
    before_system, system_user, user_answer, answer_user, end = whole
    first = bare[0]
    after_user = _ending(user_answer, mark) if mark else _common_start(user_answer, end)
    user = system_user[len(_ending(system_user, mark)) :] if mark else _common_end(system_user, answer_user)
    user = _common_end(user, first)
    rest = first[: len(first) - len(user)]
    # Without instructions of its own a template writes at most a start, which stands before a system turn too.
    start = rest if before_system.startswith(rest) else ""
    return TemplatePieces(
        start=start,
        default=rest[len(start) :],
        system=(before_system[len(start) :], system_user[: len(system_user) - len(user)]),
        user=(user, after_user),
        assistant=(user_answer[len(after_user) :], answer_user[: len(answer_user) - len(user)]),
        generation=end[len(after_user) :],
    )


def _ending(between: str, mark: str) -> str:
    """Return what belongs to the turn before: up to the end mark and the blanks after it; "" without the mark."""
    before, found, after = between.partition(mark)
    return before + found + after[: len(after) - len(after.lstrip())] if found else ""


def _cut(text: str, words: Sequence[str]) -> list[str] | None:
    parts = []
    for word in words:
        before, found, text = text.partition(word)
        if not found:
            return None
        parts.append(before)
    return [*parts, text] if not any(word in part for part in [*parts, text] for word in words) else None


def _common_start(a: str, b: str) -> str:
    same = next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return a[:same]


def _common_end(a: str, b: str) -> str:
    return _common_start(a[::-1], b[::-1])[::-1]


def _chat(shape: str) -> list[Message]:
    return [
        {"role": _ROLES[turn], "content": f"Words {n} of a turn,\nin two lines."}
        for n, turn in enumerate(shape)
    ]


def _text(words: str) -> str:
    """Return plain text as it stands in a Go template: two braces would begin an action."""
    return words.replace("{{", '{{ "{{" }}')


MODELFILE = "Modelfile"
GO_QUOTES = '"""'
DEFAULT_CONTEXT = 8192
"""Longest context asked of Ollama, whose own default would cut prompts with passages short."""


def make_ollama(job: ExportJob) -> ExportedFiles:
    """Write the file and its Modelfile; BadInput for a family, tokenizer or template that Ollama cannot be given exactly."""
    family_of(read_json(job.source.base.folder / "config.json"))
    text, notes = modelfile(job)
    checked, more = write_gguf(job)
    write_text(job.made / MODELFILE, text)
    name = job.name.lower()
    how = f"```bash\nollama create {name} -f Modelfile  # inside this folder\nollama run {name}\n```\n"
    told = {
        **checked,
        "Ollama's template writes what the original does": f"{len(CHAT_SHAPES)} shapes of chats",
    }
    return ExportedFiles(how + prompting_notes(job.source), told, notes=(*notes, *more))


def modelfile(job: ExportJob) -> tuple[str, list[str]]:
    """Return the Modelfile: template, stop words, instructions and greedy answers, as in the trial; and what to know."""
    source = job.source
    chat = ChatTokenizer(source.made)
    template, system = template_pieces(chat).go(), source.plan.prompts.system
    notes = []
    if "strftime_now" in chat.own_template:
        notes.append("The chat template writes today's date; the Modelfile holds the day of this export.")
    for what, words in (("chat template", template), ("instructions", system)):
        if GO_QUOTES in words:
            raise BadInput(f"the {what} holds {GO_QUOTES}, which a Modelfile cannot", "use --to gguf")
        refuse_secrets(words, "the Modelfile")
    stops = [word for i in sorted(chat.eos_ids) if (word := chat.tokenizer.id_to_token(i))]
    room = int(read_json(source.base.folder / "config.json")["max_position_embeddings"])
    lines = [
        f"FROM ./{GGUF_FILE}",
        f"TEMPLATE {GO_QUOTES}{template}{GO_QUOTES}",
        *([f"SYSTEM {GO_QUOTES}{system}{GO_QUOTES}"] if system else []),
        *(f'PARAMETER stop "{word}"' for word in stops),
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
        f"PARAMETER num_predict {source.plan.max_new_tokens}",
        f"PARAMETER num_ctx {min(room, DEFAULT_CONTEXT)}",
    ]
    return "\n".join(lines) + "\n", notes
