"""The work behind ``tunewise plan``: collect answers, ask on a terminal what is unknown, recommend, and write the plan."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor import output
from advisor.advice import DraftSettings, ModelsRecommendation, recommend
from advisor.display import console
from advisor.display.events import print_data_notes
from advisor.drafting.draft import DraftedPlan, draft_with_notes
from advisor.drafting.log_wordings import with_log_questions
from advisor.drafting.tuned_retriever import with_tuned_retriever
from advisor.flags.plan import PlanRequest, answers_of
from advisor.output import emit_result, print_plain
from advisor.probe import answers_from_probe
from advisor.probe.offer import ProbeOffer, offer_where_it_decides
from advisor.questionnaire.answers import Answers, format_answer
from advisor.questionnaire.answers_files import find_profile, save_profile
from advisor.questionnaire.gather import (
    Situation,
    check_model,
    compared_models,
    flag_answers,
    for_trial,
    refuse_unknown_model,
    with_answers_of,
)
from advisor.questionnaire.made_rows import making_offer
from advisor.questionnaire.row_sorting import sort_rows_of_files, sort_rows_without_documents
from advisor.recommendation.recommend import BaseRecommendation
from advisor.report.decision_record import decision_record
from advisor.settings import with_settings_answers
from advisor.terminal import resume_hint
from advisor.verdict import predictions
from advisor.verdict.trial_forecast import TRIAL_FORECAST, expectation_against, forecast_trial, right_text
from advisor.workflows import models_view
from rag.errors import BadInput, CannotRun, UsageProblem
from rag.files import write_bytes, write_text
from rag.text.words import count_noun
from runners.data.document_sample import block_texts
from runners.data.log_questions import require_log
from runners.models import resolve
from runners.models.licenses import accepted_licenses, find_terms
from runners.plan.arm_names import split_arm
from runners.plan.forecast import forecast_path
from runners.plan.schema import Plan, write_plan
from runners.plan.steps import TrainStep
from runners.report.trial_report import Share
from runners.runs import requirements
from runners.runs.data_notes import check_data
from runners.runs.dataset import DataNote, read_data, require_gold_documents
from runners.scoring.gold_check import FailingReference, check_gold

if TYPE_CHECKING:
    from advisor.probe.probe import ProbeOutcome
    from advisor.questionnaire.profile import Profile

PLAN_OUT = Path("plan.yaml")
RECORD_OUT = Path("decision.md")
NO_QUESTIONS = "the plan measures arms, but there are no test questions"
WRITE_QUESTIONS = "write test questions with their answers, 45 or more, and name the file: --questions"
MAX_SORTED_TOKENS, MAX_SORTED_ROWS = 100_000, 500
"""Largest corpus, and most examples, that are sorted into facts and behaviour while the user waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedFiles:
    """What a run would refuse about the files of a plan, None for nothing, and what was noticed in them."""

    problem: BadInput | None = None
    notes: tuple[DataNote, ...] = ()
    failing_gold: tuple[FailingReference, ...] = ()


@dataclass(frozen=True, slots=True)
class WrittenPlan:
    """Where the plan was written, None for nowhere, and why it cannot be run as it is, one sentence each."""

    path: Path | None
    obstacles: tuple[str, ...] = ()
    checked: CheckedFiles = CheckedFiles()


def make_plan(request: PlanRequest) -> Path | None:
    """Recommend and write the plan; return its path, None when it cannot be run as it is, or there is none.

    Raises:
        UsageProblem: when no answers and no files were given.
        BadInput: for broken answers and files.
        CannotRun: when the plan cannot be written where it should; it is noticed before anything is measured.
    """
    answers = _collect_answers(request)
    interactive = not request.yes and not request.as_json and sys.stdin.isatty() and sys.stdout.isatty()
    if not answers and not interactive:
        raise UsageProblem(
            "nothing to advise on: no answers and no files were given",
            "give --documents, --examples, --set key=value or --answers FILE, or run it on a terminal",
        )
    if request.out or interactive or any(key in answers for key in ("documents", "examples", "questions")):
        check_target(request.out or PLAN_OUT, "--out")
    if request.record:
        check_target(request.record, "--record")
    answers = with_settings_answers(answers)
    record = request.record
    if interactive:
        from advisor.wizard.prompter import interview_on_terminal

        outcome = interview_on_terminal(answers)
        answers = outcome.answers
        record = record or (RECORD_OUT if outcome.record else None)
        request = replace(request, tune_retriever=request.tune_retriever or outcome.tune_retriever)
    probed = probe_first(answers, request) if request.probe else None
    drafting = DraftSettings(
        folder=(request.out or PLAN_OUT).parent,
        embedder=request.embedder,
        tune_retriever=request.tune_retriever,
    )
    rec = recommend(probed.answers if probed else answers, drafting=drafting)
    situation = rec.situation
    assert situation is not None
    several = isinstance(rec, ModelsRecommendation)
    offer = None if several else offer_where_it_decides(rec)
    ahead = expectation_against(rec)
    if not request.as_json:
        if ahead:
            print_plain(console.console(), ahead)
        _show(rec, situation, with_answers=not interactive)
    written = _write(rec, situation, request, interactive)
    if request.as_json:
        extra = {} if several else answers_from_probe.probe_json(situation, rec)
        extra |= _probe_keys(probed, offer)
        emit_result(rec.to_json() | {"expected_ahead": ahead or None} | extra | _file_keys(written))
    elif offer and not request.probe:
        output.note(f"{offer.text}: add --probe to this command")
    _save_profile_and_record(rec, situation, request.save, record)
    return None if written.obstacles else written.path


def probe_first(answers: Answers, request: PlanRequest) -> ProbeOutcome | None:
    """Probe the base model as ``tunewise probe`` does, print what was measured, and return it.

    Returns:
        None where there is nothing to ask: then a note says so, and the plan is made without it.

    Raises:
        BadInput: for broken files, and for an endpoint that may not be contacted.
        CannotRun: when no model can be obtained.
        UsageProblem: for several models.
    """
    from advisor.probe.probe_view import probe_with_progress, show_probe

    if len(compared_models(answers)) > 1:
        raise UsageProblem(
            "--probe measures one model, and there are several",
            "probe one with: tunewise probe --model NAME, and add what it writes: --answers probe.yaml",
        )
    if not any(answers.value(key) for key in ("questions", "examples")):
        output.note(
            "nothing to measure: there are no questions and no examples; the plan is made without a probe"
        )
        return None
    with resume_hint(output.command_line(*sys.argv[1:]), "answers so far"):
        outcome = probe_with_progress(answers, request.out or PLAN_OUT, quiet=request.as_json)
    if not request.as_json:
        show_probe(outcome, with_change=False)
    return outcome


def _probe_keys(probed: ProbeOutcome | None, offer: ProbeOffer | None) -> dict[str, Any]:
    """Return the keys of ``plan --json`` about a probe that was just done, and about one that is offered."""
    keys: dict[str, Any] = {"probed_now": probed.to_json()} if probed else {}
    return keys | {"probe_offer": offer.to_json() if offer else None}


def _file_keys(written: WrittenPlan) -> dict[str, Any]:
    """Return the keys of ``plan --json`` about what stands in the way of a run, and about references that fail."""
    return {
        "cannot_run": list(written.obstacles),
        "data_notes": [each.to_json() for each in written.checked.notes],
        "failing_gold": [asdict(each) for each in written.checked.failing_gold],
    }


def check_target(path: Path, flag: str) -> None:
    """Check that a file can be written: its folder exists, and takes a new file.

    Raises:
        UsageProblem: its folder does not exist, or it is itself a folder.
        CannotRun: nothing can be written there.
    """
    if path.is_dir():
        raise UsageProblem(f"{flag} {path} is a folder", f"name a file in it: {path / PLAN_OUT.name}")
    if not path.parent.is_dir():
        raise UsageProblem(
            f"{flag} {path}: there is no folder {path.parent}", "make it first, or name another"
        )
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise CannotRun(f"cannot write {path}: {error.strerror}", f"name another place with {flag}") from None


def _collect_answers(request: PlanRequest) -> Answers:
    """Return the answers of flags, answers file and saved profile, the stronger first.

    Prints a note when answers of a probe of another model were dropped.
    """
    if request.wordings:
        require_log(request.wordings)
    if request.model and request.models:
        raise UsageProblem(
            "--model and --models are both given", "name one model, or several by an alias each"
        )
    answers = flag_answers(request.sets or (), **answers_of(request))
    if request.profile:
        answers = with_answers_of(answers, find_profile(request.profile))
    answers = with_answers_of(answers, request.answers)
    refuse_unknown_model(answers)
    for name in compared_models(answers).values():
        check_model(name)
    answers, line = answers_from_probe.answers_of_this_model(answers)
    if line:
        output.note(line)
    return answers


def _save_profile_and_record(
    rec: BaseRecommendation, situation: Situation, name: str | None, record: Path | None
) -> None:
    """Save the answers as a profile and write the decision record, where these were asked for."""
    if name:
        save_profile(name, situation.answers)
        output.note(
            f"saved as the profile {name}; use it with: {output.command_line('plan', '--profile', name)}"
        )
    if record:
        write_text(record, decision_record(rec.to_json(), situation.answers, date.today()))
        output.note(f"wrote the decision record {record}")


def _show(rec: BaseRecommendation, situation: Situation, with_answers: bool) -> None:
    """Print the recommendation; before it the answers, unless these were just reviewed."""
    screen = console.console()
    answers = situation.answers
    no_gpu = situation.profile.has_gpu is False
    keys = [key for key in answers if not (no_gpu and key in ("gpu_count", "gpu_memory_gib"))]
    if with_answers:
        rows = (
            (key, format_answer(answers[key].value), answers[key].source, answers[key].note) for key in keys
        )
        screen.print(console.render_answers([*rows, *console.data_fact_rows(situation.profile.data)]))
    screen.print()
    if isinstance(rec, ModelsRecommendation):
        screen.print(models_view.render_models(rec))
        return
    screen.print(console.render_recommendation(rec))
    if before := answers_from_probe.recommendation_before(situation):
        screen.print()
        screen.print(console.render_difference(before, rec, "what the probe changed"))
    if hours := predictions.hours_line(rec, situation):
        print_plain(screen, hours)


def _write(
    rec: BaseRecommendation, situation: Situation, request: PlanRequest, interactive: bool
) -> WrittenPlan:
    """Write the plan and its forecast, and say how to run it or why it cannot be run.

    A plan at the default path is backed up first. Without any files one is written where ``--out`` or a person asks for it.

    Raises:
        BadInput: the questions name gold documents, and none of them exists.
    """
    profile = situation.profile
    named = profile.documents or profile.examples or profile.questions
    if not (named or request.out or interactive):
        reason = "no plan was written: name --documents, --examples or --questions, or --out plan.yaml to name them later"
        output.note(reason)
        return WrittenPlan(None, (reason,))
    out = request.out or PLAN_OUT
    drafted = _draft(rec, situation, request, out)
    for line in drafted.notes:
        output.note(line)
    if request.wordings:
        worded = with_log_questions(drafted.plan, request.wordings, out.parent, situation.stats)
        drafted = replace(drafted, plan=worded)
    checked = check_files(drafted.plan, out.parent, situation)
    print_data_notes(checked.notes)
    if request.out is None and out.is_file():
        _back_up(out)
    plan = with_forecast(drafted.plan, rec, situation)
    write_plan(plan, out)
    arms = ", ".join(arm.arm for arm in plan.arms)
    output.note(f"wrote {out}, which tests {arms}; the forecast for them is in {forecast_path(out)}")
    if not request.as_json:
        _show_forecast(plan, rec)
    _note_rows(situation, drafted.plan)
    for key in ("examples", "questions"):
        if offer := making_offer(profile, key):
            output.note(offer)
    if problem := checked.problem:
        output.note(f"it cannot be run as it is: {problem.message}")
        output.note(f"  next: {problem.hint}")
        return WrittenPlan(out, (problem.message,), checked)
    _note_downloads(drafted.plan)
    blocked = []
    for model in requirements.unobtainable_models(drafted.plan):
        about = ", ".join(filter(None, (model.hub if model.hub != model.name else "", model.size)))
        blocked.append(
            f"{model.name}{f' ({about})' if about else ''} is not on this machine, only on the hub"
        )
        output.note(blocked[-1])
        output.note(f"  first {model.hint}")
    accept = [word for name in accepted_licenses() for word in ("--accept-license", name)]
    terms = any(find_terms(download.license) for download in requirements.plan_downloads(drafted.plan))
    flags = accept if terms else []
    flags += launcher_words(drafted.plan, _trained_profile(drafted.plan, rec))
    output.note(f"{'then run' if blocked else 'run'} it with: {output.command_line('run', out, *flags)}")
    return WrittenPlan(out, tuple(blocked), checked)


def _draft(rec: BaseRecommendation, situation: Situation, request: PlanRequest, out: Path) -> DraftedPlan:
    """Return the plan of a recommendation; that of several models is drafted with the advice on them."""
    if isinstance(rec, ModelsRecommendation) and rec.drafted is not None:
        return rec.drafted
    drafted = draft_with_notes(rec, situation, out.parent, request.embedder)
    if request.tune_retriever:
        drafted = replace(drafted, plan=with_tuned_retriever(drafted.plan))
    return drafted


def _trained_profile(plan: Plan, rec: BaseRecommendation) -> Profile:
    """Return the situation with the model that the plan trains first; without any, with that of the recommendation."""
    trained = next((step.arm for step in plan.steps if isinstance(step, TrainStep)), "")
    return for_trial(rec.by_alias.get(split_arm(trained)[1], rec).profile)[0]


def _back_up(plan: Path) -> None:
    """Copy a plan and its forecast to files beside them, and say so."""
    backup = plan.with_suffix(".yaml.bak")
    write_bytes(backup, plan.read_bytes())
    forecast = forecast_path(plan)
    forecast_backup = forecast.with_suffix(".json.bak")
    if forecast.is_file():
        write_bytes(forecast_backup, forecast.read_bytes())
    else:
        forecast_backup.unlink(missing_ok=True)  # that of another plan than the one in plan.yaml.bak
    output.note(f"the plan that was there is saved as {backup}")


def launcher_words(plan: Plan, profile: Profile) -> list[str]:
    """Return the flags of ``tunewise run`` that start a plan's trainings on all GPUs; none where it trains nothing."""
    trains = any(isinstance(step, TrainStep) for step in plan.steps)
    return profile.launcher_flags.split() if trains else []


def with_forecast(plan: Plan, rec: BaseRecommendation, situation: Situation) -> Plan:
    """Return a drafted plan with the forecast of its trial in its prediction; without questions there is no trial."""
    if not (questions := situation.stats.questions):
        return plan
    if not isinstance(rec, ModelsRecommendation):
        rec = replace(rec, profile=for_trial(rec.profile)[0])
    rows = len(situation.stats.examples.rows) if situation.stats.examples else 0
    forecast = forecast_trial(plan, rec, rows, len(questions), sum(len(q.wordings) for q in questions))
    return plan.model_copy(update={"predicted": {**plan.predicted, TRIAL_FORECAST: forecast}})


def _show_forecast(plan: Plan, rec: BaseRecommendation) -> None:
    """Print what is expected of each arm of the trial; of several models also what is left out of it."""
    forecast = plan.predicted.get(TRIAL_FORECAST)
    if isinstance(rec, ModelsRecommendation) and rec.selection is not None:
        expected = {row["arm"]: row["right"] for row in (forecast or {}).get("arms", ())}
        console.console().print(models_view.render_trial(rec, expected))
        return
    if forecast is None:
        return
    rows = [
        (
            row["arm"],
            right_text(row["right"] and Share(**row["right"])),
            f"{row['minutes']:.1f}",
        )
        for row in forecast["arms"]
    ]
    corrected = f" ({forecast['corrected']})" if forecast["corrected"] else ""
    screen = console.console()
    screen.print()
    if forecast["ahead"]:
        print_plain(screen, forecast["ahead"])
    screen.print(console.table(("method to test", "right answers", "minutes"), rows, right=(2,)))
    print_plain(
        screen,
        f"forecast for {count_noun(forecast['questions'], 'test question')}: "
        f"about {forecast['minutes']:.0f} min in all{corrected}; "
        "right answers as in a probe, or in public trials of this model with such answers, where there are any",
    )


def check_files(plan: Plan, folder: Path, situation: Situation) -> CheckedFiles:
    """Return what a run of a plan would refuse about its files, and what it would say about them before it starts.

    The files are read and compared as the run itself does it. Where only the first of very many examples were counted, the
    rest is left to the run.

    Args:
        plan: the drafted plan.
        folder: the folder that its relative paths start at.
        situation: the counted files.

    Raises:
        BadInput: the questions name gold documents, and none of them exists: no plan can be right about retrieval then.
    """
    try:
        requirements.check_names(plan)
    except BadInput as problem:
        return CheckedFiles(problem=problem)
    examples = situation.stats.examples
    if examples is not None and examples.total > len(examples.rows) + len(examples.rejected):
        asked = bool(situation.stats.questions)
        return CheckedFiles(problem=None if asked else BadInput(NO_QUESTIONS, WRITE_QUESTIONS))
    paths = plan.data.model_dump(exclude_none=True)
    full = {key: folder / value for key, value in paths.items() if isinstance(value, Path)}
    whole = plan.model_copy(update={"data": plan.data.model_copy(update=full)})
    require_gold_documents(whole)
    lines: list[str] = []

    def keep_lines(event: Mapping[str, Any]) -> None:
        lines.extend(event["lines"] if event["event"] == "doc_ids.matched" else ())

    try:
        data = read_data(whole, keep_lines)
        gold = check_gold(whole, data.split)
        notes = check_data(whole, data, gold)
    except BadInput as problem:
        return CheckedFiles(problem=problem)
    for line in dict.fromkeys(lines):
        if line not in [note.text for note in notes]:
            output.note(line)
    if gold.too_many:
        output.note("a run asks before it measures with such references, and stops without a terminal")
    return CheckedFiles(notes=notes, failing_gold=gold.failing)


def _note_downloads(plan: Plan) -> None:
    """Print what running the plan would download first, and whether the disk has no space for it."""
    downloads = requirements.plan_downloads(plan)
    for download in downloads:
        output.note(f"running it first fetches {download.text}")
    try:
        resolve.check_licenses(downloads)
        resolve.check_cache_space(downloads)
    except CannotRun as problem:
        output.note(f"{problem.message}: {problem.hint}")


def _note_rows(situation: Situation, plan: Plan) -> None:
    """Print which examples are facts and which behaviour, and how many rows of a hybrid have their passage.

    Both read the documents; of large ones it is only said where they are counted. Without documents only replies that
    state values of their own are worth a line.
    """
    stats, path = situation.stats, situation.profile.documents
    if stats.examples is None:
        return
    rows = stats.examples.rows[:MAX_SORTED_ROWS]
    total = len(stats.examples.rows)
    first = f" (the first {MAX_SORTED_ROWS:,} of {total:,})" if total > MAX_SORTED_ROWS else ""
    if not path:
        if stats.facts.facts_in_replies:
            output.note(f"the examples{first}: {sort_rows_without_documents(rows).text}")
        return
    hybrids = [step.arm for step in plan.steps if isinstance(step, TrainStep) and step.rows == "retrieval"]
    if stats.counted["corpus_tokens"] > MAX_SORTED_TOKENS:
        if hybrids:
            output.note(
                f"{', '.join(hybrids)} trains on {len(stats.examples.rows):,} examples; how many have their passage "
                "in documents of this size is counted by: tunewise run --dry-run"
            )
        return
    output.note(f"the examples{first}: {sort_rows_of_files(rows, Path(path)).text}")
    if not hybrids:
        return
    from rag.loading.reader import load_documents
    from runners.arms.row_account import account_of_passages

    blocks = block_texts(load_documents(Path(path)).documents)
    for arm in hybrids:
        account = account_of_passages(arm, blocks, [row for row in rows if not row.raw])
        output.note(f"{account.text}{first}")
        if account.short:
            why = f"under two thirds of the examples of {arm} have their passage: a run asks before it trains, and stops"
            output.note(f"{why} without a terminal, unless --accept-lost-rows is given")
