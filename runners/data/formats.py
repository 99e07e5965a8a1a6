"""Which column is the prompt, which the reply: guessed from the usual names, or as the user says.

A guess is made only when it cannot be another: with two columns that could be the prompt, both are named and the
user is asked.

The turns of a row: whatever format it comes in, it becomes one list of system, user, assistant and tool turns.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

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


class AmbiguousColumns(Exception):
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


def guess_columns(names: Iterable[str]) -> Columns:
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
        raise AmbiguousColumns(
            "text to learn",
            (own[name] for name in (*texts, *prompts, *replies)),
            f"to learn the text as it is: --columns text={text}; as pairs: --columns prompt={prompt},reply={reply}",
        )
    if texts:
        return Columns("text", {"text": _one("text", texts, own, "--columns text={}")})
    raise UnknownColumns(f"no known format has the keys {', '.join(sorted(map(str, names))[:6])}")


def declared_columns(columns: Mapping[str, str]) -> Columns:
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


def parse_columns(text: str) -> dict[str, str]:
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
        raise AmbiguousColumns(
            role,
            (own[name] for name in there),
            f"to train, say it: {how.format(own[there[0]])}; or rename the others",
        )
    return own[there[0]]


def _known() -> str:
    return f"roles are {', '.join(ROLES)}; for instance: --columns prompt=question,reply=answer"


Message = dict[str, Any]
"""``{"role": "system" | "user" | "assistant" | "tool", "content": str}``; a turn may also have ``tool_calls``,
``tool_call_id``, ``name``, ``reasoning_content`` and ``weight`` (0: not learnt), as OpenAI's format does."""

_KEPT = ("tool_calls", "tool_call_id", "name", "reasoning_content", "weight")
_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_call": "call",
}


class UnusableRow(Exception):
    """Why one row cannot be used; its reader adds the place."""


@dataclass(frozen=True, slots=True)
class RowTurns:
    """What a row holds: the chat, the tools it may call, and everything left over."""

    columns: Columns
    messages: list[Message]
    tools: tuple[dict[str, Any], ...]
    meta: dict[str, Any]
    """The other columns; a ``meta`` object is flattened into them."""


def row_turns(row: Mapping[str, Any], columns: Columns | None = None) -> RowTurns:
    """Return a row's turns by the columns given, else by those that its keys name.

    Raises Unusable when no format fits or a turn is malformed, and Ambiguous when several do.
    """
    if columns is None:
        try:
            columns = _guess(tuple(row))
        except UnknownColumns as reason:
            raise UnusableRow(str(reason)) from None
    elif absent := [name for name in columns.of.values() if name not in row]:
        raise UnusableRow(f"no column {absent[0]!r} (there are: {', '.join(map(str, row))})")
    values = {role: row[name] for role, name in columns.of.items()}
    used = set(columns.of.values())
    meta = {k: v for k, v in row.items() if k not in used}
    inner = meta.pop("meta", None)
    tools = tuple(_objects("tools", values.get("tools")))
    return RowTurns(columns, _turns(values), tools, {**meta, **inner} if isinstance(inner, dict) else meta)


_guess = lru_cache(maxsize=1024)(guess_columns)


def system_turn(value: Any) -> list[Message]:
    """Return the system turn a value makes, [] when there is none in it."""
    return [{"role": "system", "content": value}] if isinstance(value, str) and value.strip() else []


def _turns(values: Mapping[str, Any]) -> list[Message]:
    system = system_turn(values.get("system"))
    if "text" in values:
        return _side(values["text"], "assistant")
    if "turns" in values:
        turns = _chat(values["turns"])
        if system and turns[0]["role"] == "system":
            if turns[0]["content"] != system[0]["content"]:
                raise UnusableRow("both a system column and a system turn")
            system = []
        return system + turns
    earlier = [turn for pair in _list("history", values.get("history")) for turn in _earlier(pair)]
    if isinstance(values["prompt"], list):
        return system + earlier + _side(values["prompt"], "user") + _side(values.get("reply"), "assistant")
    parts = [_text(part) for part in (values["prompt"], values.get("input"))]
    prompt = "\n\n".join(part for part in parts if part)
    return system + earlier + _side(prompt, "user") + _side(values.get("reply"), "assistant")


def _chat(value: Any) -> list[Message]:
    if isinstance(value, str) and value.lstrip().startswith("["):  # JSON in a cell of a table
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise UnusableRow(f"the list of turns is broken JSON: {error}") from None
    if isinstance(value, dict) and value and all(isinstance(v, list) for v in value.values()):
        # A list of turns that was stored column by column, as some Parquet files do.
        value = [dict(zip(value, turn, strict=True)) for turn in zip(*value.values(), strict=False)]
    if not isinstance(value, list) or not value:
        raise UnusableRow("the list of turns is empty or not a list")
    return [_message(turn) for turn in value]


def _earlier(pair: Any) -> list[Message]:
    if not isinstance(pair, list) or len(pair) != 2:
        raise UnusableRow("history must be a list of [prompt, reply] pairs")
    return _side(_text(pair[0]), "user") + _side(_text(pair[1]), "assistant")


def _side(value: Any, role: str) -> list[Message]:
    if isinstance(value, list):
        return [_message(turn) for turn in value]
    text = _text(value)
    return [{"role": role, "content": text}] if text else []


def _text(value: Any) -> str:
    """Return a cell as text: an object as JSON, an absent one as ""."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | bool) else str(value)


def _message(turn: Any) -> Message:
    if not isinstance(turn, dict):
        raise UnusableRow(f"a turn must be an object, found {type(turn).__name__}")
    said = turn.get("role", turn.get("from"))
    role = _ROLES.get(str(said).lower())
    if role is None:
        raise UnusableRow(f"unknown role {said!r}")
    content = turn.get("content", turn.get("value"))
    if role == "call":
        return {"role": "assistant", "content": "", "tool_calls": [_call(content)]}
    if isinstance(content, list):
        if any(not isinstance(p, dict) or p.get("type") != "text" for p in content):
            raise UnusableRow("a turn has parts that are not text")
        content = "".join(str(p.get("text", "")) for p in content)
    more = {key: turn[key] for key in _KEPT if turn.get(key) is not None}
    if content is None and more.get("tool_calls"):
        content = ""
    if not isinstance(content, str):
        raise UnusableRow(f"the {role} turn has no text")
    return {"role": role, "content": content, **more}


def _call(content: Any) -> dict[str, Any]:
    """Read sharegpt's function_call turn, ``{"name": .., "arguments": ..}`` as JSON, as OpenAI's tool call."""
    try:
        call = json.loads(content)
        return {
            "type": "function",
            "function": {"name": call["name"], "arguments": call.get("arguments", {})},
        }
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
        raise UnusableRow("a function_call turn is not a JSON object with a name") from None


def _objects(name: str, value: Any) -> list[dict[str, Any]]:
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise UnusableRow(f"{name} is broken JSON: {error}") from None
    found = _list(name, value)
    if not all(isinstance(item, dict) for item in found):
        raise UnusableRow(f"{name} must be a list of objects")
    return found


def _list(name: str, value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    if not isinstance(value, list):
        raise UnusableRow(f"{name} must be a list")
    return value
