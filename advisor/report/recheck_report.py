"""The result of a recheck: for programs as JSON, for a pull request as Markdown, for a CI server as JUnit XML.

:func:`recheck_json` computes everything once; :func:`recheck_markdown` and :func:`recheck_junit` show it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from advisor.costs.arm_costs import cost_per_1000
from advisor.report.data import seconds_alone
from advisor.report.markdown import escape_markdown, folded_lines, markdown_rows
from advisor.verdict.comparison import compare_arms
from advisor.verdict.guards import lost_arms, trained_rows
from advisor.verdict.regression import (
    REGRESSION,
    RIGHT,
    Decision,
    ScoreChange,
    change_text,
    decide,
    paired_changes,
    smallest_found_loss,
)
from advisor.verdict.run_records import RunRecords
from advisor.verdict.verdict import judge_trial
from rag.text.sanitize import single_line
from rag.text.words import count_noun
from runners.plan.schema import Plan
from runners.recheck.inputs import PRICES, Change
from runners.recheck.recheck import Recheck, RecheckedArm
from runners.report.arm_scores import judged_rows
from runners.report.records import Verdict
from runners.report.report_file import read_report
from runners.run_folder import TRIAL, read_journal
from runners.trial.trial import ANSWERS, ArmScores

MAX_FLIPPED = 12
"""Answers that were right and are not, shown in full."""
MAX_TEXT = 300
"""Most characters of an answer that are shown."""
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def recheck_json(result: Recheck, margin: float) -> dict[str, Any]:
    """Return the result of a recheck as ``tunewise recheck --json`` prints it.

    Args:
        result: what was measured.
        margin: the loss that is accepted, as a share of the questions or of the score.
    """
    plan = result.plan
    must_cite = plan.answers.get("must_cite")
    demanded = ("citation",) if must_cite and must_cite.value in (True, "yes", "true") else ()
    before = judged_rows([arm.before for arm in result.arms])
    pairs = list(zip(before, judged_rows([arm.now for arm in result.arms]), strict=True))
    asked = {question for arm in result.arms for question in arm.now.questions}
    real = asked - result.made
    changes = paired_changes(pairs, demanded, real if real and result.made else None, plan.seed)
    lost_gold = 0 if result.lost_counted else len(result.lost_gold)
    decision = decide(changes, margin, lost_gold, bool(result.made) and not real)
    data: dict[str, Any] = {
        "schema": 1,
        "run": str(result.run.path),
        "name": plan.name,
        "folder": str(result.folder),
        "compared_with": "run" if result.base.path == result.run.path else str(result.base.path),
        "outcome": decision.outcome,
        "text": decision.text,
        "margin": margin,
        "more_questions_needed": decision.more_questions_needed,
        "changes": [change.to_json() for change in (*result.changes, *_price_changes(result))],
        "questions": {
            "of_run": result.questions + result.missing,
            "compared": len(asked),
            "needs_new_gold": len(result.lost_gold),
            "lost_gold_counted": result.lost_counted,
            "missing": result.missing,
            "made": len(asked & result.made),
        },
        "arms": [_arm_json(arm, result, changes) for arm in result.arms],
        "needs_new_gold": _lost_gold_rows(result),
        "made": [change.to_json() for change in paired_changes(pairs, demanded, result.made)]
        if result.made and real
        else [],
        "power": _power(result, changes, margin),
        "lost_answers": _flipped(result),
        "verdict": _verdicts(result),
        "not_measured_again": list(result.stale),
        "notes": [*result.notes, *_judge_note(result.plan)],
        "drift": result.drift.to_json() if result.drift else None,
    }
    return data | {"summary": _sentences(data, decision)}


def _judge_note(plan: Plan) -> list[str]:
    """Return that a judge does not count here, where it may in the run."""
    if plan.judge is None or not plan.judge.counts:
        return []
    return [
        "The judge counts on the answers of the run that people labelled; here all are compared by computed scores"
    ]


def _arm_json(arm: RecheckedArm, result: Recheck, changes: Sequence[ScoreChange]) -> dict[str, Any]:
    own = [change for change in changes if change.arm == arm.arm]
    right = next((change for change in own if change.score == RIGHT), None)
    reported = _reported_costs(result).get(arm.arm)
    return {
        "arm": arm.arm,
        "asked_again": len(arm.asked),
        "taken_over": result.questions - len(arm.asked),
        "touched": arm.touched,
        "right": right
        and {
            **dict(zip(("before", "now"), right.counts, strict=True)),
            "of": right.n,
        },
        "scores": [change.to_json() for change in own if change.decides or change.losses or change.gains],
        "usd_per_1000": {"before": reported, "now": cost_per_1000(arm.now, result.plan).usd},
    }


def _reported_costs(result: Recheck) -> dict[str, float | None]:
    """Return what the run's report says that a thousand answers cost, by arm."""
    report = read_report(result.run.path)
    return {arm.arm: arm.usd_per_1000 for arm in (report.arms if report else ())}


def _price_changes(result: Recheck) -> list[Change]:
    """Return a change where the run's own answers cost something else than its report says."""
    if result.base.path != result.run.path or result.lost_gold or result.missing:
        return []  # the report's costs are those of other answers
    reported = _reported_costs(result)
    texts = []
    for arm in result.arms:
        was, now = reported.get(arm.arm), cost_per_1000(arm.before, result.old_plan).usd
        if was is not None and now is not None and was != now:
            texts.append(f"{arm.arm}: {was:g} → {now:g} USD per 1,000 answers")
    return [Change(PRICES, "; ".join(texts))] if texts else []


def _lost_gold_rows(result: Recheck) -> list[dict[str, str]]:
    questions = _question_texts(result)
    return [
        {"id": id, "question": questions.get(id, ""), "reason": reason}
        for id, reason in result.lost_gold.items()
    ]


def _question_texts(result: Recheck) -> dict[str, str]:
    rows = read_journal(result.folder / TRIAL / ANSWERS)
    return {str(row["id"]): str(row.get("question", "")) for row in rows}


def _power(result: Recheck, changes: Sequence[ScoreChange], margin: float) -> list[dict[str, Any]]:
    """Return for each arm the smallest loss of right answers that is found, beyond the margin, with 80 % chance."""
    arms_asked = sum(bool(arm.asked) for arm in result.arms)
    rows = []
    for arm in result.arms:
        loss = smallest_found_loss(arm.before, changes, max(1, arms_asked), result.plan.seed, margin)
        count = len(arm.before.of(RIGHT))
        if loss is not None:
            text = (
                f"{arm.arm}: a loss of {loss.answers} of its {loss.right} right answers ({loss.share:.0%} of {count} "
                "questions) is found with 80 % chance"
            )
        else:
            right = round(sum(arm.before.of(RIGHT)))
            text = f"{arm.arm}: {right} of {count} answers were right, too few for a loss to be sure"
        rows.append(
            {
                "arm": arm.arm,
                "answers": loss and loss.answers,
                "share": loss and round(loss.share, 4),
                "right": loss and loss.right,
                "text": text,
            }
        )
    return rows


def _flipped(result: Recheck) -> list[dict[str, Any]]:
    """Return answers that were right and are not: question, old and new answer."""
    before = {
        (r["arm"], r["id"]): r["answer"] for r in reversed(read_journal(result.base.path / TRIAL / ANSWERS))
    }
    now = {(r["arm"], r["id"]): r for r in reversed(read_journal(result.folder / TRIAL / ANSWERS))}
    rows = []
    for arm in result.arms:
        old = {q: row.get(RIGHT) for q, row in zip(arm.before.questions, arm.before.scores, strict=True)}
        originals = dict(zip(arm.now.questions, arm.now.originals, strict=True))
        for question, row in zip(arm.now.questions, arm.now.scores, strict=True):
            was, is_now = old.get(question), row.get(RIGHT)
            if was is not None and is_now is not None and is_now < was:
                answer = now[arm.arm, question]
                rows.append(
                    {
                        "arm": arm.arm,
                        "id": question,
                        "question": _short(str(answer["question"])),
                        "before": _short(str(before.get((arm.arm, question), ""))),
                        "now": _short(str(answer["answer"])),
                        "lost_gold": result.lost_gold.get(originals[question]),
                    }
                )
    return rows


def _short(text: str) -> str:
    plain = single_line(text)
    return plain if len(plain) <= MAX_TEXT else f"{plain[: MAX_TEXT - 1]}…"


def _verdicts(result: Recheck) -> dict[str, Any] | None:
    """Return the verdict on the old and on the new answers of the same arms and questions; None without the choice."""
    old = _judged(result, result.old_plan, [*(arm.before for arm in result.arms), *result.carried])
    new_arms = [*(arm.now for arm in result.arms), *result.carried]
    new = _judged(result, result.plan, new_arms)
    if old is None or new is None:
        return None
    changes: list[tuple[str, bool]] = []
    if old.gate_met is not False and new.gate_met is False:
        changes.append((f"{new.recommended} no longer beats the arms it must beat (the plan's gate)", True))
    if old.use != new.use:
        changes.append(_use_change(result, new_arms, old, new))
    shown = ("outcome", "recommended", "winner", "use", "gate_met", "text")
    return {
        "before": {key: getattr(old, key) for key in shown},
        "now": {key: getattr(new, key) for key in shown},
        "changed": any(is_clear for _, is_clear in changes),
        "text": "; ".join(text for text, _ in changes),
    }


def _judged(result: Recheck, plan: Plan, arms: Sequence[ArmScores]) -> Verdict | None:
    """Return the verdict on these arms; None where the arm that is held to account is not among them."""
    if plan.choice not in {arm.arm for arm in arms if arm.combined}:
        return None
    records = RunRecords(path=result.run.path, plan=plan, events=result.run.events(), answers=())
    lost = lost_arms(trained_rows(plan, records.events))
    return judge_trial(plan, arms, plan.model.name, lost, seconds_alone(records, arms))[0]


def _use_change(result: Recheck, arms: Sequence[ArmScores], old: Verdict, new: Verdict) -> tuple[str, bool]:
    """Return how the arm to use changed, and whether the change is beyond noise."""
    if old.use in new.excluded:
        reason = new.excluded[str(old.use)]
        instead = f"the arm to use is {new.use}" if new.use else "none can be used"
        return f"{old.use} cannot be used any more: it {reason}; {instead}", True
    by_name = {arm.arm: arm for arm in arms}
    if old.use in by_name and new.use in by_name:
        pair = compare_arms(by_name[str(new.use)], by_name[str(old.use)], result.plan.seed)
        if pair.low > 0 and pair.p <= 0.05:
            interval = f"[{pair.low:+.2f}, {pair.high:+.2f}]"
            text = f"the arm to use is {new.use}, no longer {old.use}: {pair.difference:+.2f} {interval}"
            return text, True
    if new.use is None:
        return f"none of the arms can be used any more: {new.use_reason}", True
    if old.use is None:
        return f"the arm to use is {new.use}; before, none could be used", False
    return f"{new.use} would be chosen in place of {old.use}, but it is not clearly better", False


def _sentences(data: Mapping[str, Any], decision: Decision) -> list[str]:
    """Return the result in sentences, the most important first."""
    asked = sum(arm["asked_again"] for arm in data["arms"])
    taken = sum(arm["taken_over"] for arm in data["arms"])
    lines = [f"{decision.outcome.upper()}: {decision.text}."]
    lines.append(
        f"{count_noun(asked, 'answer')} asked again, {taken} taken over, since what the model reads is the same."
        if asked
        else f"Nothing was asked again: what the model reads is the same in all {taken} answers."
    )
    counts = data["questions"]
    if counts["needs_new_gold"]:
        counted = "are counted as they are" if counts["lost_gold_counted"] else "are not counted"
        lines.append(
            f"{count_noun(counts['needs_new_gold'], 'question')} of {counts['of_run']} need new gold and {counted}: "
            "the documents no longer hold their answers: correct them in the file of questions."
        )
    if counts["missing"]:
        lines.append(
            f"{count_noun(counts['missing'], 'question')} of the run are no longer in the file of questions."
        )
    if counts["made"]:
        decides = (
            "they decide nothing"
            if counts["made"] < counts["compared"]
            else "no alarm is raised on them alone"
        )
        lines.append(
            f"{counts['made']} of {counts['compared']} questions were made from documents: {decides}."
        )
    if decision.more_questions_needed:
        lines.append(
            f"{decision.more_questions_needed} more questions would decide in 8 of 10 rechecks, "
            "if the loss is as large as seen."
        )
    lines += [f"Power: {row['text']}." for row in data["power"]]
    if data["verdict"] and data["verdict"]["text"]:
        lines.append(f"Verdict: {data['verdict']['text']}.")
    if data["not_measured_again"]:
        names = ", ".join(data["not_measured_again"])
        lines.append(f"Touched as well, but not measured again: {names} (--all-arms measures them).")
    return [*lines, *(f"{note}." for note in data["notes"])]


def recheck_markdown(data: Mapping[str, Any]) -> str:
    """Return the result as Markdown, short enough for a comment on a pull request."""
    first, *rest = data["summary"]
    parts = [
        f"## tunewise recheck, {escape_markdown(data['outcome'])}: {escape_markdown(data['name'])}",
        f"**{escape_markdown(first)}**",
    ]
    parts.append(" ".join(map(escape_markdown, rest)))
    changed = [f"- **{row['kind']}**: {escape_markdown(row['text'])}" for row in data["changes"]]
    parts.append("\n".join(["What changed:", "", *changed]) if changed else "Nothing changed.")
    rows = [
        (
            escape_markdown(arm["arm"]),
            change["score"],
            f"{change['before']:.2f}",
            f"{change['now']:.2f}",
            f"{change['difference']:+.2f} [{change['low']:+.2f}, {change['high']:+.2f}]",
            f"{change['p_loss']:.3g}" if change["decides"] else "–",
            f"{arm['asked_again']} of {arm['asked_again'] + arm['taken_over']}",
        )
        for arm in data["arms"]
        for change in arm["scores"]
    ]
    columns = ("arm", "score", "before", "now", "difference (95 %)", "p", "asked again")
    parts.append("\n".join(markdown_rows(columns, rows, 2)))
    parts.append(
        "p is that of a loss, one-sided and corrected for all arms and scores together; a regression needs p ≤ 0.025 and "
        f"the whole interval below {-data['margin'] or 0:g}."
    )
    parts += _flipped_markdown(data["lost_answers"])
    if data["needs_new_gold"]:
        listed = [
            f"- `{escape_markdown(row['id'])}` {escape_markdown(row['question'])}: {escape_markdown(row['reason'])}"
            for row in data["needs_new_gold"]
        ]
        parts.append("\n".join(folded_lines("Questions that need new gold", listed)))
    return "\n\n".join(filter(None, parts)) + "\n"


def outdated_text(row: Mapping[str, Any]) -> str:
    """Return what is said behind an answer that is no longer right, where its gold is what is outdated; else ""."""
    return f" (gold outdated: {row['lost_gold']}: correct it)" if row["lost_gold"] else ""


def _flipped_markdown(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    lines = [
        f"- **{escape_markdown(row['arm'])}** {escape_markdown(row['question'])}<br>before: {escape_markdown(row['before'])}"
        f"<br>now: {escape_markdown(row['now'])}{escape_markdown(outdated_text(row))}"
        for row in rows[:MAX_FLIPPED]
    ]
    more = [f"- and {len(rows) - MAX_FLIPPED} more"] if len(rows) > MAX_FLIPPED else []
    title = f"{count_noun(len(rows), 'answer')} that were right and are not"
    return ["\n".join(folded_lines(title, [*lines, *more]))]


def recheck_junit(data: Mapping[str, Any]) -> str:
    """Return the result as JUnit XML: one test case for each arm and score, a failure for each sure loss.

    Scores that are only shown never fail. Questions that need new gold are one skipped test case.
    """
    cases = [(arm["arm"], change) for arm in data["arms"] for change in arm["scores"]]
    failed = [(arm, change) for arm, change in cases if _is_failure(data, change)]
    lost = data["needs_new_gold"]
    counts: dict[str, Any] = {
        "tests": str(len(cases) + bool(lost)),
        "failures": str(len(failed)),
        "errors": "0",
        "skipped": str(int(bool(lost))),
        "time": "0",
    }
    root = ElementTree.Element("testsuites", name="tunewise recheck", **counts)
    suite = ElementTree.SubElement(root, "testsuite", name=_xml(data["name"]), **counts)
    properties = ElementTree.SubElement(suite, "properties")
    for name in ("outcome", "run", "folder", "text"):
        ElementTree.SubElement(properties, "property", name=name, value=_xml(str(data[name])))
    for arm, change in cases:
        case = ElementTree.SubElement(
            suite, "testcase", classname=_xml(f"{data['name']}.{arm}"), name=change["score"], time="0"
        )
        text = _change_line(change)
        if _is_failure(data, change):
            failure = ElementTree.SubElement(case, "failure", message=_xml(text), type="regression")
            failure.text = _xml("\n".join([text, *_case_details(data, arm)]))
        else:
            ElementTree.SubElement(case, "system-out").text = _xml(text)
    if lost:
        case = ElementTree.SubElement(suite, "testcase", classname=_xml(data["name"]), name="gold", time="0")
        message = f"{count_noun(len(lost), 'question')} need new gold"
        ElementTree.SubElement(case, "skipped", message=message)
        ElementTree.SubElement(case, "system-out").text = _xml(
            "\n".join(f"{row['id']}: {row['reason']}" for row in lost)
        )
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def _is_failure(data: Mapping[str, Any], change: Mapping[str, Any]) -> bool:
    return data["outcome"] == REGRESSION and _as_change(change).sure_loss(data["margin"])


def _change_line(change: Mapping[str, Any]) -> str:
    text = change_text(_as_change(change))
    return f"{text}; p of a loss {change['p_loss']:.3g}, {change['losses']} questions lower, {change['gains']} higher"


def _as_change(change: Mapping[str, Any]) -> ScoreChange:
    return ScoreChange(**change)


def _case_details(data: Mapping[str, Any], arm: str) -> list[str]:
    rows = [row for row in data["lost_answers"] if row["arm"] == arm][:MAX_FLIPPED]
    return [
        f"{row['question']}\n  before: {row['before']}\n  now: {row['now']}{outdated_text(row)}"
        for row in rows
    ]


def _xml(text: str) -> str:
    """Return a text without the characters that XML cannot hold."""
    return _NOT_XML.sub("", text)
