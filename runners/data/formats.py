"""The formats of example rows: which column has which role, and the chat turns that a row holds.

:func:`guess_columns` recognises the usual column names, :func:`declared_columns` takes the ones a user names. A guess is
made only when it is unambiguous: with two columns that could be the prompt, both are named and the user is asked.
:func:`row_turns` turns a row of any format into one list of system, user, assistant and tool turns.
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
"""Roles of columns: a list of turns; the prompt, its input and its reply; the system prompt; earlier pairs of prompt and
reply; the tools that a chat may call; or one raw text."""

CLOSE_COLUMN = 0.5
"""Similarity from which a column is proposed for one that is not there (difflib's ratio): "reply" for "our reply"."""
_TURNS = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns")
_PROMPTS = ("prompt", "instruction", "question", "query", "user", "input", "problem")
_REPLIES = ("completion", "response", "output", "answer", "reply", "assistant")
_WEAK_REPLIES = ("label", "target", "summary", "solution", "intent")
"""Replies only where there is no better name, since such columns often hold metadata."""
_INPUTS = ("input", "context")
_SYSTEMS = ("system", "system_prompt")
_TEXTS = ("text", "content")
_FILLERS = ("text", "body", "content", "message")
"""Words that may follow the role: ``question_text`` is a question, ``question_id`` is not."""
_ABOUT = ("has", "is", "num", "n", "no", "system")
"""First words of columns that describe a prompt or reply and do not hold it: ``has_answer``."""

Message = dict[str, Any]
"""``{"role": "system" | "user" | "assistant" | "tool", "content": str}``; a turn may also have ``tool_calls``,
``tool_call_id``, ``name``, ``reasoning_content`` and ``weight`` (0: not trained on), as OpenAI's format does."""

_OPTIONAL_KEYS = ("tool_calls", "tool_call_id", "name", "reasoning_content", "weight")
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
"""Our role of each role name in use; "call" is sharegpt's own turn for a tool call."""


class UnusableRow(Exception):
    """A row cannot be used; the message is the reason, to which the reader adds the row's place."""


class UnknownFormat(UnusableRow):
    """No prompt and reply can be found in a row by the names of its columns."""

    def __init__(self, reason: str, columns: Iterable[str]) -> None:
        """Take the reason, and the columns that the row has."""
        super().__init__(reason)
        self.columns = tuple(map(str, columns))


class UnknownColumns(Exception):
    """No role can be given to these columns."""


class AmbiguousColumns(Exception):
    """Several columns could have the same role."""

    def __init__(self, role: str, candidates: Iterable[str], hint: str) -> None:
        """Make a question of the role and its candidates; ``hint`` is an example of how to answer it."""
        names = ", ".join(candidates)
        super().__init__(f"which column is the {role}? it could be each of: {names}")
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Columns:
    """The format of a row, and the column of each role."""

    format: str
    """messages, sharegpt, alpaca, prompt-completion or text."""
    of: Mapping[str, str]
    """Role -> name of the column."""


@dataclass(frozen=True, slots=True)
class RowTurns:
    """The content of a row: the chat, the tools it may call, and the other columns."""

    columns: Columns
    messages: list[Message]
    tools: tuple[dict[str, Any], ...]
    meta: dict[str, Any]
    """The other columns; a ``meta`` object is flattened into them."""


def guess_columns(names: Iterable[str]) -> Columns:
    """Give roles to columns by their names, ignoring case.

    Where no column has a usual name for prompt or reply, one whose name ends with it is taken (``Customer Question``).

    Raises:
        AmbiguousColumns: a role has several candidates.
        UnknownColumns: no column can be trained on.
    """
    names = tuple(names)
    by_lower = {str(name).strip().lower(): name for name in names}
    systems = _present(by_lower, _SYSTEMS)
    turns = _present(by_lower, _TURNS)
    if turns:
        columns = {"turns": _only(turns, "list of turns", by_lower, "--columns turns={}")}
        columns |= _optional("system", systems, by_lower)
        columns |= _optional("tools", _present(by_lower, ("tools",)), by_lower)
        return Columns("messages" if turns == ["messages"] else "sharegpt", columns)
    prompts, replies, texts = (_present(by_lower, usual) for usual in (_PROMPTS, _REPLIES, _TEXTS))
    if not texts:
        prompts = prompts or _ending_with(by_lower, _PROMPTS)
        replies = replies or _ending_with(by_lower, _REPLIES)
    replies = replies or _present(by_lower, _WEAK_REPLIES)
    if prompts and (replies or not texts):
        return _pair_columns(prompts, replies, systems, by_lower)
    if texts and (prompts or replies):
        text = by_lower[texts[0]]
        prompt = by_lower[(prompts or texts)[0]]
        reply = by_lower[(replies or texts)[0]]
        raise AmbiguousColumns(
            "text to learn",
            (by_lower[name] for name in (*texts, *prompts, *replies)),
            f"to learn the text as it is: --columns text={text}; as pairs: --columns prompt={prompt},reply={reply}",
        )
    if texts:
        return Columns("text", {"text": _only(texts, "text", by_lower, "--columns text={}")})
    raise UnknownColumns(f"no known format has the keys {', '.join(sorted(map(str, names))[:6])}")


def usual_reply(name: str) -> bool:
    """Whether a column's name is one that replies usually have."""
    return name.strip().lower() in (*_REPLIES, *_WEAK_REPLIES)


def declared_columns(columns: Mapping[str, str]) -> Columns:
    """Return the columns that a user names by role; BadInput on an unknown role or an invalid combination."""
    for role in columns:
        if role not in ROLES:
            close = difflib.get_close_matches(role, ROLES, n=1)
            raise BadInput(
                f"columns: {role!r} is not a role", f"did you mean {close[0]}?" if close else _roles_hint()
            )
    kinds = [role for role in ("turns", "prompt", "text") if role in columns]
    if len(kinds) != 1 or ("reply" in columns) != ("prompt" in columns):
        given = ", ".join(f"{role}={name}" for role, name in columns.items()) or "nothing"
        raise BadInput(
            f"columns: {given} is not enough, or too much",
            "give either turns=..., or text=..., or prompt=... and reply=...",
        )
    formats = {"turns": "messages", "prompt": "alpaca" if "input" in columns else "prompt-completion"}
    return Columns(formats.get(kinds[0], "text"), dict(columns))


def parse_columns(text: str) -> dict[str, str]:
    """Parse ``prompt=a,reply=b`` as given on the command line; BadInput names a part that is no such pair."""
    columns = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        role, mark, name = part.partition("=")
        if not mark or not name.strip():
            raise BadInput(f"--columns: {part!r} is not role=column", _roles_hint())
        columns[role.strip()] = name.strip()
    return columns


def _pair_columns(
    prompts: list[str], replies: list[str], systems: list[str], by_lower: Mapping[str, str]
) -> Columns:
    """Return the columns of a row of prompt and reply; alpaca's may also have an input and a history."""
    inputs = _present(by_lower, _INPUTS) if "instruction" in prompts else []
    prompts = [name for name in prompts if name not in inputs]
    prompt = _only(prompts, "prompt", by_lower, "--columns prompt={},reply=...")
    columns = {"prompt": prompt} | _optional("input", inputs, by_lower)
    if replies:
        columns["reply"] = _only(replies, "reply", by_lower, f"--columns prompt={prompt},reply={{}}")
    columns |= _optional("system", systems, by_lower)
    if prompts == ["instruction"]:
        history = _present(by_lower, ("history",))
        return Columns("alpaca", columns | _optional("history", history, by_lower))
    return Columns("prompt-completion", columns)


def _present(by_lower: Mapping[str, str], names: Iterable[str]) -> list[str]:
    """Return those of the names that the row has, in lower case."""
    return [name for name in names if name in by_lower]


def _ending_with(by_lower: Mapping[str, str], names: Iterable[str]) -> list[str]:
    """Return the columns whose last word, fillers aside, is one of the names: ``our_reply``, ``userQuestion``."""
    columns = []
    for column, name in by_lower.items():
        words = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", str(name)).lower())
        last = next((word for word in reversed(words) if word not in _FILLERS), "")
        if last in names and words[0] not in _ABOUT:
            columns.append(column)
    return columns


def _optional(role: str, candidates: list[str], by_lower: Mapping[str, str]) -> dict[str, str]:
    """Return the role with its only candidate, {} without one."""
    return {role: _only(candidates, role, by_lower, f"--columns {role}={{}},...")} if candidates else {}


def _only(candidates: list[str], role: str, by_lower: Mapping[str, str], example: str) -> str:
    """Return the only candidate as the row spells it; AmbiguousColumns, with an example flag, if there are more."""
    if len(candidates) > 1:
        raise AmbiguousColumns(
            role,
            (by_lower[name] for name in candidates),
            f"to train on them, say so: {example.format(by_lower[candidates[0]])}; or rename the others",
        )
    return by_lower[candidates[0]]


def _roles_hint() -> str:
    return f"roles are {', '.join(ROLES)}; for instance: --columns prompt=question,reply=answer"


def row_turns(row: Mapping[str, Any], columns: Columns | None = None) -> RowTurns:
    """Return the chat turns, tools and other values of a row.

    Args:
        row: column -> value.
        columns: roles of the columns; None guesses them from the row's keys.

    Raises:
        UnusableRow: no format fits, a column is missing or a turn is malformed.
        AmbiguousColumns: several columns could have the same role.
    """
    if columns is None:
        try:
            columns = _guess(tuple(row))
        except UnknownColumns as reason:
            raise UnknownFormat(str(reason), row) from None
    elif absent := [name for name in columns.of.values() if name not in row]:
        close = difflib.get_close_matches(
            absent[0].lower(), {str(name).lower(): name for name in row}, n=1, cutoff=CLOSE_COLUMN
        )
        meant = "".join(f"; did you mean {name!r}?" for name in row if str(name).lower() in close)
        raise UnknownFormat(f"no column {absent[0]!r} (there are: {', '.join(map(str, row))}){meant}", row)
    values = {role: row[name] for role, name in columns.of.items()}
    used = set(columns.of.values())
    meta = {k: v for k, v in row.items() if k not in used}
    inner = meta.pop("meta", None)
    tools = tuple(_objects("tools", values.get("tools")))
    return RowTurns(columns, _turns(values), tools, {**meta, **inner} if isinstance(inner, dict) else meta)


# Rows of a file mostly have the same keys.
_guess = lru_cache(maxsize=1024)(guess_columns)


def system_turn(value: Any) -> list[Message]:
    """Return a value as a system turn, [] when it is no text or blank."""
    return [{"role": "system", "content": value}] if isinstance(value, str) and value.strip() else []


def _turns(values: Mapping[str, Any]) -> list[Message]:
    """Return the chat turns of a row's values by role."""
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
    # Alpaca: the input follows the instruction, a blank line apart.
    parts = [_text(part) for part in (values["prompt"], values.get("input"))]
    prompt = "\n\n".join(part for part in parts if part)
    return system + earlier + _side(prompt, "user") + _side(values.get("reply"), "assistant")


def _chat(value: Any) -> list[Message]:
    """Return a list of turns that is given as objects, as JSON text or column by column."""
    if isinstance(value, str) and value.lstrip().startswith("["):  # JSON in a cell of a table
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise UnusableRow(f"the list of turns is broken JSON: {error}") from None
    if isinstance(value, dict) and value and all(isinstance(v, list) for v in value.values()):
        # A list of turns stored column by column, as in some Parquet files.
        value = [dict(zip(value, turn, strict=True)) for turn in zip(*value.values(), strict=False)]
    if not isinstance(value, list) or not value:
        raise UnusableRow("the list of turns is empty or not a list")
    return [_message(turn) for turn in value]


def _earlier(pair: Any) -> list[Message]:
    """Return the two turns of one [prompt, reply] pair of alpaca's history."""
    if not isinstance(pair, list) or len(pair) != 2:
        raise UnusableRow("history must be a list of [prompt, reply] pairs")
    return _side(_text(pair[0]), "user") + _side(_text(pair[1]), "assistant")


def _side(value: Any, role: str) -> list[Message]:
    """Return the turns of a prompt or reply: a list of turns as it is, a text as one turn of ``role``."""
    if isinstance(value, list):
        return [_message(turn) for turn in value]
    text = _text(value)
    return [{"role": role, "content": text}] if text else []


def _text(value: Any) -> str:
    """Return a value as text: an object as JSON, None as ""."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | bool) else str(value)


def _message(turn: Any) -> Message:
    if not isinstance(turn, dict):
        raise UnusableRow(f"a turn must be an object, found {type(turn).__name__}")
    name = turn.get("role", turn.get("from"))
    role = _ROLES.get(str(name).lower())
    if role is None:
        raise UnusableRow(f"unknown role {name!r}")
    content = turn.get("content", turn.get("value"))
    if role == "call":
        return {"role": "assistant", "content": "", "tool_calls": [_call(content)]}
    if isinstance(content, list):
        if any(not isinstance(p, dict) or p.get("type") != "text" for p in content):
            raise UnusableRow("a turn has parts that are not text")
        content = "".join(str(p.get("text", "")) for p in content)
    optional = {key: turn[key] for key in _OPTIONAL_KEYS if turn.get(key) is not None}
    if content is None and optional.get("tool_calls"):
        content = ""
    if not isinstance(content, str):
        raise UnusableRow(f"the {role} turn has no text")
    return {"role": role, "content": content, **optional}


def _call(content: Any) -> dict[str, Any]:
    """Convert sharegpt's function_call turn, ``{"name": .., "arguments": ..}`` as JSON, to OpenAI's tool call."""
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
    items = _list(name, value)
    if not all(isinstance(item, dict) for item in items):
        raise UnusableRow(f"{name} must be a list of objects")
    return items


def _list(name: str, value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    if not isinstance(value, list):
        raise UnusableRow(f"{name} must be a list")
    return value
