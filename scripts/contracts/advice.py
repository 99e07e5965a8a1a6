"""The part ``advice`` of the contract check: the advice on published cases, and plans drafted for some forty
situations.

Every case of benchmarks/ and of the shared folder gives four values: the choice, the ranking with its scores, what
blocks which method, and each single change of an answer that would change the choice. Every situation is an answers
file beside small example files, from which ``tunewise plan`` prints its JSON and writes plan.yaml, in a temporary
folder, with an empty home. The answers describe the machine, so that the one it runs on does not count; the day does
not count either.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from scripts.contracts.common import ROOT, Program, shared_folder, write_rows

PART = "advice"
CASES = ("benchmarks/blind/*.json", "benchmarks/unseen/*.json")
SHARED_CASES = "cases/decision_*.json"
Rows = list[dict[str, Any]]


def observe() -> dict[str, Any]:
    """Return the values of all cases and situations by key."""
    values: dict[str, Any] = {}
    for pattern in CASES:
        for path in sorted(ROOT.glob(pattern)):
            values |= case_values(path, f"{PART}/case/{path.parent.name}-{path.stem}")
    shared = shared_folder()
    for path in sorted(shared.glob(SHARED_CASES)) if shared else ():
        values |= case_values(path, f"{PART}/shared/{path.stem}")
    with Program() as program:
        write_files(program.folder / "files")
        for name, answers in SITUATIONS.items():
            values |= situation_values(program, name, answers)
    return values


def case_values(path: Path, prefix: str) -> dict[str, Any]:
    """Return the advice on each case of a file, and the counts that ``eval-advice`` prints; nothing for other files."""
    from advisor.recommendation.recommend import recommend_for_profile
    from benchmarks.scorers.advice_cases import cases_json, read_cases, score_cases

    rows = json.loads(path.read_text("utf-8"))
    if not isinstance(rows, dict) or not all("answers" in row for row in rows.get("cases", [{}])):
        return {}
    cases = read_cases(path)
    counts = cases_json(score_cases(cases))
    values: dict[str, Any] = {
        f"{prefix}/counts": {
            key: counts[key] for key in ("n", "accepted", "exact", "of_compared", "compared")
        },
        f"{prefix}/baselines": counts["baselines"],
    }
    for case in cases:
        advice = recommend_for_profile(case.profile).to_json()
        key = f"{prefix}/{case.id}"
        values[f"{key}/choice"] = f"{advice['choice']} {advice['confidence']} {advice['probability']}"
        values[f"{key}/ranking"] = [[row["method"], row["score"]] for row in advice["ranked"]]
        values[f"{key}/blockers"] = blockers(advice)
        values[f"{key}/flips"] = flips(advice)
    return values


def blockers(advice: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return for each method that is blocked the rules and sentences that block it."""
    return {
        row["method"]: [f"{each['rule']}: {each['text']}" for each in row["blockers"]]
        for row in advice["ranked"]
        if row["blockers"]
    }


def flips(advice: Mapping[str, Any]) -> list[list[Any]]:
    """Return the changes of an answer that change the choice: key, value, new choice, and whether it is plausible."""
    return [[flip[key] for key in ("key", "to", "choice_becomes", "plausible")] for flip in advice["flips"]]


def situation_values(program: Program, name: str, answers: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``tunewise plan`` prints as JSON, by its keys, and the plan that it writes, by its keys and steps."""
    folder = program.folder / name
    folder.mkdir()
    flags = answers.get("flags", ())
    (folder / "answers.yaml").write_text(
        yaml.safe_dump({key: value for key, value in answers.items() if key != "flags"}), "utf-8"
    )
    done = program.run("plan", "--yes", "--answers", "answers.yaml", *flags, "--json", cwd=folder)
    prefix = f"{PART}/plan/{name}"
    values: dict[str, Any] = {
        f"{prefix}/exit": done.code,
        f"{prefix}/notes": without_day(done.err.splitlines()),
    }
    if not done.out:
        return values
    printed = without_day(json.loads(done.out))
    values |= {f"{prefix}/json/{key}": value for key, value in printed.items() if value not in (None, [], {})}
    if "ranked" in printed:
        values[f"{prefix}/json/ranking"] = [[row["method"], row.get("score")] for row in printed["ranked"]]
    plan = folder / "plan.yaml"
    if plan.is_file():
        values |= plan_values(yaml.safe_load(program.plain(plan.read_text("utf-8"))), f"{prefix}/yaml")
        values[f"{prefix}/files"] = sorted(each.name for each in folder.iterdir())
    return values


def plan_values(plan: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return a plan by its keys; each step, and the list of their kinds and arms, for itself."""
    plan = dict(without_day(plan))
    steps = plan.pop("steps", [])
    values = {f"{prefix}/{key}": value for key, value in plan.items()}
    values[f"{prefix}/steps"] = [f"{step['kind']} {step.get('arm', '')}".strip() for step in steps]
    for step in steps:
        values[f"{prefix}/step/{step['kind']}-{step.get('arm', '')}".rstrip("-")] = step
    return values


def without_day(value: Any) -> Any:
    """Return JSON values in which the day of today, and how many days ago prices were read, do not count."""
    if isinstance(value, Mapping):
        return {key: without_day(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_day(each) for each in value if not str(each).startswith("prices are ")]
    if isinstance(value, date):
        value = value.isoformat()
    if not isinstance(value, str):
        return value
    return re.sub(r",? \(?(these are )?\d+ days old\)?", "", value.replace(date.today().isoformat(), "TODAY"))


def _row(question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"prompt": question, "completion": answer, **more}


def _question(number: int, question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"id": f"q{number:02}", "question": question, "answers": [answer], **more}


TOPICS = ("invoice", "delivery", "password", "refund", "opening", "ferry", "cabin", "bicycle")
LABELS = {"invoice": "billing", "refund": "billing", "delivery": "shipping", "password": "account"}


def write_files(folder: Path) -> None:
    """Write the documents, examples and questions that the situations name."""
    for name in ("piers", "anleger"):
        (folder / name).mkdir(parents=True)
    for n in range(12):
        english = (
            f"# Pier {n}\n\nPier {n} has {n + 3} berths. The ferry leaves it at {n % 12 + 6}:40 every day.\n"
        )
        german = f"# Anleger {n}\n\nDer Anleger {n} hat {n + 3} Plätze. Die Fähre fährt dort täglich um {n % 12 + 6} Uhr ab.\n"
        (folder / "piers" / f"pier{n}.md").write_text(english, "utf-8")
        (folder / "anleger" / f"anleger{n}.md").write_text(german, "utf-8")
    write_rows(
        folder / "archive.jsonl",
        [
            {
                "id": f"note{n}",
                "text": f"Note {n}. " + f"Cabin {n} was booked for {n % 30 + 1} nights. " * 120,
            }
            for n in range(250)
        ],
    )
    for name, rows in _example_rows().items():
        write_rows(folder / f"{name}.jsonl", rows)
    for name, rows in _question_rows().items():
        write_rows(folder / f"{name}_questions.jsonl", rows)
    (folder / "prompt.txt").write_text("Answer in one statement, then offer help in one question.\n", "utf-8")
    (folder / "log.txt").write_text("".join(f"berths at pier {n} pls??\n" for n in range(40)), "utf-8")


def _example_rows() -> dict[str, Rows]:
    """Return the examples by the name of their file."""
    style = [
        _row(
            f"When does boat {n} sail?",
            f"Boat {n} sails at {n % 12 + 1} o'clock. May I book it?",
            doc_id=f"pier{n % 12}.md",
        )
        for n in range(70)
    ]
    labels = [
        _row(f"Message {n}: my {topic} is late again, please help", LABELS.get(topic, "other"))
        for n in range(20)
        for topic in TOPICS
    ]
    forms = [
        _row(
            f"Read the order: {n + 1} tickets for pier {n % 12} on day {n % 28 + 1}",
            json.dumps({"tickets": n + 1, "pier": n % 12, "day": n % 28 + 1, "paid": n % 2 == 0}),
        )
        for n in range(90)
    ]
    german = [
        _row(
            f"Wann fährt die Fähre am Anleger {n}?",
            f"Die Fähre am Anleger {n} fährt um {n % 12 + 6} Uhr. Soll ich buchen?",
        )
        for n in range(60)
    ]
    raw = [{"text": f"Entry {n} of the harbour book: the tide was {n % 9} feet. " * 20} for n in range(40)]
    return {
        "style": style,
        "few": style[:7],
        "labels": labels,
        "json": forms,
        "german": german,
        "raw": raw,
        "stored": [_row(f"How do I pay, case {n}?", f"Pay at desk {n % 4}.") for n in range(60)],
        "columns": [{"frage": row["prompt"], "antwort": row["completion"]} for row in style],
    }


def _question_rows() -> dict[str, Rows]:
    """Return test questions by the first word of the name of their file."""
    return {
        "facts": [
            _question(n, f"How many berths does pier {n % 12} have, form {n}?", str(n % 12 + 3), doc_id=f"pier{n % 12}.md")
            for n in range(60)
        ],
        "style": [
            _question(n, f"When does boat {n + 200} sail?", f"At {n % 12 + 1} o'clock. May I book it?")
            for n in range(48)
        ],
        "labels": [
            _question(n, f"Test {n}: where is the {TOPICS[n % 8]} that I asked for?", LABELS.get(TOPICS[n % 8], "other"))
            for n in range(64)
        ],
        "json": [
            _question(
                n,
                f"Read the order: {n + 300} tickets for pier {n % 12} on day {n % 28 + 1}",
                json.dumps({"tickets": n + 300, "pier": n % 12, "day": n % 28 + 1, "paid": n % 2 == 0}),
            )
            for n in range(50)
        ],
        "german": [
            _question(n, f"Wie viele Plätze hat der Anleger {n % 12}, Form {n}?", str(n % 12 + 3)) for n in range(50)
        ],
    }  # fmt: skip


SMALL, LARGE, CLOUD = (
    "smollm2-135m-instruct",
    "qwen2.5-7b-instruct",
    "openai:gpt-4o-mini@https://api.openai.com/v1",
)
HERE = {"disk_gib": 500, "cpu_cores": 8, "ram_gib": 16, "data_must_stay_local": True}
MACHINES: dict[str, dict[str, Any]] = {
    "laptop": {**HERE, "runs_on": "here", "model": SMALL, "gpu_kind": "none", "gpu_count": 0, "gpu_memory_gib": 0},
    "one_gpu": {**HERE, "runs_on": "other", "model": LARGE, "gpu_kind": "cuda", "gpu_count": 1, "gpu_memory_gib": 24, "ram_gib": 64},
    "eight_gpus": {**HERE, "runs_on": "other", "model": LARGE, "gpu_kind": "cuda", "gpu_count": 8, "gpu_memory_gib": 80, "ram_gib": 512},
    "hosted": {
        **HERE, "runs_on": "provider", "model": CLOUD, "data_must_stay_local": False, "hosted_api_allowed": True,
        "gpu_kind": "none", "gpu_count": 0, "gpu_memory_gib": 0,
    },
}  # fmt: skip
"""What is said of the machine, so that the one this runs on does not count."""
_FILES = "../files"
_FACTS = {
    "documents": f"{_FILES}/piers", "questions": f"{_FILES}/facts_questions.jsonl", "task_needs_facts": "new",
    "facts_change": "slow", "must_cite": True,
}  # fmt: skip
_STYLE = {
    "examples": f"{_FILES}/style.jsonl", "questions": f"{_FILES}/style_questions.jsonl", "prompt": f"{_FILES}/prompt.txt",
    "task_needs_facts": "none", "behaviour_gap": "high", "output_format": "free",
}  # fmt: skip
_LABELS = {
    "examples": f"{_FILES}/labels.jsonl", "questions": f"{_FILES}/labels_questions.jsonl", "task_needs_facts": "none",
    "behaviour_gap": "low", "output_format": "labels",
}  # fmt: skip
_JSON = {
    "examples": f"{_FILES}/json.jsonl", "questions": f"{_FILES}/json_questions.jsonl", "task_needs_facts": "none",
    "behaviour_gap": "high", "output_format": "json",
}  # fmt: skip
_BOTH = {
    **_FACTS,
    "examples": f"{_FILES}/style.jsonl",
    "prompt": f"{_FILES}/prompt.txt",
    "behaviour_gap": "high",
}
_GERMAN = {
    **_FACTS, "documents": f"{_FILES}/anleger", "questions": f"{_FILES}/german_questions.jsonl",
    "examples": f"{_FILES}/german.jsonl", "behaviour_gap": "low",
}  # fmt: skip
_NOTHING = {
    "goal": "Answer guests",
    "task_needs_facts": "known",
    "behaviour_gap": "low",
    "labelled_examples": 30,
}
TASKS: dict[str, dict[str, Any]] = {
    "facts": _FACTS, "style": _STYLE, "labels": _LABELS, "json": _JSON, "both": _BOTH, "german": _GERMAN, "answers_only": _NOTHING,
}  # fmt: skip
_ALIASES = {"small": SMALL, "big": LARGE, "cloud": CLOUD}
_THREE = {
    **{key: value for key, value in MACHINES["one_gpu"].items() if key != "model"}, "models": _ALIASES,
    "data_must_stay_local": False, "hosted_api_allowed": True,
}  # fmt: skip
_ON_LAPTOP, _ON_GPU = MACHINES["laptop"], MACHINES["one_gpu"]
SITUATIONS: dict[str, dict[str, Any]] = {
    **{f"{task}_{where}": {**what, **machine} for task, what in TASKS.items() for where, machine in MACHINES.items()},
    "both_three_models": {**_BOTH, **_THREE, "minutes": 60, "usd": 2.5},
    "labels_three_models": {**_LABELS, **_THREE},
    "json_three_models": {**_JSON, **_THREE, "minutes": 5},
    "facts_log": {**_FACTS, **_ON_LAPTOP, "flags": ("--wordings", f"{_FILES}/log.txt")},
    "facts_expensive": {**_FACTS, **_ON_GPU, "wrong_answer_cost": "high", "usable_from": 0.9, "question_kind": "several"},
    "facts_large": {**_FACTS, **_ON_GPU, "documents": f"{_FILES}/archive.jsonl", "questions": None, "calls_per_month": 200_000},
    "facts_tools": {**_FACTS, **MACHINES["hosted"], "question_kind": "several", "model_calls_tools": True},
    "both_retriever": {**_BOTH, **_ON_LAPTOP, "flags": ("--tune-retriever",)},
    "style_few": {**_STYLE, **_ON_LAPTOP, "examples": f"{_FILES}/few.jsonl"},
    "style_columns": {**_STYLE, **_ON_GPU, "examples": f"{_FILES}/columns.jsonl", "columns": "prompt=frage,reply=antwort"},
    "style_good_prompt": {**_STYLE, **_ON_LAPTOP, "prompting_pass_rate": 0.9, "budget_usd": 10, "latency_p95_ms": 300},
    "replies_stored": {**_STYLE, **_ON_LAPTOP, "examples": f"{_FILES}/stored.jsonl", "replies_verbatim": True},
    "raw_text": {**_NOTHING, **MACHINES["eight_gpus"], "examples": f"{_FILES}/raw.jsonl", "unlabelled_tokens": 5_000_000_000},
}  # fmt: skip
"""The answers of each situation; ``flags`` are words of the command line."""
