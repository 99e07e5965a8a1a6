"""The part ``judged`` of the contract check: report, verdict, costs, causes and recheck of finished runs of every
kind.

The runs are made by the program with a scripted model (:mod:`scripts.contracts.world`), so that their answers never
change, and judged anew by ``report``, ``why`` and ``recheck``. Numbers, codes, names and ids count; sentences and
times do not. Runs with trained weights are not among them: the tests alone hold several seeds, and an arm that
lost its rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.contracts.common import Program, write_rows
from scripts.contracts.world import (
    PRICES,
    REFUSAL,
    ScriptedModel,
    as_questions,
    carry_out,
    form_rows,
    label_rows,
    plan_of,
    question_rows,
    scripted_model,
    share,
    write_harbour,
)

PART = "judged"
PROMPTING: dict[str, Any] = {"arm": "prompting"}
FEW_SHOT: dict[str, Any] = {"arm": "few-shot", "shots": 2, "budget": 0}
RAG: dict[str, Any] = {"arm": "rag", "retrieval": True, "budget": 0}
RAG_FEW: dict[str, Any] = {"arm": "rag-few-shot", "retrieval": True, "shots": 2, "budget": 0}
TIMES = re.compile(
    r"second|minute|hour|_ms|ms_|time|busy|memory|gib|environment|measured|machine|wall|speed|answering|training$|"
    r"p95|digest|sha|version|started|seed_of|path|plan$|files|command"
)
"""Keys whose values depend on the machine, the day or the place."""
IN_SECONDS = {"classifier", "nearest", "router"}
"""Kinds with an arm that costs no money: their arms are compared by seconds, which are left out."""


def flat(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the numbers, codes, names and ids of JSON values by their place."""
    if isinstance(value, Mapping):
        if value.get("in_usd") is False:
            return
        for key, each in value.items():
            if not TIMES.search(str(key)):
                yield from flat(each, f"{prefix}/{key}")
    elif isinstance(value, list):
        if value and all(isinstance(each, int | float | bool) for each in value):
            yield prefix, value
            return
        for n, each in enumerate(value):
            name = (
                each.get("arm") or each.get("id") or each.get("cause") or n
                if isinstance(each, Mapping)
                else n
            )
            yield from flat(each, f"{prefix}/{name}")
    elif not isinstance(value, str) or (len(value) <= 60 and len(value.split()) <= 2):
        yield prefix, value


@dataclass
class Harbour:
    """Where the runs of this part are made."""

    program: Program
    model: ScriptedModel
    files: Path

    def rows(self, name: str, rows: list[dict[str, Any]]) -> Path:
        """Write a file of questions."""
        return write_rows(self.files / f"{name}.jsonl", rows)

    def plan(self, questions: Path, *arms: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """Return a plan."""
        return plan_of(self.model, self.files, questions, list(arms), **changes)

    def alias(self, name: str, **more: Any) -> dict[str, Any]:
        """Return the model of a plan."""
        return {"name": f"openai:{name}@{self.model.url}", "at_once": 1, **PRICES, **more}


Make = Callable[[Harbour], tuple[dict[str, Any], tuple[str, ...]]]


def _facts(count: int = 48, *arms: dict[str, Any], **changes: Any) -> Make:
    def make(harbour: Harbour) -> tuple[dict[str, Any], tuple[str, ...]]:
        rows = question_rows(count, **changes.get("row", {}))
        name = f"facts{count}-{share(sorted(changes)):.6f}"
        return harbour.plan(
            harbour.rows(name, rows),
            *(arms or (PROMPTING, RAG)),
            **{key: v for key, v in changes.items() if key != "row"},
        ), ()

    return make


def _labels(*arms: dict[str, Any], **changes: Any) -> Make:
    def make(harbour: Harbour) -> tuple[dict[str, Any], tuple[str, ...]]:
        questions = harbour.rows("label_questions", as_questions(label_rows(64, 200)))
        labels = sorted({row["completion"] for row in label_rows(8)})
        given = {
            "data": {"examples": str(harbour.files / "labels.jsonl"), "near_repeats": "leave_out"},
            "checks": [{"kind": "labels", "value": labels}],
            "prompts": {"system": "Reply with one label."},
            "weights": {"exact_match": 1},
        }
        return harbour.plan(questions, *(arms or (PROMPTING, FEW_SHOT)), **given, **changes), ()

    return make


def _forms(harbour: Harbour) -> tuple[dict[str, Any], tuple[str, ...]]:
    questions = harbour.rows("form_questions", as_questions(form_rows(48, 300)))
    schema = {
        "type": "object",
        "properties": {"tickets": {"type": "integer"}, "pier": {"type": "integer"}},
        "required": ["tickets"],
    }
    data = {"examples": str(harbour.files / "forms.jsonl"), "near_repeats": "leave_out"}
    checks = [{"kind": "json_schema", "value": schema}]
    return harbour.plan(
        questions,
        PROMPTING,
        FEW_SHOT,
        data=data,
        checks=checks,
        prompts={"system": "Reply with JSON."},
        weights={"valid_json": 1, "slot_f1": 1},
    ), ()


def _wordings(harbour: Harbour) -> tuple[dict[str, Any], tuple[str, ...]]:
    rows = [
        {**row, "wordings": [f"{row['question']} pls", f"tell me: {row['question']}"]} if n % 2 else row
        for n, row in enumerate(question_rows(30))
    ]
    return harbour.plan(harbour.rows("wordings", rows), PROMPTING, RAG), ()


def _weights(harbour: Harbour) -> tuple[dict[str, Any], tuple[str, ...]]:
    rows = [{**row, "weight": 1 + n % 7} for n, row in enumerate(question_rows(44))]
    return harbour.plan(harbour.rows("weights", rows), PROMPTING, RAG), ()


def _made(harbour: Harbour) -> tuple[dict[str, Any], tuple[str, ...]]:
    rows = [{**row, "meta": {"made": n % 3 == 0}} for n, row in enumerate(question_rows(44))]
    return harbour.plan(harbour.rows("made", rows), PROMPTING, RAG), ()


def _models(harbour: Harbour) -> tuple[dict[str, Any], tuple[str, ...]]:
    models = {
        "small": harbour.alias("weak", usd_per_million_input=0.1, usd_per_million_output=0.4),
        "big": harbour.alias("dear", usd_per_million_input=5.0, usd_per_million_output=15.0),
    }
    arms = [
        {"arm": f"{method}@{alias}", "retrieval": method == "rag"}
        for method in ("prompting", "rag")
        for alias in models
    ]
    plan = harbour.plan(
        harbour.rows("models", question_rows(40)), *arms, models=models, model=None, choice="rag@big"
    )
    return {key: value for key, value in plan.items() if value is not None}, ()


def _three_models(harbour: Harbour) -> tuple[dict[str, Any], tuple[str, ...]]:
    plan, flags = _models(harbour)
    plan["models"]["third"] = harbour.alias("teacher")
    plan["steps"].append({"kind": "evaluate", "arm": "rag@third", "retrieval": True})
    return plan, flags


def _capped(harbour: Harbour) -> tuple[dict[str, Any], tuple[str, ...]]:
    plan, flags = _models(harbour)
    return {**plan, "most_usd": 0.02}, flags


def _teacher(harbour: Harbour) -> tuple[dict[str, Any], tuple[str, ...]]:
    return harbour.plan(
        harbour.rows("teacher", question_rows(40)), PROMPTING, RAG, teacher=harbour.alias("teacher")
    ), ()


def _judge(harbour: Harbour) -> tuple[dict[str, Any], tuple[str, ...]]:
    judge = {"name": f"openai:judge@{harbour.model.url}", "counts": True}
    data = {"dev_share": 0.1}
    return harbour.plan(harbour.rows("judge", question_rows(44)), PROMPTING, RAG, judge=judge, data=data), ()


def _router(harbour: Harbour) -> tuple[dict[str, Any], tuple[str, ...]]:
    classifier = {"arm": "classifier", "classifier": True}
    route = {"arm": "router", "route": {"first": "classifier", "otherwise": "few-shot"}}
    return _labels(PROMPTING, FEW_SHOT, classifier, route)(harbour)


def _nearest(harbour: Harbour) -> tuple[dict[str, Any], tuple[str, ...]]:
    plan, flags = _labels(PROMPTING, {"arm": "nearest-reply", "nearest_reply": True})(harbour)
    return {**plan, "checks": []}, flags


def _quick(harbour: Harbour) -> tuple[dict[str, Any], tuple[str, ...]]:
    return _facts()(harbour)[0], ("--quick",)


def _all_passages(harbour: Harbour) -> tuple[dict[str, Any], tuple[str, ...]]:
    arm = {"arm": "long-context", "retrieval": True, "passages": "all"}
    return harbour.plan(
        harbour.rows("all", question_rows(30)), RAG, arm, name="all", choice="rag", max_new_tokens=24
    ), ()


KINDS: dict[str, Make] = {
    "confirmed": _facts(40, PROMPTING, RAG, gate={"must_beat": ["prompting"]}),
    "overturned": _facts(40, RAG, PROMPTING, gate={"must_beat": ["rag"]}),
    "few-questions": _facts(20, RAG_FEW, RAG, data={"examples": ""}, gate={"must_beat": ["rag-few-shot"]}),
    "refusals": _facts(40, PROMPTING, RAG, refusal={"gate": "fitted", "check": "refuse"}),
    "no-gate": _facts(40, PROMPTING, RAG, refusal={"gate": "off", "check": "mark"}),
    "cheapest": _facts(
        40,
        RAG_FEW,
        RAG,
        data={"examples": ""},
        gate={"must_beat": ["rag-few-shot"], "prefer": "cheapest", "not_worse_by": 0.2},
    ),
    "two-scores": _facts(40, PROMPTING, RAG, weights={"fact_recall": 2, "token_f1": 1}),
    "style-checks": _facts(40, PROMPTING, RAG, checks=[{"kind": "max_words", "value": 4, "text": "Short."}]),
    "undecided": _facts(40, PROMPTING, RAG),
    "labels": _labels(),
    "classifier": _labels(PROMPTING, {"arm": "classifier", "classifier": True}),
    "forms": _forms,
    "wordings": _wordings,
    "weights": _weights,
    "made": _made,
    "models": _models,
    "three-models": _three_models,
    "capped": _capped,
    "teacher": _teacher,
    "judge": _judge,
    "router": _router,
    "nearest": _nearest,
    "quick": _quick,
    "all-passages": _all_passages,
}
"""How the plan of each kind of run is made, and the flags it is run with."""
RECHECKED = {
    "confirmed": ("--documents", "changed", "--count-lost-gold"),
    "weights": ("--documents", "changed", "--count-lost-gold"),
    "labels": ("--prompt", "words.txt"),
}
"""Runs that are rechecked, with the change."""


def observe() -> dict[str, Any]:
    """Return the values of all runs by key."""
    values: dict[str, Any] = {}
    with Program(models=True) as program, scripted_model() as model:
        harbour = Harbour(program, model, program.folder / "files")
        write_harbour(harbour.files)
        (harbour.files / "words.txt").write_text("Answer in French.", "utf-8")
        for kind, make in KINDS.items():
            plan, flags = make(harbour)
            if plan["data"].get("examples") == "":
                plan["data"]["examples"] = str(harbour.files / "style.jsonl")
            if kind == "undecided":
                plan["model"] = harbour.alias("weak")
            for key, value in run_values(harbour, kind, plan, flags).items():
                values[f"{PART}/{kind}/{key}"] = value
    return values


def run_values(harbour: Harbour, kind: str, plan: dict[str, Any], flags: tuple[str, ...]) -> dict[str, Any]:
    """Run a plan, and return what is judged of it."""
    program = harbour.program
    run, code, err = carry_out(program, harbour.model, kind, plan, "--accept-lost-rows", *flags)
    values: dict[str, Any] = {"exit": code}
    if not (run / "report.json").is_file():
        return values | {"error": err.strip().splitlines()[-2:]}
    if kind in ("judge", "no-gate"):
        label(Path(plan["data"]["questions"]), run)
        values["labelled"] = 30
    for verb in ("report", "why"):
        done = program.run(verb, run, "--json")
        values[f"{verb}/exit"] = done.code
        values |= dict(flat(json.loads(done.out or "{}"), verb))
    if kind in RECHECKED:
        words = [str(harbour.files / word) if n == 1 else word for n, word in enumerate(RECHECKED[kind])]
        done = program.run(
            "recheck", run, *words, "--out", program.folder / f"{kind}-again", "--yes", "--json"
        )
        values["recheck/exit"] = done.code
        values |= dict(flat(json.loads(done.out or "{}"), "recheck"))
    if kind in IN_SECONDS:
        values = {key: value for key, value in values.items() if not re.search(r"cost_order|for_money", key)}
    return values


def label(questions: Path, run: Path) -> None:
    """Grade answers of the run as two people would who differ on one in ten."""
    from runners.labels.session import LabelSession

    with LabelSession.open(questions, run, "anna", all_pairs=True) as session:
        for _ in range(30):
            task = session.task()
            if task is None:
                return
            for side, answer in zip(("first", "second"), task.answers, strict=False):
                good = REFUSAL not in answer and share("anna", task.key, side) < 0.8
                session.grade(task.key, side, "right" if good else "wrong")  # type: ignore[arg-type]
