"""`tunewise recheck`: a finished run measured again after something changed."""

from __future__ import annotations

from pathlib import Path

import typer

from advisor import completion


def command(
    run: Path = typer.Argument(help="The run folder.", autocompletion=completion.complete_runs),
    documents: Path | None = typer.Option(None, help="Today's documents; those of the plan by default."),
    prompt: str | None = typer.Option(None, help="Today's instructions: the text, or a file."),
    examples: Path | None = typer.Option(None, help="Today's examples."),
    questions: Path | None = typer.Option(
        None, help="The file of the run's questions, with gold that was corrected or moved."
    ),
    model: str | None = typer.Option(
        None, autocompletion=completion.complete_models, help="Another base model in place of the plan's."
    ),
    plan: Path | None = typer.Option(
        None,
        autocompletion=completion.complete_plans,
        help="A plan with other settings; its arms of the same names are measured.",
    ),
    prices: Path | None = typer.Option(None, help="A file of prices in place of TUNEWISE_FACTS."),
    arm: list[str] = typer.Option(
        [],
        help="An arm to measure; may be repeated. The one in use and the recommended one by default.",
        autocompletion=completion.complete_arms,
        show_default=False,
    ),
    all_arms: bool = typer.Option(False, "--all-arms", help="Measure every arm of the run."),
    ask_all: bool = typer.Option(
        False, "--ask-all", help="Ask every question again, also where the model reads the same."
    ),
    count_lost_gold: bool = typer.Option(
        False,
        "--count-lost-gold",
        help="Count questions whose answer the documents no longer state, as losses: for documents that keep their facts.",
    ),
    margin: float = typer.Option(
        0.0, min=0.0, max=1.0, help="A loss up to this share of the questions, or of the score, is accepted."
    ),
    out: Path | None = typer.Option(None, help="Folder for the results; one in RUN/rechecks by default."),
    junit: Path | None = typer.Option(None, help="Also write the JUnit report to this file."),
    markdown: Path | None = typer.Option(None, help="Also write the Markdown report to this file."),
    accept: bool = typer.Option(
        False, "--accept", help="Compare the next recheck with this one; the run's verdict stays."
    ),
    yes: bool = typer.Option(
        False, "--yes", help="Train again without asking where examples or model changed."
    ),
    workflow: str | None = typer.Option(None, help="Print a CI workflow file instead: github or gitlab."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """Measure a finished run again after something has changed.

    Documents, prompt, examples, model or prices: only what the change affects is asked again, on the run's own
    questions, and compared with the old answers. The run is not changed. What was answered before an interruption is
    kept. Exit code 5 where it became clearly worse.
    """
    from advisor.workflows.recheck import RecheckOptions, print_ci_workflow, recheck_run
    from runners.recheck.recheck import RecheckRequest

    request = RecheckRequest(
        documents,
        prompt,
        examples,
        questions,
        model,
        plan,
        tuple(arm),
        all_arms,
        ask_all,
        out,
        count_lost_gold,
    )
    measured: list[object] = [part for name in arm for part in ("--arm", name)]
    for flag, value in (("--model", model), ("--plan", plan), ("--prices", prices)):
        measured += [flag, value] if value else []
    measured += ["--all-arms"] * all_arms + ["--ask-all"] * ask_all
    measured += ["--count-lost-gold"] * count_lost_gold
    measured += ["--margin", f"{margin:g}"] if margin else []
    if workflow:
        print_ci_workflow(workflow, run, request, measured)
        return
    flags = list(measured)
    others = {"--documents": documents, "--prompt": prompt, "--examples": examples, "--questions": questions}
    others |= {"--out": out, "--junit": junit, "--markdown": markdown}
    flags += [part for flag, value in others.items() if value is not None for part in (flag, value)]
    flags += ["--accept"] * accept + ["--yes"] * yes
    recheck_run(run, request, RecheckOptions(margin, prices, junit, markdown, accept, yes, as_json), flags)
