"""The shapes a chat comes in: each row of examples is recognised by its keys and becomes a list of turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Message = dict[str, str]
"""``{"role": "system" | "user" | "assistant", "content": ...}``."""


class Unusable(Exception):
    """Why one row cannot be used; its reader adds the place."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One known format: the keys it takes from a row, () when it is not one, and its turns."""

    name: str
    keys: Callable[[Mapping[str, str]], tuple[str, ...]]
    turns: Callable[[list[Any]], list[Message]]


def chat(row: Mapping[str, Any]) -> tuple[str, list[Message], dict[str, Any]]:
    """Return a row's format, its turns and everything left over (a ``meta`` object is flattened into it).

    Raises Unusable when no format fits or a turn is malformed.
    """
    names = {str(k).lower(): k for k in row}
    for shape in SHAPES:
        if used := shape.keys(names):
            messages = shape.turns([row[names[k]] if k in names else None for k in used])
            meta = {k: v for k, v in row.items() if str(k).lower() not in used}
            inner = meta.pop("meta", None)
            return shape.name, messages, {**meta, **inner} if isinstance(inner, dict) else meta
    raise Unusable(f"no known format has the keys {', '.join(sorted(map(str, row))[:6])}")


_ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "bot": "assistant", "model": "assistant",
}  # fmt: skip
_ALPACA = ("instruction", "input", "output", "system")
_PAIRS = (
    ("prompt", "completion"), ("prompt", "response"), ("question", "answer"), ("input", "output"),
    ("query", "response"), ("user", "assistant"), ("question", "reply"),
)  # fmt: skip


def _pair_keys(names: Mapping[str, str]) -> tuple[str, ...]:
    pair = next((p for p in _PAIRS if p[0] in names and p[1] in names), None)
    alone = next((p for p in _PAIRS if p[0] in names), None)
    return (*(pair or alone or ()), "system") if pair or alone else ()


def _turns(values: list[Any]) -> list[Message]:
    turns, system = values[0], values[1] if len(values) > 1 else None
    if not isinstance(turns, list) or not turns:
        raise Unusable("the list of turns is empty or not a list")
    return system_turn(system) + [_message(turn) for turn in turns]


def _alpaca(values: list[Any]) -> list[Message]:
    instruction, extra, output, system = values
    prompt = "\n\n".join(str(part) for part in (instruction, extra) if part)
    return system_turn(system) + _side(prompt, "user") + _side(output, "assistant")


def _pair(values: list[Any]) -> list[Message]:
    prompt, answer, system = values
    return system_turn(system) + _side(prompt, "user") + _side(answer, "assistant")


def _plain(values: list[Any]) -> list[Message]:
    return _side(values[0], "assistant")


def system_turn(value: Any) -> list[Message]:
    """Return the system turn a value makes, [] when there is none in it."""
    return [{"role": "system", "content": value}] if isinstance(value, str) and value.strip() else []


def _side(value: Any, role: str) -> list[Message]:
    if isinstance(value, list):
        return [_message(turn) for turn in value]
    if value is None or value == "":
        return []
    return [{"role": role, "content": value if isinstance(value, str) else str(value)}]


def _message(turn: Any) -> Message:
    if not isinstance(turn, dict):
        raise Unusable(f"a turn must be an object, found {type(turn).__name__}")
    said = turn.get("role", turn.get("from"))
    role = _ROLES.get(str(said).lower())
    if role is None:
        raise Unusable(f"unknown role {said!r}")
    content = turn.get("content", turn.get("value"))
    if isinstance(content, list):
        if any(not isinstance(p, dict) or p.get("type") != "text" for p in content):
            raise Unusable("a turn has parts that are not text")
        content = "".join(str(p.get("text", "")) for p in content)
    if not isinstance(content, str):
        raise Unusable(f"the {role} turn has no text")
    return {"role": role, "content": content}


SHAPES = (
    Shape("messages", lambda names: ("messages",) if "messages" in names else (), _turns),
    Shape("sharegpt", lambda names: ("conversations", "system") if "conversations" in names else (), _turns),
    Shape("alpaca", lambda names: _ALPACA if "instruction" in names else (), _alpaca),
    Shape("prompt-completion", _pair_keys, _pair),
    Shape("text", lambda names: ("text",) if "text" in names else (), _plain),
)
"""Every format, tried in this order."""
