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
from advisor.report.cost_plot import cost_chart, pairs_in_words
from advisor.report.dev_budget import dev_budget_line
from advisor.report.failure_causes import CAUSE_COLUMNS, cause_rows, causes_sentence
from advisor.report.learning_curve import (
    VALIDATION_SERIES,
    arms_section,
    curve_chart,
    loss_chart,
    smoothing_window,
)
from advisor.report.plots.right_cost import not_in_plot, right_cost_chart, sortable_table
from advisor.report.question_browser import arm_letters, browse_questions, example_answers, first_opened
from advisor.verdict import guards as guard_results
from advisor.verdict import predictions
from advisor.verdict.made_questions import origin_note
from advisor.verdict.run_records import RunRecords
from advisor.verdict.sentences import MOST_TIMES, duration_text, own_prompt
from advisor.verdict.trial_forecast import FORECAST_COLUMNS, forecast_rows, forecast_sentence
from rag.text.sanitize import defang_text
from rag.text.words import count_noun
from runners.plan.arm_names import method_of
from runners.plan.schema import SCORES
from runners.report.graded import GRADED_COLUMNS, GRADED_TITLE
from runners.report.json_records import to_json
from runners.report.records import Outcome, Strength
from runners.report.trial_report import FullRun, TrialReport, arm_named, question_count

if TYPE_CHECKING:
    from jinja2 import Template

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


def next_steps(report: TrialReport, run: Path) -> list[tuple[str, str]]:
    """Return (command, reason) pairs, the most useful first.

    Commands name the run by the path as given, or by the name of its folder where that path is absolute.
    """
    verdict = report.verdict
    name = str(run if not run.is_absolute() else Path(run.name))
    quoted, new_run = shlex.quote(name), shlex.quote(f"{name}-more")
    asked = verdict.use or report.candidates[0].arm
    arm = "" if verdict.use else f" --arm {asked}"
    asks = "the arm to use" if verdict.use else "the best by its score; no arm is asked by default"
    steps = [(f'tunewise ask {quoted}{arm} "your question"', f"asks {asked}, {asks}")]
    again = f"tunewise run {quoted}/plan.yaml --out {new_run}"
    if report.incomplete:
        names = ", ".join(arm.arm for arm in report.incomplete)
        steps.insert(0, (f"tunewise run {quoted} --resume", f"finishes what is incomplete: {names}"))
    if any(arm.arm == verdict.recommended and not arm.planned for arm in report.arms):
        steps.append((again, f"after correcting the rows that {verdict.recommended} was not trained on"))
    elif report.full_run:
        steps.insert(0, _full_run_step(report.full_run))
    elif verdict.strength is Strength.MADE:
        why = "with questions that people asked: the verdict comes from generated questions so far"
        steps.insert(0, (f"tunewise eval {quoted} --questions FILE", why))
    elif verdict.outcome is Outcome.UNDECIDED or verdict.strength is Strength.LEANING:
        steps += [
            (again, _more_questions_reason(report)),
            (f"tunewise report {new_run} --compare {quoted}", "compares the two runs"),
        ]
    if verdict.outcome is Outcome.OVERTURNED:
        steps.append((f"tunewise explain {quoted}/plan.yaml", f"why {verdict.recommended} was recommended"))
    if verdict.strength is Strength.PROXY:
        steps.append((again, "on a machine that can run the plan's own model"))
    steps += learning_curve_steps(report, quoted)
    if any("retrieval" in step or step == "index" for step in report.measured.seconds):
        if not report.failures:
            steps.append((f"tunewise why {quoted}{arm}", "the cause of each wrong answer, and what mends it"))
        steps.append(
            (
                f"tunewise index update {quoted}/index --documents PATH",
                "after the documents changed: answers follow at once, nothing is trained",
            ),
        )
    steps.append((f"tunewise chat {quoted}{arm}", "the same as a conversation; follow-ups are understood"))
    return steps


def learning_curve_steps(report: TrialReport, run: str) -> list[tuple[str, str]]:
    """Return the step that measures a learning curve, where a tuned arm is used or scored nearly as well and has none."""
    use = report.verdict.use
    scores = {arm.arm: arm.score.mean for arm in report.arms}
    tuned = sorted(set(report.measured.training) & set(scores))
    if not tuned or report.curves:
        return []
    best = max(tuned, key=lambda name: scores[name])
    close = scores[best] >= max(scores.values()) - CLOSE
    if not scores[best] or (use not in tuned and not close):
        return []
    arm = use if use in tuned else best
    why = f"trains {arm} on parts of the examples, and estimates whether more examples would help"
    return [(f"tunewise curve {run} --arm {arm}", why)]


def _full_run_step(full: FullRun) -> tuple[str, str]:
    """Return the step after a quick run: the full one, with its minutes where they are known."""
    about = f" (about {duration_text(60 * full.minutes)})" if full.minutes else ""
    return (
        full.command or "tunewise run plan.yaml",
        f"the same plan in full, without --quick: this was a quick run{about}",
    )


def questions_to_add(report: TrialReport) -> int | None:
    """Return how many more questions would decide; None where none would, or more than anybody would collect."""
    missing = report.verdict.more_questions_needed
    return missing if missing and missing <= MOST_TIMES * question_count(report.arms) else None


def _more_questions_reason(report: TrialReport) -> str:
    """Return what to do before a run that would decide: raise the plan's limit of test questions, or add some."""
    missing, limit = report.verdict.more_questions_needed, report.max_test
    if limit:
        return f"after raising max_test in the plan's data, which is {limit} now, and adding questions if there are no more"
    wanted = (
        f"about {count_noun(missing, 'more test question')}"
        if missing
        else "30 or more test questions from ten or more documents"
    )
    return f"after adding {wanted} to the plan's data"


def render_page(report: TrialReport, records: RunRecords) -> str:
    """Return the page: one file that loads nothing, with its only style and script allowed by their hashes.

    Args:
        report: of the run.
        records: its events, answers, and test questions, whose gold is shown beside the answers.
    """
    style, script = _template_file("report.css"), _template_file("report.js")
    arms, used = [arm.arm for arm in report.arms], report.verdict.use or ""
    browsed = browse_questions(records, arms)
    headline, rest = _headline(report.verdict.conclusion)
    return _template().render(
        data=report,
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
        steps=next_steps(report, records.path),
        source=to_json(report.data),
        questions=question_count(report.arms),
        headline=headline,
        conclusion=rest,
        best=arm_named(report.arms, report.verdict.use),
        more_questions=questions_to_add(report) if report.verdict.use else None,
        use=used,
        several=[arm for arm in report.arms if len(arm.seeds) > 1],
        arm_titles={method: title for method in map(method_of, arms) if (title := arm_title(method))},
        verdict_text=_with_unbroken_intervals(report.verdict.text),
        browsed=browsed,
        numbers={row["id"]: row["number"] for row in browsed.rows},
        letters=arm_letters(arms),
        examples=example_answers(browsed, used),
        opened=first_opened(browsed, used),
        **_score_names(report),
        **_cost_parts(report, loss_curves(records.events)),
        **memory_chart(report),
    )


def _score_names(report: TrialReport) -> dict[str, list[str]]:
    """Return the scores that the page draws, in the order of the plan's keys: with a weight, and without one."""
    measured = {name for arm in report.arms for name in arm.scores} - {"right"}
    measured -= set(REFUSAL_COUNTS) if any(arm.right for arm in report.arms) else set()
    names = [name for name in SCORES if name in measured] + sorted(measured - set(SCORES))
    return {
        "score_names": [name for name in names if report.weights.get(name)],
        "unweighed": [name for name in names if not report.weights.get(name)],
    }


def _cost_parts(report: TrialReport, curves: Mapping[str, list[tuple[int, float]]]) -> dict[str, Any]:
    """Return what the template needs for costs and training."""
    recommended = report.verdict.recommended
    arms = [*(arm.arm for arm in report.arms), recommended]
    # The recommended arm has the first colour of all charts.
    colours = {arm: number for number, arm in enumerate(dict.fromkeys([recommended, *arms]))}
    curves = _recommended_first(curves, recommended)
    smoothed = smoothing_window(curves)
    break_even = report.predicted.get("break_even") or {}
    own = {method: report.own_arm(method) for method in map(method_of, arms)}
    methods = [method for method, arm in own.items() if arm in arms]
    free = statements.costs_nothing(report)
    return {
        "free": free,
        "cost_chart": ""
        if free
        else cost_chart(break_even, methods, {method: colours[own[method]] for method in methods}),
        "right_cost_chart": right_cost_chart(report, colours),
        "right_cost_table": sortable_table({"": report}, report.verdict.use or ""),
        "not_in_plot": not_in_plot(report),
        "break_even": break_even,
        "pairs": pairs_in_words(break_even, methods),
        "loss_chart": loss_chart(curves, smoothed, colours) if curves else "",
        "smoothed": smoothed,
    }


def staleness_caption(staleness: Mapping[str, Any] | None) -> str:
    """Return what the figures after an update of the documents show: which arms follow it, which repeat the old facts."""
    rows = (staleness or {}).get("arms") or []
    follow = [row["arm"] for row in rows if row["new_after"] > row["new_before"]]
    repeat = [row["arm"] for row in rows if row["old_after"] and 2 * row["old_after"] >= row["old_before"]]
    none = "No arm states more of the new facts after the update."
    first = f"More of the new facts after the update: {', '.join(follow)}." if follow else none
    still = f"Still at least half of the old facts: {', '.join(repeat)}."
    return " ".join([first, *[still] * bool(repeat)])


def loss_curves(events: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Return the losses by step of every training and its validation losses, from the events; one series for each seed.

    Where a step was taken again by a resumed training, its last loss counts.
    """
    curves: dict[str, dict[int, float]] = {}
    for event in events:
        kind = event.get("event")
        if kind in ("train.step", "train.eval") and "loss" in event:
            name = str(event.get("arm", "train"))
            name += f" seed {event['seed']}" if event.get("seeds", 1) > 1 else ""
            name += f" {VALIDATION_SERIES}" if kind == "train.eval" else ""
            curves.setdefault(name, {})[event["step"]] = event["loss"]
    return {name: sorted(points.items()) for name, points in curves.items()}


def memory_chart(report: TrialReport) -> dict[str, Any]:
    """Return the estimated and measured memory of the methods that were trained or recommended, on one scale.

    For a trained method the estimate is the one for the settings of its run, otherwise the plan's.

    Returns:
        ``memory``: the rows, with the chart of each; ``memory_scale``: the labels of their scale.
    """
    rows: list[dict[str, Any]] = []
    trained = report.measured.training
    available = report.environment.get("ram_gib")
    for row in report.predicted.get("ranked", []):
        name = report.own_arm(row["method"])
        estimate = (row.get("estimate") or {}).get("memory_gib") or {}
        if "likely" not in estimate or not (name in trained or name == report.verdict.recommended):
            continue
        peak = predictions.largest_memory(trained.get(name) or ())
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
        "charts": charts,
        "statements": statements,
        "guard_results": guard_results,
        "strength_texts": statements.strength_texts,
        "labels": DATA_LABELS,
        "arm_named": arm_named,
        "arm_title": arm_title,
        "method_of": method_of,
        "arms_section": arms_section,
        "curve_chart": curve_chart,
        "cause_columns": CAUSE_COLUMNS,
        "check_columns": statements.CHECK_COLUMNS,
        "cause_rows": cause_rows,
        "causes_sentence": causes_sentence,
        "harmless": defang_text,
        "graded_title": GRADED_TITLE,
        "graded_columns": GRADED_COLUMNS,
        "dev_budget_line": dev_budget_line,
        "forecast_columns": FORECAST_COLUMNS,
        "forecast_rows": forecast_rows,
        "forecast_sentence": forecast_sentence,
        "origin_note": origin_note,
        "own_prompt": own_prompt,
        "staleness_caption": staleness_caption,
        "words": _spaced,
        "took": _duration,
        "count_noun": count_noun,
    }
    return environment.get_template("report.html.j2")


def _template_file(name: str) -> str:
    return (resources.files("advisor") / "templates" / name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _recommended_first(curves: Mapping[str, Any], arm: str) -> dict[str, Any]:
    """Return the curves with the recommended arm's first, which gets the first colour; validation losses come last."""
    return dict(
        sorted(
            curves.items(),
            key=lambda item: (item[0].endswith(VALIDATION_SERIES), item[0].split()[0] != arm),
        )
    )


def _headline(sentences: Sequence[str], least: int = 25) -> tuple[str, list[str]]:
    """Return the first sentences, at least ``least`` characters of them, and the rest."""
    first: list[str] = []
    for sentence in sentences:
        if sum(map(len, first)) >= least:
            break
        first.append(sentence)
    return " ".join(first), list(sentences[len(first) :])


def _with_unbroken_intervals(text: str) -> str:
    """Return a text in which intervals in brackets stay on one line."""
    return re.sub(r"\[[^\]]*\]", lambda match: match.group().replace(" ", "\u00a0"), text)


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
