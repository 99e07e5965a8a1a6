"""Banks of examples for a few-shot prompt: the fixed one, a few others to try against it, the nearest per question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag.durable import sha256_text
from runners.data import Example, Question
from runners.plan import Plan
from runners.prompting import choose_shots

if TYPE_CHECKING:
    import numpy as np

    from rag.encoder import Encoder

FIXED = "fixed"
"""The name of what every other candidate must beat: the bank drawn by the seed, under the plan's instructions."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One prompt to try: instructions, and the examples below them in their order."""

    name: str
    system: str
    shots: tuple[Example, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as `trial/prompts.json` keeps it, so that the run can be asked without the examples' file."""
        shots = [{"question": shot.question, "reply": shot.reply, "line": shot.line} for shot in self.shots]
        return {"name": self.name, "system": self.system, "shots": shots}

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Candidate:
        """Return what :meth:`to_json` kept."""
        return cls(kept["name"], kept["system"], tuple(map(_shot, kept["shots"])))


def candidates(
    plan: Plan, examples: Sequence[Example], count: int, own: bool = False
) -> tuple[Candidate, ...]:
    """Return the prompts to try, the fixed one first: up to four banks under one or two instructions.

    The banks: the fixed one; the same in the opposite order, so that another example stands nearest to the question;
    others from documents that the fixed one does not show; others again, without a refusal. The instructions: the
    plan's, and the same with the plan's checks of style as a list of rules. With `own`, questions bring instructions
    of their own, so that there is nothing to vary.
    """
    asked = [row for row in examples if not row.raw]
    fixed = choose_shots(asked, count, plan.seed)
    used = {shot.meta.get("doc_id") for shot in fixed} - {None}
    rest = [row for row in asked if row not in fixed and row.meta.get("doc_id") not in used]
    plain = [row for row in rest if not row.refuses]
    banks = {
        FIXED: fixed,
        "reversed": fixed[::-1],
        "others": choose_shots(rest, count, plan.seed + 1),
        "no refusal": choose_shots(plain, count, plan.seed + 2),
    }
    found: dict[tuple[str, tuple[Example, ...]], Candidate] = {}
    for said, system in instructions(plan, own):
        for name, shots in banks.items():
            if len(shots) == len(fixed):
                known = ", ".join(filter(None, (name, said)))
                found.setdefault((system, _words(shots)), Candidate(known, system, shots))
    return tuple(found.values())


def instructions(plan: Plan, own: bool = False) -> tuple[tuple[str, str], ...]:
    """Return the instructions to try, with what is said of each: the plan's, then with its checks as rules."""
    rules = [check.text for check in plan.checks if check.text]
    system = plan.prompts.system
    if own or not rules:
        return (("", system),)
    listed = "Rules for every reply:\n" + "\n".join(f"- {rule}" for rule in rules)
    return (("", system), ("rules listed", f"{system}\n\n{listed}" if system else listed))


class Nearest:
    """The examples whose questions are nearest to a question by the embedder, the nearest last."""

    def __init__(self, examples: Sequence[Example], encoder: Encoder, count: int) -> None:
        """Embed the examples' questions once."""
        self._rows = sorted(
            (e for e in examples if not e.raw), key=lambda e: sha256_text(f"{e.question}\0{e.reply}")
        )
        self._encoder, self._count = encoder, count
        self._vectors: np.ndarray | None = (
            encoder.encode([e.question for e in self._rows]) if self._rows else None
        )

    def __call__(self, question: Question) -> tuple[Example, ...]:
        """Return the question's own examples."""
        if self._vectors is None:
            return ()
        near = self._vectors @ self._encoder.encode([question.question])[0]
        best = sorted(range(len(self._rows)), key=lambda n: (-round(float(near[n]), 6), n))[: self._count]
        return tuple(self._rows[n] for n in reversed(best))


def _words(shots: Sequence[Example]) -> Any:
    return tuple((shot.question, shot.reply) for shot in shots)


def _shot(kept: dict[str, Any]) -> Example:
    turns = ({"role": "user", "content": kept["question"]}, {"role": "assistant", "content": kept["reply"]})
    return Example(turns, {}, kept["line"])
