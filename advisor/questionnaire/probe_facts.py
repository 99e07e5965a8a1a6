"""What a probe of the base model measured, carried with the answers: shares and a mean, never asked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from rag.errors import BadInput

PROBE_FACTS = "probe"
"""Key of the measured values among the answers of an answers file and of a plan; it is no question."""

STANDARD_ERRORS = 1.96
"""Half the width of a 95 % interval of a difference, in standard errors."""


@dataclass(frozen=True, slots=True)
class ProbeShare:
    """A counted share.

    Attributes:
        right: number of cases that count.
        n: number of all cases, at least 1.
    """

    right: int
    n: int

    @property
    def rate(self) -> float:
        """The share, 0 to 1."""
        return self.right / self.n


@dataclass(frozen=True, slots=True)
class ProbeFacts:
    """Measured values of a probe; None where something was not measured.

    The replies are those of the plan's own base model, by prompting alone; a stand-in model gives none of them but
    ``classifier``.

    Attributes:
        closed_book: dev questions answered right from memory.
        open_book: right with the supporting passage in the prompt, on the same questions.
        retrieved: right with what the index returns, on the same questions; an upper bound where only a part of the
            documents was indexed.
        style: replies without passages that meet every style check of the plan.
        passes: replies without passages that are right and in style, as far as each can be judged.
        few_shot: replies that are right and in style, with examples in the prompt, to those questions of ``passes`` that
            were asked again; compare it with ``passes``.
        classifier: training examples whose label a linear classifier over embeddings gives in cross-validation.
        reply_f1: mean token F1, 0 to 1, of the replies without passages against the wanted replies.
    """

    closed_book: ProbeShare | None = None
    open_book: ProbeShare | None = None
    retrieved: ProbeShare | None = None
    style: ProbeShare | None = None
    passes: ProbeShare | None = None
    few_shot: ProbeShare | None = None
    classifier: ProbeShare | None = None
    reply_f1: float | None = None

    @property
    def examples_help(self) -> bool:
        """Whether surely more replies pass with examples in the prompt than without: the 95 % interval is above 0.

        The interval of Agresti and Caffo (The American Statistician 54, 2000), which adds one pass and one failure to each
        side, so that no failure at all, or no pass, is not taken for certain. That the questions are the same is not used.
        """
        if self.passes is None or self.few_shot is None:
            return False
        with_examples, without = (
            ProbeShare(share.right + 1, share.n + 2) for share in (self.few_shot, self.passes)
        )
        variance = sum(share.rate * (1 - share.rate) / share.n for share in (with_examples, without))
        return with_examples.rate - without.rate > STANDARD_ERRORS * math.sqrt(variance)

    def to_json(self) -> dict[str, Any]:
        """Return what was measured as JSON values: ``{"right": ..., "n": ...}`` for each share."""
        values: dict[str, Any] = {}
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if isinstance(value, ProbeShare):
                values[name] = {"right": value.right, "n": value.n}
            elif value is not None:
                values[name] = value
        return values

    @classmethod
    def of_json(cls, value: Any) -> ProbeFacts:
        """Read what :meth:`to_json` returned; None is nothing measured.

        Raises:
            BadInput: naming the key that is unknown or holds no valid value.
        """
        if value is None:
            return cls()
        known = [field.name for field in fields(cls)]
        if not isinstance(value, Mapping) or not set(value) <= set(known):
            raise BadInput(
                f"{PROBE_FACTS} cannot be {value!r}",
                f"it is written by tunewise probe, with some of {', '.join(known)}",
            )
        shares = {name: _share(name, value[name]) for name in value if name != "reply_f1"}
        return cls(**shares, reply_f1=_mean_f1(value.get("reply_f1")))


def _mean_f1(value: Any) -> float | None:
    """Return a checked mean; None is not measured."""
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise BadInput(f"{PROBE_FACTS}: reply_f1 cannot be {value!r}", "a number from 0 to 1")


def _share(name: str, value: Any) -> ProbeShare:
    """Return a checked share."""
    if isinstance(value, Mapping) and set(value) == {"right", "n"}:
        right, n = value["right"], value["n"]
        if type(right) is int and type(n) is int and 0 <= right <= n and n:
            return ProbeShare(right, n)
    raise BadInput(
        f"{PROBE_FACTS}: {name} cannot be {value!r}",
        "right and n, whole numbers with 0 <= right <= n and n > 0",
    )
