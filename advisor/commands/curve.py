"""`tunewise curve`: how many examples are enough."""

from __future__ import annotations

from pathlib import Path

import typer

from advisor import completion


def command(
    target: Path | None = typer.Argument(
        None,
        help="A run folder or a plan. Of a finished run the test questions are asked, of a plan the dev questions.",
        autocompletion=completion.complete_runs,
    ),
    examples: Path | None = typer.Option(None, help="Without a plan: the examples to tune on."),
    questions: Path | None = typer.Option(None, help="Without a plan: questions; their dev part is asked."),
    model: str | None = typer.Option(
        None, help="Without a plan: the base model.", autocompletion=completion.complete_models
    ),
    method: str | None = typer.Option(None, help="Without a plan: lora, qlora or full; lora by default."),
    arm: str | None = typer.Option(
        None,
        help="The arm: tuned, few-shot or classifier. By default the one to use, else the first tuned one.",
        autocompletion=completion.complete_arms,
    ),
    sizes: str | None = typer.Option(
        None, help="Numbers of rows, as 50,100,200; 1/8, 1/4, 1/2 and all by default."
    ),
    seeds: int | None = typer.Option(
        None, help="Trainings of each size; by default 1, and 2 where --minutes allows.", show_default=False
    ),
    minutes: float | None = typer.Option(
        None, help="Time limit by which a second seed is decided; 60 by default.", show_default=False
    ),
    worth: float = typer.Option(
        0.01, help="Gain in the combined score that makes twice as many examples worth writing."
    ),
    out: Path | None = typer.Option(
        None,
        help="The folder of the curve; RUN/curves/ARM or curves/NAME-ARM by default.",
        show_default=False,
    ),
    resume: bool = typer.Option(False, "--resume", help="Continue in a folder that exists."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Start again in a folder that exists."),
    cases: Path | None = typer.Option(
        None, help="Measure nothing: score the forecast on a file of published curves.", show_default=False
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the curve as JSON."),
) -> None:
    """Find out whether more examples would help.

    It trains on 1/8, 1/4, 1/2 and all examples (the largest is taken from a finished run), and says what more would bring.
    """
    from advisor.output import emit_result

    if cases is not None:
        from benchmarks.scorers.curve_cases import score_cases_file, show_case_scores

        data = score_cases_file(cases, [str(target)] if target else [])
        emit_result(data) if as_json else show_case_scores(data)
        return
    from advisor.workflows.curve import CurveRequest, measure, parse_sizes, show_curve

    files = (target, examples, questions, model, method, arm)
    request = CurveRequest(*files, parse_sizes(sizes), seeds, minutes, worth, out, resume, overwrite)
    data = measure(request, as_json)
    emit_result(data) if as_json else show_curve(data)
