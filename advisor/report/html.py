"""The HTML page of a report: :func:`render_page` fills the template ``report.html.j2``, which escapes every value.

Also the commands to suggest after a verdict (:func:`next_steps`) and the rows of the page's charts and tables.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.methods.arm_titles import arm_title
from advisor.report import charts, statements
from advisor.report.cost_plot import pairs_in_words
from advisor.report.dev_budget import dev_budget_line, lead_text
from advisor.report.learning_curve import curve_sections
from advisor.report.markdown import is_unplanned
from advisor.report.question_browser import arm_letters, browse_questions, example_answers, first_opened
from advisor.verdict import guards as guard_results
from advisor.verdict import predictions
from advisor.verdict.conclusion import duration_text, own_prompt, question_count
from advisor.verdict.made_questions import origin_note
from advisor.verdict.trial_forecast import FORECAST_COLUMNS, forecast_rows, forecast_sentence
from rag.text.words import count_noun
from runners.data.questions import Question
from runners.plan.schema import SCORES
from runners.run_folder import RunFolder

if TYPE_CHECKING:
    from jinja2 import Template

STRENGTH_TEXTS = {
    "measured": "on the plan's own model, with enough questions",
    "leaning": "fewer than 30 test questions, no firm result",
    "proxy": "not with the plan's own, so a hint only",
    "made": "all test questions come from the documents, so nothing is confirmed",
}
"""Explanation of the strength of a verdict."""

REFUSAL_COUNTS = ("correct_refusal", "false_refusal")
"""Scores that the page shows as counts beside the right answers."""

CLOSE = 0.05
"""A tuned arm this near to the best by the combined score may overtake it with more examples."""

DATA_LABELS = {
    "plan": "plan (SHA-256)",
    "split": "split into dev and test",
    "base": "base model's fingerprint",
    "index_input": "contents of the index (SHA-256)",
    "seed": "seed of split and statistics",
    "longest_answer_tokens": "longest answer, tokens",
    "how_asked": "how the models were asked",
    "reasoning": "reasoning before answers",
    "held_to_a_form": "answers constrained to a form",
    "ram_gib": "RAM, GiB",
    "gpu": "GPU",
}
"""Labels of keys of the data and environment tables; other keys are shown as they are."""


def next_steps(data: Mapping[str, Any], run: Path) -> list[tuple[str, str]]:
    """Return (command, reason) pairs, the most useful first.

    Commands name the run by the path as given, or by the name of its folder where that path is absolute.
    """
    verdict = data["verdict"]
    run_argument = shlex.quote(str(run if not run.is_absolute() else Path(run.name)))
    use = verdict["use"] if "use" in verdict else verdict["winner"]
    asked = use or data["arms"][0]["arm"]
    arm = f" --arm {asked}" if use is None else ""
    asks = "the arm to use" if use else "the best by its score; no arm is asked by default"
    steps = [(f'tunewise ask {run_argument}{arm} "your question"', f"asks {asked}, {asks}")]
    new_run = shlex.quote(f"{run_argument.strip(chr(39))}-more")
    if any(arm["arm"] == verdict["recommended"] and is_unplanned(arm) for arm in data["arms"]):
        steps.append(
            (
                f"tunewise run {run_argument}/plan.yaml --out {new_run}",
                f"after correcting the rows that {verdict['recommended']} was not trained on",
            )
        )
    elif data.get("full_run"):
        steps.insert(0, _full_run_step(data["full_run"]))
    elif verdict["strength"] == "made":
        steps.insert(
            0,
            (
                f"tunewise eval {run_argument} --questions FILE",
                "with questions that people asked: the verdict comes from generated questions so far",
            ),
        )
    elif verdict["outcome"] == "undecided" or verdict["strength"] == "leaning":
        steps += [
            (f"tunewise run {run_argument}/plan.yaml --out {new_run}", _more_questions_reason(data)),
            (f"tunewise report {new_run} --compare {run_argument}", "compares the two runs"),
        ]
    if verdict["outcome"] == "overturned":
        steps.append(
            (f"tunewise explain {run_argument}/plan.yaml", f"why {verdict['recommended']} was recommended")
        )
    if verdict["strength"] == "proxy":
        steps.append(
            (
                f"tunewise run {run_argument}/plan.yaml --out {new_run}",
                "on a machine that can run the plan's own model",
            )
        )
    steps += learning_curve_steps(data, run_argument)
    if any("retrieval" in str(step) or step == "index" for step in data["measured"].get("seconds", {})):
        steps.append(
            (
                f"tunewise index update {run_argument}/index --documents PATH",
                "after the documents changed: answers follow at once, nothing is trained",
            ),
        )
    steps.append(
        (f"tunewise chat {run_argument}{arm}", "the same as a conversation; follow-ups are understood")
    )
    return steps


def learning_curve_steps(data: Mapping[str, Any], run: str) -> list[tuple[str, str]]:
    """Return the step that measures a learning curve, where a tuned arm is used or scored nearly as well and has none."""
    tuned = set(data["measured"].get("training") or {})
    scores = {arm["arm"]: arm["score"]["mean"] for arm in data["arms"]}
    if not tuned & set(scores) or data.get("curves"):
        return []
    verdict = data["verdict"]
    use = verdict["use"] if "use" in verdict else verdict["winner"]
    best = max(sorted(tuned & set(scores)), key=lambda name: scores[name])
    close = scores[best] >= max(scores.values()) - CLOSE
    if not scores[best] or (use not in tuned and not close):
        return []
    arm = use if use in tuned else best
    why = f"trains {arm} on parts of the examples, and estimates whether more examples would help"
    return [(f"tunewise curve {run} --arm {arm}", why)]


def _full_run_step(full: Mapping[str, Any]) -> tuple[str, str]:
    """Return the step after a quick run: the full one, with its minutes where they are known."""
    minutes = full.get("minutes")
    about = f" (about {duration_text(60 * minutes)})" if minutes else ""
    return (
        full.get("command") or "tunewise run plan.yaml",
        f"the same plan in full, without --quick: this was a quick run{about}",
    )


def _more_questions_reason(data: Mapping[str, Any]) -> str:
    """Return what to do before a run that would decide: raise the plan's limit of test questions, or add some."""
    missing = data["verdict"].get("more_questions_needed")
    if limit := data.get("max_test"):
        return f"after raising max_test in the plan's data, which is {limit} now, and adding questions if there are no more"
    wanted = f"about {count_noun(missing, 'more test question')}" if missing else "30 or more test questions"
    return f"after adding {wanted} to the plan's data"


def render_page(data: dict[str, Any], run: RunFolder, questions: Sequence[Question] = ()) -> str:
    """Return the page: one file that loads nothing, with its only style and script allowed by their hashes.

    Args:
        data: content of report.json.
        run: the run folder.
        questions: the test questions with their gold, shown beside the answers.
    """
    style, script = _template_file("report.css"), _template_file("report.js")
    return _template().render(
        data=data,
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        labels=DATA_LABELS,
        steps=next_steps(data, run.path),
        environment=data.get("environment") or {},
        source=data.get("data") or {},
        **_summary_parts(data),
        **_score_parts(data),
        **_advice_and_cost_parts(data, run),
        **_guard_parts(data["guards"]),
        **_answer_parts(data, run.path, questions),
    )


def _summary_parts(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template needs for the top of the page."""
    used = statements.used_arm(data)
    headline, rest = _headline(statements.conclusion(data))
    return {
        "questions": question_count(data),
        "strength": STRENGTH_TEXTS.get(data["verdict"]["strength"], ""),
        "task": statements.task_line(data),
        "headline": headline,
        "conclusion": rest,
        "best": used,
        "use": used["arm"] if used else "",
        "tiles": compared_tiles(data),
        "arm_titles": {arm["arm"]: title for arm in data["arms"] if (title := arm_title(arm["arm"]))},
        "terms": statements.words_used(data),
        "verdict_text": _with_unbroken_intervals(data["verdict"]["text"]),
        "warnings": data.get("warnings") or [],
    }


def _score_parts(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template needs for the scores of the arms."""
    counted = any(arm.get("right") for arm in data["arms"])
    measured = {name for arm in data["arms"] for name in arm["scores"]} - {"right"}
    measured -= set(REFUSAL_COUNTS) if counted else set()
    names = [name for name in SCORES if name in measured] + sorted(measured - set(SCORES))
    return {
        "counted": counted,
        "with_made": any(arm.get("made") for arm in data["arms"]),
        "in_wordings": statements.wording_table(data),
        "made_note": origin_note(data.get("made_questions")),
        "score_names": [name for name in names if data["weights"].get(name)],
        "unweighed": [name for name in names if not data["weights"].get(name)],
        "several": [arm for arm in data["arms"] if len(arm.get("seeds") or ()) > 1],
        "timing": statements.timing_notes(data),
        "learning_curves": curve_sections(data.get("curves") or []),
        "dev_rows": [{**row, "lead": lead_text(row)} for row in data.get("dev_budget") or []],
        "dev_line": dev_budget_line(data),
        "score_rule": statements.combined_score_rule(data),
        "grading": statements.grading_weights(data),
    }


def _advice_and_cost_parts(data: Mapping[str, Any], run: RunFolder) -> dict[str, Any]:
    """Return what the template needs for the reasons of the advice, costs, memory and training."""
    recommended = data["verdict"]["recommended"]
    arms = [arm["arm"] for arm in data["arms"]]
    colours = _arm_colours(arms, recommended)
    curves = _recommended_first(loss_curves(run), recommended)
    smoothed = charts.smoothing_window(curves)
    break_even = data["predicted"].get("break_even") or {}
    free = statements.costs_nothing(data)
    return {
        "reasons": _recommended_row(data).get("reasons", []),
        "counter": data["predicted"].get("strongest_against"),
        "flips": data["predicted"].get("flips") or [],
        "beside": predicted_beside_measured(data),
        **_forecast_parts(data),
        "free": free,
        "effort": statements.effort_sentence(data),
        "cost_chart": "" if free else charts.cost_chart(break_even, [*arms, recommended], colours),
        "break_even": break_even,
        "pairs": pairs_in_words(break_even, [*arms, recommended]),
        **memory_chart(data),
        "loss_chart": charts.loss_chart(curves, smoothed, colours) if curves else "",
        "smoothed": smoothed,
    }


def _forecast_parts(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template needs for forecast against measured; empty for a plan without probabilities."""
    forecast = data.get("forecast")
    return {
        "forecast": forecast_sentence(forecast) if forecast else "",
        "forecast_columns": FORECAST_COLUMNS,
        "forecast_rows": forecast_rows(forecast) if forecast else [],
        "forecast_basis": [
            f"{row['arm']}: {row['right']['because']}" for row in forecast["arms"] if row["right"]
        ]
        if forecast
        else [],
    }


def _guard_parts(guards: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template needs for the checks beside the verdict."""
    refusal = guards.get("refusal") or {}
    return {
        "refusal": refusal,
        "refusal_gate": statements.refusal_gate(refusal),
        "refusal_chart": charts.refusal_chart(refusal) if refusal.get("chosen") else "",
        "staleness": guards["staleness"],
        "staleness_caption": staleness_caption(guards["staleness"]),
        "forgetting": _guard_rows(guards.get("forgetting")),
        "drift": _guard_rows(guards.get("refusal_drift")),
    }


def _answer_parts(data: Mapping[str, Any], run: Path, questions: Sequence[Question]) -> dict[str, Any]:
    """Return what the template needs for the examples on top and the answers of all arms."""
    arms = [arm["arm"] for arm in data["arms"]]
    used = (statements.used_arm(data) or {}).get("arm", "")
    browsed = browse_questions(run, arms, questions)
    return {
        "browsed": browsed,
        "letters": arm_letters(arms),
        "examples": example_answers(browsed, used),
        "opened": first_opened(browsed, used),
    }


def compared_tiles(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what the used arm is compared with, as tiles: title, right answers and the difference of the scores."""
    compared = data["verdict"].get("compared") or {}
    today = own_prompt(data, bool((data.get("task") or {}).get("prompt", True)))
    titles = {"today": today, "alternative": "cheapest useful alternative"}
    return [
        {
            "title": f"{title}: {pair['arm']}",
            "right": statements.right_count(pair.get("right")),
            "difference": pair["difference"],
        }
        for key, title in titles.items()
        if (pair := compared.get(key)) is not None
    ]


def staleness_caption(staleness: Mapping[str, Any] | None) -> str:
    """Return what the figures after an update of the documents show: which arms follow it, which repeat the old facts."""
    rows = (staleness or {}).get("arms") or []
    follow = [row["arm"] for row in rows if row["new_after"] > row["new_before"]]
    repeat = [row["arm"] for row in rows if row["old_after"] and 2 * row["old_after"] >= row["old_before"]]
    none = "No arm states more of the new facts after the update."
    first = f"More of the new facts after the update: {', '.join(follow)}." if follow else none
    still = f"Still at least half of the old facts: {', '.join(repeat)}."
    return " ".join([first, *[still] * bool(repeat)])


def loss_curves(run: RunFolder) -> dict[str, list[tuple[int, float]]]:
    """Return the losses by step of every training and its validation losses, from the events; one series for each seed.

    Where a step was taken again by a resumed training, its last loss counts.
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
    """Return the predicted score of each method with the measured score of its arm."""
    arms = {arm["arm"]: arm["score"] for arm in data["arms"]}
    return [
        {
            "method": row["method"],
            "predicted": row.get("score"),
            "measured": arms.get(row["method"]),
            "blocked": [blocker["text"] for blocker in row.get("blockers", [])],
        }
        for row in data["predicted"].get("ranked", [])
    ]


def memory_chart(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the estimated and measured memory of the methods that were trained or recommended, on one scale.

    For a trained method the estimate is the one for the settings of its run, otherwise the plan's.

    Returns:
        ``memory``: the rows, with the chart of each; ``memory_scale``: the labels of their scale.
    """
    rows: list[dict[str, Any]] = []
    trained = data["measured"].get("training") or {}
    available = (data.get("environment") or {}).get("ram_gib")
    for row in data["predicted"].get("ranked", []):
        name = row["method"]
        estimate = (row.get("estimate") or {}).get("memory_gib") or {}
        if "likely" not in estimate or not (name in trained or name == data["verdict"]["recommended"]):
            continue
        peak = predictions.largest_memory([run for run in trained.get(name) or () if isinstance(run, dict)])
        by_plan = {"low": estimate["likely"], "high": estimate["likely"], **estimate}
        low, likely, high = peak.expected_range or (by_plan["low"], by_plan["likely"], by_plan["high"])
        lines = predictions.memory_lines(
            peak, estimate["likely"], (row.get("estimate") or {}).get("assumptions") or ()
        )
        rows.append(
            {
                "method": name,
                "low": low,
                "likely": likely,
                "high": high,
                "measured": peak.own,
                "peak": peak.peak,
                "whole": peak.whole,
                "by_plan": peak.expected is None,
                "missed": charts.is_missed(likely, peak.own),
                # The plan's figure includes the runtime of a GPU, which a training on the processor does not have.
                "said": lines[-1] if len(lines) > 1 and peak.on_gpu else "",
            }
        )
    shown = [value for row in rows for value in (row["high"], row["measured"], row["peak"]) if value]
    end = charts.memory_scale_end(shown, available) if shown else 1.0
    for row in rows:
        values = (row["low"], row["likely"], row["high"], row["measured"], available, row["peak"], end)
        row["bar"] = charts.memory_bar(*values)
    return {"memory": rows, "memory_scale": charts.memory_scale(end) if rows else ""}


def _template() -> Template:
    """Return the page's template; it escapes every value and fails on an unknown name."""
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
        "words": _spaced,
        "took": _duration,
        "right_count": statements.right_count,
        "made_cells": statements.made_cells,
        "right_interval": statements.right_interval,
        "as_count": statements.share_as_count,
        "batch": statements.batch_text,
        "alone": statements.median_alone,
        "ms": statements.milliseconds,
        "price": statements.answer_price,
        "p_text": statements.p_text,
        "corrected_p": statements.corrected_p,
        "p_note": statements.P_VALUE_NOTE,
        "strengths": statements.STRENGTHS,
        "small_rise": guard_results.is_small_rise,
        "less_forgetting": guard_results.LESS_FORGETTING,
        "count_noun": count_noun,
    }
    return environment.get_template("report.html.j2")


def _guard_rows(guard: Any) -> list[dict[str, Any]]:
    """Return the rows of a check, stored as a list, as {"arms": [row]} or as {arm: row}; none if it was not measured."""
    rows = guard.get("arms", guard) if isinstance(guard, Mapping) else guard
    if isinstance(rows, Mapping):
        return [{"arm": arm, **row} for arm, row in rows.items() if isinstance(row, Mapping)]
    return [dict(row) for row in rows or ()]


def _recommended_row(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row of the recommended method in the plan's prediction."""
    ranked = data["predicted"].get("ranked", [])
    return next((row for row in ranked if row.get("method") == data["verdict"]["recommended"]), {})


def _template_file(name: str) -> str:
    return (resources.files("advisor") / "templates" / name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _recommended_first(curves: Mapping[str, Any], arm: str) -> dict[str, Any]:
    """Return the curves with the recommended arm's first, which gets the first colour; validation losses come last."""
    return dict(
        sorted(
            curves.items(),
            key=lambda item: (item[0].endswith(charts.VALIDATION_SERIES), item[0].split()[0] != arm),
        )
    )


def _headline(sentences: Sequence[str], least: int = 40) -> tuple[str, list[str]]:
    """Return the first sentences, at least ``least`` characters of them, and the rest."""
    first: list[str] = []
    for sentence in sentences:
        if sum(map(len, first)) >= least:
            break
        first.append(sentence)
    return " ".join(first), list(sentences[len(first) :])


def _arm_colours(arms: Sequence[str], recommended: str) -> dict[str, int]:
    """Return the number of each arm's colour in all charts; the recommended arm has the first."""
    order = dict.fromkeys([recommended, *arms])
    return {arm: number for number, arm in enumerate(order)}


def _with_unbroken_intervals(text: str) -> str:
    """Return a text in which intervals in brackets stay on one line."""
    return re.sub(r"\[[^\]]*\]", lambda match: match.group().replace(" ", "\u00a0"), text)


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
