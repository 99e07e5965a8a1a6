"""The work behind ``tunewise demo --models``: a few arms of several models, on the questions of the shipped example."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from advisor.display.trial_table import show_report
from advisor.drafting.merged_plan import merge_plans, with_arms_only, with_choice
from advisor.flags.demo import DemoFlags
from advisor.questionnaire.model_questions import parse_models
from advisor.terminal import resume_hint
from advisor.workflows.demo import print_heading, recommend_and_draft
from advisor.workflows.dry_run import show_steps
from advisor.workflows.run import FullRun, adapt_threads, announce_downloads, ask_command, run_and_report
from runners.models import resolve
from runners.plan.arm_names import arm_name
from runners.plan.schema import Plan
from runners.report.trial_report import TrialReport
from runners.trial.execute import RunRequest, quick_plan

MODELS = {"smollm": "smollm2-135m-instruct", "gemma": "gemma-3-270m"}
"""The models of the registry that are compared, by alias; others are added, or replace one by its alias."""
METHODS = ("prompting", "rag", "hybrid")
"""What is measured of each model; an endpoint is not tuned, so it has no hybrid."""


def run_models_demo(flags: DemoFlags) -> TrialReport:
    """Carry out ``tunewise demo --models``, and return its report.

    Raises:
        BadInput: a model is not given as ALIAS=NAME.
        CannotRun: the licence of a model was not accepted.
    """
    started = time.monotonic()
    models = demo_models(flags.named or ())
    resolve.check_licenses(resolve.downloads_needed(models.values()))  # before anything else is shown
    with resume_hint(flags.models_line(flags.folder, "--resume", *(["--quick"] if flags.quick else ()))):
        adapt_threads()
        plan = plan_of_models(recommend_and_draft(), models)
        full = FullRun(plan, flags.models_line(Path(f"{flags.folder}-full"))) if flags.quick else None
        plan = quick_plan(plan) if flags.quick else plan
        print_heading("The models that are compared, each on the same questions")
        for line in arms_of_models(plan):
            print(f"  {line}")
        print("  few-shot, lora and the update of the documents are measured by: tunewise demo")
        print_heading("What this will do, with a rough time for each step on this machine")
        inputs = show_steps(plan)
        announce_downloads(plan)
        print_heading("Running")
        request = RunRequest(
            plan=plan, out=flags.folder, resume=flags.resume, overwrite=flags.overwrite, data=inputs
        )
        run, report = run_and_report(request, label="demo", full=full)
        assert report is not None, "the demo's plan measures its choice"
        print_heading("The trial")
        show_report(report)
    print(f"\nreport: {run.path / 'report.html'}")
    print(f'ask it: {ask_command(run.path, report)} "What does entry to the Ropewalk Museum cost?"')
    print(f"done in {(time.monotonic() - started) / 60:.1f} minutes")
    return report


def demo_models(named: Sequence[str]) -> dict[str, str]:
    """Return the names of the models to compare by alias: the pair of the registry with those that are named.

    Raises:
        BadInput: one is not of the form ALIAS=NAME, an alias is given twice, or the address of an endpoint is malformed.
    """
    given = parse_models("\n".join(named))
    for name in given.values():
        resolve.parse_remote(name)
    return {**MODELS, **given}


def plan_of_models(drafted: Plan, models: Mapping[str, str]) -> Plan:
    """Return the plan of :data:`METHODS` of several models, made of the one that was drafted for one model.

    Each tuned arm is trained once. The choice is hybrid of the first model; no forecast is taken over, for it is of another
    trial.
    """
    tuned = {step.arm for step in drafted.arms if step.weights}
    plans = {}
    for alias, name in models.items():
        methods = [m for m in METHODS if not (resolve.parse_remote(name) and m in tuned)]
        model = drafted.model.model_copy(update={"name": name, "fingerprint": None})
        plans[alias] = with_arms_only(drafted, methods).model_copy(update={"model": model})
    first = next(iter(models))
    merged = merge_plans(plans, first).model_copy(update={"name": f"{drafted.name}-models"})
    return with_choice(merged, arm_name(METHODS[-1], first), {}, drafted.answers)


def arms_of_models(plan: Plan) -> list[str]:
    """Return for each model of a plan what is measured of it, and of an endpoint why it is not tuned."""
    lines = []
    for alias, model in plan.models.items():
        arms = [step.arm for step in plan.arms if plan.model_of(step) == model]
        remote = resolve.parse_remote(model.name)
        untuned = "; an endpoint is not tuned" if remote else ""
        lines.append(f"{alias}, {remote.name if remote else model.name}: {', '.join(arms)}{untuned}")
    return lines
