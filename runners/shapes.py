"""The turns of a row: whatever format it comes in, it becomes one list of system, user, assistant and tool turns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from runners.columns import Columns, UnknownColumns, guess

Message = dict[str, Any]
"""``{"role": "system" | "user" | "assistant" | "tool", "content": str}``; a turn may also have ``tool_calls``,
``tool_call_id``, ``name``, ``reasoning_content`` and ``weight`` (0: not learnt), as OpenAI's format does."""

_KEPT = ("tool_calls", "tool_call_id", "name", "reasoning_content", "weight")
_ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "bot": "assistant", "model": "assistant",
    "tool": "tool", "function": "tool", "observation": "tool", "function_call": "call",
}  # fmt: skip


class Unusable(Exception):
    """Why one row cannot be used; its reader adds the place."""


@dataclass(frozen=True, slots=True)
class Turns:
    """What a row holds: the chat, the tools it may call, and everything left over."""

    columns: Columns
    messages: list[Message]
    tools: tuple[dict[str, Any], ...]
    meta: dict[str, Any]
    """The other columns; a ``meta`` object is flattened into them."""


def chat(row: Mapping[str, Any], columns: Columns | None = None) -> Turns:
    """Return a row's turns by the columns given, else by those that its keys name.

    Raises Unusable when no format fits or a turn is malformed, and Ambiguous when several do.
    """
    if columns is None:
        try:
            columns = _guess(tuple(row))
        except UnknownColumns as reason:
            raise Unusable(str(reason)) from None
    elif absent := [name for name in columns.of.values() if name not in row]:
        raise Unusable(f"no column {absent[0]!r} (there are: {', '.join(map(str, row))})")
    values = {role: row[name] for role, name in columns.of.items()}
    used = set(columns.of.values())
    meta = {k: v for k, v in row.items() if k not in used}
    inner = meta.pop("meta", None)
    tools = tuple(_objects("tools", values.get("tools")))
    return Turns(columns, _turns(values), tools, {**meta, **inner} if isinstance(inner, dict) else meta)


_guess = lru_cache(maxsize=1024)(guess)


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
                raise Unusable("both a system column and a system turn")
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
            raise Unusable(f"the list of turns is broken JSON: {error}") from None
    if isinstance(value, dict) and value and all(isinstance(v, list) for v in value.values()):
        # A list of turns that was stored column by column, as some Parquet files do.
        value = [dict(zip(value, turn, strict=True)) for turn in zip(*value.values(), strict=False)]
    if not isinstance(value, list) or not value:
        raise Unusable("the list of turns is empty or not a list")
    return [_message(turn) for turn in value]


def _earlier(pair: Any) -> list[Message]:
    if not isinstance(pair, list) or len(pair) != 2:
        raise Unusable("history must be a list of [prompt, reply] pairs")
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
        raise Unusable(f"a turn must be an object, found {type(turn).__name__}")
    said = turn.get("role", turn.get("from"))
    role = _ROLES.get(str(said).lower())
    if role is None:
        raise Unusable(f"unknown role {said!r}")
    content = turn.get("content", turn.get("value"))
    if role == "call":
        return {"role": "assistant", "content": "", "tool_calls": [_call(content)]}
    if isinstance(content, list):
        if any(not isinstance(p, dict) or p.get("type") != "text" for p in content):
            raise Unusable("a turn has parts that are not text")
        content = "".join(str(p.get("text", "")) for p in content)
    more = {key: turn[key] for key in _KEPT if turn.get(key) is not None}
    if content is None and more.get("tool_calls"):
        content = ""
    if not isinstance(content, str):
        raise Unusable(f"the {role} turn has no text")
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
        raise Unusable("a function_call turn is not a JSON object with a name") from None


def _objects(name: str, value: Any) -> list[dict[str, Any]]:
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise Unusable(f"{name} is broken JSON: {error}") from None
    found = _list(name, value)
    if not all(isinstance(item, dict) for item in found):
        raise Unusable(f"{name} must be a list of objects")
    return found


def _list(name: str, value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    if not isinstance(value, list):
        raise Unusable(f"{name} must be a list")
    return value
