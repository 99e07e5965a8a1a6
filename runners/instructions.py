"""Prompts whose instructions a program verifies, in the IFEval format: read, drawn, and replies checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.durable import sha256_text
from rag.errors import BadInput
from runners.rows import read_rows
from runners.verifiable import KINDS, follows

SHIPPED = Path(__file__).with_name("general") / "instructions.jsonl"
"""Forty prompts of our own that a short reply can follow."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt with the instructions that its reply must follow."""

    id: str
    text: str
    kinds: tuple[str, ...]
    values: tuple[Mapping[str, Any], ...]
    """The parameters of each instruction."""

    def followed(self, reply: str) -> bool:
        """Return whether a reply follows every instruction (IFEval's strict accuracy per prompt)."""
        return all(follows(reply, kind, v) for kind, v in zip(self.kinds, self.values, strict=True))


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompts of a file that can be verified, and what was left out."""

    prompts: tuple[Prompt, ...]
    unknown: Mapping[str, int]
    """Kinds that are not verified here, with how many prompts were left out for each."""
    left_out: int


def read(path: Path | None, most: int, seed: int) -> Prompts:
    """Return at most ``most`` prompts of a file (None: the shipped one), drawn by the seed.

    Rows are ``{"prompt", "instruction_id_list", "kwargs"}``, or a chat with these in its ``meta``. A prompt with an
    instruction of an unknown kind is left out and counted. Raises BadInput, naming the line, for a broken row.
    """
    known: list[Prompt] = []
    unknown: Counter[str] = Counter()
    left_out = 0
    for line, row in read_rows(path or SHIPPED):
        prompt = _prompt(row, f"{path or SHIPPED.name}:{line}", line)
        if strange := sorted(set(prompt.kinds) - KINDS.keys()):
            unknown.update(strange)
            left_out += 1
        else:
            known.append(prompt)
    if not known and path is not None:
        raise BadInput(
            f"{path} holds no prompt whose instructions can be verified", f"known kinds: {', '.join(KINDS)}"
        )
    drawn = sorted(known, key=lambda p: sha256_text(f"{seed}\0{p.id}\0{p.text}"))[:most]
    return Prompts(tuple(drawn), dict(unknown), left_out)


def _prompt(row: Mapping[str, Any], place: str, line: int) -> Prompt:
    meta = row.get("meta")
    told = {**row, **meta} if isinstance(meta, dict) else row
    turns = row.get("messages")
    try:
        text = row["prompt"] if isinstance(row.get("prompt"), str) else turns[-1]["content"]  # type: ignore[index]
        kinds, values = told["instruction_id_list"], told["kwargs"]
        if not kinds or len(kinds) != len(values) or not str(text).strip():
            raise ValueError("it needs a prompt, and as many kwargs as instructions")
        found = Prompt(
            str(told.get("key", line)), str(text), tuple(map(str, kinds)), tuple(map(dict, values))
        )
        for kind, given in zip(found.kinds, found.values, strict=True):
            if kind in KINDS:
                follows("a", kind, given)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadInput(f"{place}: not a row of verifiable instructions: {error!r}") from None
    return found
