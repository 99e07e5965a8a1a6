"""A recommendation as a notebook shows it."""

from __future__ import annotations

from advisor.engine import Recommendation
from runners.notebook import bullets, paragraph, table

MOST = 5
"""Reasons, flips and notes shown; ``to_json`` has them all."""


def recommendation(rec: Recommendation) -> str:
    """Return choice and why, what speaks against it, what would flip it, and all methods; all of it escaped."""
    first = rec.ranking.methods[0]
    parts = [paragraph(f"{rec.choice}, confidence {rec.confidence.level} ({rec.confidence.because})")]
    parts.append(bullets(_named([(f.text, f.rule.code()) for f in rec.reasons(first)])))
    if against := rec.against(first):
        parts.append(paragraph(f"Against it: {against.text} ({against.rule.code()})"))
    if rec.flips:
        parts += [paragraph("It would be"), bullets([flip["text"] for flip in rec.flips[:MOST]])]
    rows = []
    for scored in rec.ranking.methods:
        blocked = scored.blockers[0].text if scored.blockers else ""
        memory = rec.estimates[scored.method.name].to_json()["memory_gib"]
        likely = f"{memory['likely']:.1f} GiB" if memory else "–"
        rows.append((scored.method.name, "blocked" if blocked else f"{scored.score:.2f}", likely, blocked))
    parts.append(table(("method", "fit for this", "memory", "blocked by"), rows))
    return f"<div>{''.join(parts)}</div>"


def _named(found: list[tuple[str, str]]) -> list[str]:
    shown = [f"{text} ({code})" for text, code in found[:MOST]]
    left = len(found) - len(shown)
    return [*shown, f"and {left} more"] if left > 0 else shown
