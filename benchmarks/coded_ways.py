"""Turn coded comparisons of ways of using documents into cases of `tunewise eval-advice`.

    python -m benchmarks.coded_ways CODED.jsonl --out cases.json [--leave-out ID]...
    tunewise eval-advice cases.json

A row of CODED.jsonl is one published comparison, coded without sight of the rules. The mapping looks at its fields alone:

- counted are rows with ``compares: methods`` and ``use: yes``; the others are left out and counted, as those of --leave-out
  are.
- ``winner``; of a tie the cheapest of ``accept``, else the fastest, else rag, else the first. All of ``accept`` are right.
- ``task_needs_facts: new`` and ``behaviour_gap: none``: all rows compare ways to facts, with plain models that write well.
- ``changes``: never is static, monthly is slow, daily is fast. ``document_tokens`` is ``corpus_tokens``; nothing is guessed
  from a number of documents. ``calls_per_day`` times 30. ``latency_matters: yes`` is a limit of 5 seconds.
- ``question_kind``: fact lookup is single, multi-hop is several, vague and counting are themselves, others are unknown.
- a hosted model is ``openai:NAME@https://hosted``, its name in lower case with hyphens; a local one its size.
  ``can_call_tools`` is ``model_calls_tools`` where it is true or false.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CHANGES = {"never": "static", "monthly": "slow", "daily": "fast"}
KINDS = {"fact lookup": "single", "multi-hop": "several", "vague": "vague", "counting": "counting"}
DAYS_PER_MONTH = 30
QUICK_MS = 5_000
"""Limit in milliseconds where time is what a source decides by."""


def left_out_because(row: Mapping[str, Any], named: Sequence[str]) -> str:
    """Return why a row is no case, "" where it is one; ``named`` are ids that are left out by hand."""
    if row["id"] in named:
        return "named by --leave-out"
    if row["compares"] != "methods":
        return f"compares {row['compares']}"
    return "" if row["use"] == "yes" else f"use: {row['use']}"


def eval_case(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the case of a row, by the mapping above."""
    accepted = list(row["accept"])
    decided = next((way for way in (row["cheaper"], row["faster"], "rag") if way in accepted), accepted[0])
    winner = decided if row["winner"] == "tie" else row["winner"]
    return {
        "id": row["id"],
        "source": row["source"],
        "answers": case_answers(row),
        "winner": winner,
        "also_acceptable": [way for way in accepted if way != winner],
        "test_use": "winner_or_also",
    }


def case_answers(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row says in the words of the questionnaire; None is unknown."""
    model, calls = row["model"], row["calls_per_day"]
    hosted = model["place"] == "hosted"
    name = re.sub(r"[^a-z0-9.]+", "-", model["name"].lower()).strip("-")
    tools = row["can_call_tools"]
    return {
        "task_needs_facts": "new",
        "behaviour_gap": "none",
        "facts_change": CHANGES.get(row["changes"]),
        "corpus_tokens": row["document_tokens"],
        "question_kind": KINDS.get(row["question_kind"]),
        "calls_per_month": None if calls is None else calls * DAYS_PER_MONTH,
        "latency_p95_ms": QUICK_MS if row["latency_matters"] in ("yes", True) else None,
        "model": f"openai:{name}@https://hosted" if hosted else None,
        "model_params_b": model["size_b"],
        "model_calls_tools": tools if isinstance(tools, bool) else None,
    }


def main() -> None:
    """Write the cases, and print how many rows became one and why the others did not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("coded", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--leave-out", action="append", default=[])
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.coded.read_text("utf-8").splitlines() if line.strip()]
    reasons = {row["id"]: left_out_because(row, given.leave_out) for row in rows}
    cases = [eval_case(row) for row in rows if not reasons[row["id"]]]
    given.out.write_text(json.dumps({"cases": cases}, indent=1) + "\n", "utf-8")
    left = Counter(reason for reason in reasons.values() if reason)
    why = "; ".join(f"{count} {reason}" for reason, count in left.items())
    print(f"{len(cases)} cases of {len(rows)} rows" + (f"; left out: {why}" if why else ""))


if __name__ == "__main__":
    main()
