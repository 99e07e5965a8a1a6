"""Which column is the prompt, which the reply: guessed from the usual names, or as the user says.

A guess is made only when it cannot be another: with two columns that could be the prompt, both are named and the
user is asked.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rag.errors import BadInput

ROLES = ("turns", "prompt", "input", "reply", "system", "history", "tools", "text")
"""What a column can be: a list of turns; the prompt, what it is about and its reply; the instructions before it;
earlier pairs; the tools that a chat may call; or one text to learn as it is."""

_TURNS = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns")
_PROMPTS = ("prompt", "instruction", "question", "query", "user", "input", "problem")
_REPLIES = ("completion", "response", "output", "answer", "reply", "assistant")
_WEAK_REPLIES = ("label", "target", "summary", "solution", "intent")
"""Replies only where there is no better name, since they often say something about a row."""
_INPUTS = ("input", "context")
_SYSTEMS = ("system", "system_prompt")
_TEXTS = ("text", "content")
_FILLERS = ("text", "body", "content", "message")
"""Words that may follow the telling one: ``question_text`` is a question, ``question_id`` is none."""
_ABOUT = ("has", "is", "num", "n", "no", "system")
"""Words that, coming first, make a name tell something about a prompt or reply: ``has_answer``."""


class UnknownColumns(Exception):
    """No role can be given to these columns."""


class Ambiguous(Exception):
    """Several columns could have the same role."""

    def __init__(self, role: str, candidates: Iterable[str], hint: str) -> None:
        """Keep the question, with the candidates, and an example of how to answer it."""
        names = ", ".join(candidates)
        super().__init__(f"which column is the {role}? it could be each of: {names}")
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Columns:
    """The format of a row, and the column that has each role."""

    format: str
    """messages, sharegpt, alpaca, prompt-completion or text."""
    of: Mapping[str, str]


def guess(names: Iterable[str]) -> Columns:
    """Give roles to columns by their names, whatever their case.

    Where prompt or reply has no usual name, one that ends so will do (``Customer Question``). Raises Ambiguous
    when a role has several candidates, and UnknownColumns when there is nothing to learn.
    """
    names = tuple(names)
    own = {str(name).strip().lower(): name for name in names}
    systems, turns = _there(own, _SYSTEMS), _there(own, _TURNS)
    if turns:
        found = {"turns": _one("list of turns", turns, own, "--columns turns={}")}
        found |= _maybe("system", systems, own) | _maybe("tools", _there(own, ("tools",)), own)
        return Columns("messages" if turns == ["messages"] else "sharegpt", found)
    prompts, replies, texts = (_there(own, usual) for usual in (_PROMPTS, _REPLIES, _TEXTS))
    if not texts:
        prompts, replies = prompts or _ending(own, _PROMPTS), replies or _ending(own, _REPLIES)
    replies = replies or _there(own, _WEAK_REPLIES)
    if prompts and (replies or not texts):
        return _pair(prompts, replies, systems, own)
    if texts and (prompts or replies):
        text, prompt, reply = own[texts[0]], own[(prompts or texts)[0]], own[(replies or texts)[0]]
        raise Ambiguous(
            "text to learn",
            (own[name] for name in (*texts, *prompts, *replies)),
            f"to learn the text as it is: --columns text={text}; as pairs: --columns prompt={prompt},reply={reply}",
        )
    if texts:
        return Columns("text", {"text": _one("text", texts, own, "--columns text={}")})
    raise UnknownColumns(f"no known format has the keys {', '.join(sorted(map(str, names))[:6])}")


def declared(columns: Mapping[str, str]) -> Columns:
    """Return the columns that the user names; BadInput on an unknown role, or roles that do not go together."""
    for role in columns:
        if role not in ROLES:
            close = difflib.get_close_matches(role, ROLES, n=1)
            raise BadInput(
                f"columns: {role!r} is not a role", f"did you mean {close[0]}?" if close else _known()
            )
    kinds = [role for role in ("turns", "prompt", "text") if role in columns]
    if len(kinds) != 1 or ("reply" in columns) != ("prompt" in columns):
        given = ", ".join(f"{role}={name}" for role, name in columns.items()) or "nothing"
        raise BadInput(
            f"columns: {given} is not enough, or too much",
            "give either turns=..., or text=..., or prompt=... and reply=...",
        )
    named = {"turns": "messages", "prompt": "alpaca" if "input" in columns else "prompt-completion"}
    return Columns(named.get(kinds[0], "text"), dict(columns))


def parse(text: str) -> dict[str, str]:
    """Read ``prompt=a,reply=b`` as the command line gives it; BadInput names what is no such pair."""
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        role, mark, name = part.partition("=")
        if not mark or not name.strip():
            raise BadInput(f"--columns: {part!r} is not role=column", _known())
        found[role.strip()] = name.strip()
    return found


def _pair(prompts: list[str], replies: list[str], systems: list[str], own: Mapping[str, str]) -> Columns:
    about = _there(own, _INPUTS) if "instruction" in prompts else []
    prompts = [p for p in prompts if p not in about]
    prompt = _one("prompt", prompts, own, "--columns prompt={},reply=...")
    found = {"prompt": prompt} | _maybe("input", about, own)
    if replies:
        found["reply"] = _one("reply", replies, own, f"--columns prompt={prompt},reply={{}}")
    found |= _maybe("system", systems, own)
    if prompts == ["instruction"]:
        return Columns("alpaca", found | _maybe("history", _there(own, ("history",)), own))
    return Columns("prompt-completion", found)


def _there(own: Mapping[str, str], names: Iterable[str]) -> list[str]:
    return [name for name in names if name in own]


def _ending(own: Mapping[str, str], names: Iterable[str]) -> list[str]:
    """Return the columns whose last telling word is one of the names, such as ``our_reply`` or ``userQuestion``."""
    found = []
    for column, name in own.items():
        words = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", str(name)).lower())
        telling = next((word for word in reversed(words) if word not in _FILLERS), "")
        if telling in names and words[0] not in _ABOUT:
            found.append(column)
    return found


def _maybe(role: str, there: list[str], own: Mapping[str, str]) -> dict[str, str]:
    return {role: _one(role, there, own, f"--columns {role}={{}},...")} if there else {}


def _one(role: str, there: list[str], own: Mapping[str, str], how: str) -> str:
    if len(there) > 1:
        raise Ambiguous(
            role,
            (own[name] for name in there),
            f"to train, say it: {how.format(own[there[0]])}; or rename the others",
        )
    return own[there[0]]


def _known() -> str:
    return f"roles are {', '.join(ROLES)}; for instance: --columns prompt=question,reply=answer"
