"""The page of a report: what the template of `report.html` is given, every value escaped.

What to do after a verdict, as command lines with the reason for each.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from advisor.report import charts
from advisor.report.question_browser import browse_questions
from advisor.verdict import predictions
from runners.data.questions import Question
from runners.plan.schema import SCORES
from runners.run_folder import RunFolder


def next_steps(data: Mapping[str, Any], run: Path) -> list[tuple[str, str]]:
    """Return (command, why) pairs, the most useful first; commands name the run as it was named, or by its folder."""
    verdict = data["verdict"]
    named = shlex.quote(str(run if not run.is_absolute() else Path(run.name)))
    steps = [
        (f'tunewise ask {named} "your question"', f"asks {verdict['winner']}, the arm the verdict chose")
    ]
    other = shlex.quote(f"{named.strip(chr(39))}-more")
    more = verdict.get("more_questions_needed")
    if verdict["outcome"] == "undecided" or verdict["strength"] == "leaning":
        count = f"about {more} more" if more else "30 or more"
        steps += [
            (
                f"tunewise run {named}/plan.yaml --out {other}",
                f"after adding {count} test questions to the plan's data (and raising its max_test, where it has one)",
            ),
            (f"tunewise report {other} --compare {named}", "sets the two runs side by side"),
        ]
    if verdict["outcome"] == "overturned":
        steps.append((f"tunewise explain {named}/plan.yaml", f"why {verdict['recommended']} was recommended"))
    if verdict["strength"] == "proxy":
        steps.append(
            (f"tunewise run {named}/plan.yaml --out {other}", "on a machine that holds the plan's own model")
        )
    if any("retrieval" in str(step) or step == "index" for step in data["measured"].get("seconds", {})):
        steps.append(
            (
                f"tunewise index update {named}/index --documents PATH",
                "after the documents changed: answers follow at once, nothing is trained",
            ),
        )
    steps.append((f"tunewise chat {named}", "the same as a conversation; follow-ups are understood"))
    return steps


STRENGTH_TEXTS = {
    "measured": "on the plan's own model, with enough questions",
    "leaning": "fewer than 30 test questions, so it leans this way, no more",
    "proxy": "another model than the plan's stood in for it",
}

DATA_LABELS = {
    "plan": "plan (SHA-256)",
    "split": "split into dev and test",
    "base": "base model's fingerprint",
    "index_input": "what the index was made of",
    "seed": "seed of split and statistics",
    "longest_answer_tokens": "longest answer, tokens",
    "ram_gib": "RAM, GiB",
    "gpu": "GPU",
}


def render_page(data: dict[str, Any], run: RunFolder, questions: Sequence[Question] = ()) -> str:
    """The page: one file that loads nothing, its only style and script named in its policy by their hashes."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("advisor"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "track": charts.draw_interval,
        "seeds": charts.draw_seeds,
        "moved": charts.draw_change,
        "scale": charts.draw_scale,
        "words": _words,
        "took": _took,
    }
    style, script = _file("report.css"), _file("report.js")
    curves = _first(loss_curves(run), data["verdict"]["recommended"])
    break_even = data["predicted"].get("break_even") or {}
    measured_names = {name for arm in data["arms"] for name in arm["scores"]}
    names = [n for n in SCORES if n in measured_names] + sorted(measured_names - set(SCORES))
    guards = data["guards"]
    refusal = guards.get("refusal")
    return environment.get_template("report.html.j2").render(
        data=data,
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        questions=max((arm["n"] for arm in data["arms"]), default=0),
        strength=STRENGTH_TEXTS.get(data["verdict"]["strength"], ""),
        score_names=[n for n in names if data["weights"].get(n)],
        unweighed=[n for n in names if not data["weights"].get(n)],
        several=[arm for arm in data["arms"] if len(arm.get("seeds") or ()) > 1],
        best=next((a for a in data["arms"] if a["arm"] == data["verdict"]["winner"]), None),
        loss_chart=charts.loss_chart(curves, charts.smoothing_window(curves)) if curves else "",
        smoothed=charts.smoothing_window(curves),
        said=_unbroken(data["verdict"]["text"]),
        cost_chart=charts.cost_chart(break_even),
        break_even=break_even,
        refusal=refusal,
        refusal_chart=charts.refusal_chart(refusal) if refusal and refusal["curve"] else "",
        staleness=guards["staleness"],
        forgetting=_arms_of(guards.get("forgetting")),
        drift=_arms_of(guards.get("refusal_drift")),
        warnings=data.get("warnings") or [],
        reasons=_of_choice(data).get("reasons", []),
        counter=data["predicted"].get("strongest_against"),
        flips=data["predicted"].get("flips") or [],
        beside=predicted_beside_measured(data),
        memory=memory_rows(data),
        browsed=browse_questions(run.path, [arm["arm"] for arm in data["arms"]], questions),
        labels=DATA_LABELS,
        steps=next_steps(data, run.path),
        environment=data.get("environment") or {},
        source=data.get("data") or {},
    )


def loss_curves(run: RunFolder) -> dict[str, list[tuple[int, float]]]:
    """Loss by step for every training, and its validation losses beside it, from the events; a line for each seed.

    Of a step that was taken again, by a training that was cut off and gone on with, the last loss counts.
    """
    curves: dict[str, dict[int, float]] = {}
    for event in run.events():
        kind = event.get("event")
        if kind in ("train.step", "train.eval") and "loss" in event:
            name = str(event.get("arm", "train"))
            name += f" seed {event['seed']}" if event.get("seeds", 1) > 1 else ""
            name += f" {charts.VALIDATION_SERIES}" if kind == "train.eval" else ""
            curves.setdefault(name, {})[event["step"]] = event["loss"]
    return {name: sorted(points.items()) for name, points in curves.items()}


def predicted_beside_measured(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was predicted of each method beside what was measured: its rank and score, and its arm's score."""
    arms = {arm["arm"]: arm["score"] for arm in data["arms"]}
    return [
        {
            "method": row["method"],
            "predicted": row.get("score"),
            "measured": arms.get(row["method"]),
            "blocked": [b["text"] for b in row.get("blockers", [])],
        }
        for row in data["predicted"].get("ranked", [])
    ]


def memory_rows(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The memory estimated for the methods that were trained or chosen, and what training and the process took.

    Of a method that was trained, the estimate is the one for the settings of its run; else it is the plan's.
    """
    found = []
    trained = data["measured"].get("training") or {}
    room = (data.get("environment") or {}).get("ram_gib")
    for row in data["predicted"].get("ranked", []):
        name = row["method"]
        given = (row.get("estimate") or {}).get("memory_gib") or {}
        if "likely" not in given or not (name in trained or name == data["verdict"]["recommended"]):
            continue
        took = predictions.largest_memory([run for run in trained.get(name) or () if isinstance(run, dict)])
        plan = {"low": given["likely"], "high": given["likely"], **given}
        low, likely, high = took.expected_range or (plan["low"], plan["likely"], plan["high"])
        bar = charts.memory_bar(low, likely, high, took.own, room, took.peak)
        said = predictions.memory_lines(
            took, given["likely"], (row.get("estimate") or {}).get("assumptions") or ()
        )
        found.append(
            {
                "method": name,
                "low": low,
                "likely": likely,
                "high": high,
                "measured": took.own,
                "whole": took.whole,
                "by_plan": took.expected is None,
                "bar": bar,
                "said": said[-1] if len(said) > 1 else "",
            }
        )
    return found


def _arms_of(guard: Any) -> list[dict[str, Any]]:
    """A guard's rows, kept as a list, as {"arms": [row]} or as {arm: row}; none when it was not measured."""
    rows = guard.get("arms", guard) if isinstance(guard, Mapping) else guard
    if isinstance(rows, Mapping):
        return [{"arm": arm, **row} for arm, row in rows.items() if isinstance(row, Mapping)]
    return [dict(row) for row in rows or ()]


def _of_choice(data: Mapping[str, Any]) -> dict[str, Any]:
    ranked = data["predicted"].get("ranked", [])
    return next((r for r in ranked if r.get("method") == data["verdict"]["recommended"]), {})


def _file(name: str) -> str:
    return (resources.files("advisor") / "templates" / name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _first(curves: Mapping[str, Any], arm: str) -> dict[str, Any]:
    """The recommended arm's curve gets the first colour."""
    return dict(
        sorted(
            curves.items(),
            key=lambda item: (item[0].endswith(charts.VALIDATION_SERIES), item[0].split()[0] != arm),
        )
    )


def _unbroken(text: str) -> str:
    """A text whose intervals in brackets stay on one line."""
    return re.sub(r"\[[^\]]*\]", lambda match: match.group().replace(" ", "\u00a0"), text)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _took(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
