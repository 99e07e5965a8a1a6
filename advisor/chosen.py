"""The settings of `tunewise train`: what the flags give, the rest chosen from rows and model, with the reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from advisor.bounds import asked_for
from rag.errors import BadInput
from runners.chat import Chat
from runners.defaults import choose, params_of
from runners.example import Example
from runners.tuning import TrainConfig

if TYPE_CHECKING:
    from runners.models import Model


def settle(
    rows: Sequence[Example],
    valid: Sequence[Example],
    distinct: int,
    base: Model,
    method: str,
    flags: Mapping[str, Any],
) -> tuple[TrainConfig, dict[str, str]]:
    """Return the settings of a run, and why each is as it is; flags that are not None win.

    ``distinct`` is the number of rows without repeats; the flags have passed :func:`advisor.bounds.refuse`.
    """
    given = asked_for(flags)
    chat = Chat(base.folder)
    lengths = sizes(rows, chat)
    longest = max((*lengths, *sizes(valid, chat)), default=0)
    chosen = choose(
        method, rows=distinct, params_b=params_of(base.folder), longest=longest, tokens=sum(lengths),
        variant=given.get("variant", "lora"), rank=given.get("rank"), epochs=given.get("epochs"),
    )  # fmt: skip
    reasons = {name: reason for name, reason in chosen.reasons.items() if name not in given}
    asked = {name: f"{_plain(value)} because you said so" for name, value in given.items()}
    return chosen.config(**given), {**asked, **reasons}


def sizes(rows: Sequence[Example], chat: Chat) -> list[int]:
    """Return the tokens of each chat; raw text, which is packed into pieces of any length, is left out."""
    found = []
    for row in rows:
        if row.raw:
            continue
        try:
            found.append(chat.count(chat.render(row.messages, tools=row.tools)))
        except BadInput:
            continue  # the preflight tells it, with the row
    return found


def _plain(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)
