"""A finished run whose answers are planted, to be labelled: plan, log, answers, scores, report, questions; no model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.files import append_lines, write_json
from runners.plan.schema import parse_plan, write_plan
from runners.report.report_file import report_json
from runners.run_folder import EVENTS, INDEX, PLAN, REPORT, TRIAL
from tests.support.reports import report_from

RIGHT, WRONG, REFUSAL = (
    "It has {n} berths.",
    "It has {n}00 berths.",
    "I could not find that in our documents.",
)


@dataclass(frozen=True)
class PlantedRun:
    """A run folder and its file of questions."""

    run: Path
    questions: Path


def question_rows(count: int) -> list[dict[str, Any]]:
    """Return questions about piers, each with an answer of its own."""
    return [
        {"id": f"q{n:03}", "question": f"How many berths has pier {n}?", "answers": [f"{n} berths"]}
        for n in range(count)
    ]


def plant_run(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    arms: Mapping[str, Callable[[int], str]],
    *,
    documents: Path | None = None,
    encoder: Any = None,
    columns: Mapping[str, str] | None = None,
    **scores: Any,
) -> PlantedRun:
    """Write a finished run that asked these questions, the first arm being the recommended one.

    Args:
        folder: gets the folder ``run`` and ``questions.jsonl``.
        rows: the questions.
        arms: the answer of each arm by the number of the question; "rag" and "hybrid" are shown document ``pierN.md``.
        documents: the documents of the run, which then has an index.
        encoder: embeds them.
        columns: which column of a table is what, in the plan.
        scores: other keys of scores.json.
    """
    questions, run = folder / "questions.jsonl", folder / "run"
    folder.mkdir(parents=True, exist_ok=True)
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    first, *_ = arms
    plan = parse_plan(
        {
            "name": "piers",
            "choice": first,
            "model": {"name": "openai:none@http://127.0.0.1:9/v1"},
            "data": {
                "questions": str(questions),
                **({"documents": str(documents)} if documents else {}),
                **({"columns": dict(columns)} if columns else {}),
            },
            "steps": [
                *([{"kind": "index"}] if documents else []),
                *({"kind": "evaluate", "arm": arm, "retrieval": bool(documents)} for arm in arms),
            ],
            "weights": {"fact_recall": 1},
        }
    )
    run.mkdir(parents=True)
    write_plan(plan, run / PLAN)
    append_lines(
        run / EVENTS, [{"event": "run.start", "time": 1.0, "plan": plan.digest(), "at": str(folder)}]
    )
    if documents:
        from rag.index import Index

        Index.build(run / INDEX, documents, encoder)
    ids = [str(row.get("id", f"q{n}")) for n, row in enumerate(rows, 1)]
    asked = [
        _answer(arm, id, str(row["question"]), answer(n), n if documents else None)
        for arm, answer in arms.items()
        for n, (id, row) in enumerate(zip(ids, rows, strict=True))
    ]
    append_lines(run / TRIAL / "answers.jsonl", asked)
    right = {(row["arm"], row["id"]): float(row["answer"] == RIGHT.format(n=row["n"])) for row in asked}
    write_json(
        run / TRIAL / "scores.json",
        {
            "schema": 1,
            "arms": {arm: {id: {"combined": right[arm, id]} for id in ids} for arm in arms},
            **scores,
        },
    )
    pairs = [{"a": first, "b": arm, "difference": 0.1, "low": -0.1, "high": 0.3} for arm in list(arms)[1:]]
    report = report_from({"verdict": {"recommended": first, "use": first}, "paired": pairs})
    write_json(run / REPORT, report_json(report))
    return PlantedRun(run, questions)


def _answer(arm: str, id: str, question: str, text: str, document: int | None) -> dict[str, Any]:
    number = int("".join(filter(str.isdigit, question)) or 0)
    spans = [] if document is None else [{"doc": f"pier{document:02}.md", "start": 0, "end": 60}]
    return {
        "arm": arm,
        "seed": 0,
        "id": id,
        "n": number,
        "question": question,
        "answer": text,
        "marked": text,
        "refused": False,
        "citations": [],
        "context": spans,
        "prompt": [],
        "finish": "stop",
        "decision": {"refuse": False, "score": float(number % 7), "signals": {}},
    }
