"""`tunewise plan`: profile the situation, recommend a method, write the plan."""

from __future__ import annotations

from pathlib import Path

import typer

from advisor import completion


def command(
    answers: Path | None = typer.Option(
        None, help="Use the answers of this file (YAML or JSON), or of a plan."
    ),
    set: list[str] = typer.Option(
        [],
        help="One answer: key=value (the ids of the questionnaire); repeatable.",
        autocompletion=completion.complete_answers,
    ),
    documents: Path | None = typer.Option(None, help="A folder, a file, or a .jsonl of document rows."),
    examples: Path | None = typer.Option(None, help="Examples of good answers, for fine-tuning."),
    columns: str | None = typer.Option(
        None,
        help="Columns of the examples (and questions): prompt=COLUMN,reply=COLUMN; guessed by their names otherwise.",
    ),
    questions: Path | None = typer.Option(
        None, help="Test questions with known answers, not used for tuning."
    ),
    wordings: Path | None = typer.Option(
        None,
        help="Questions of a log, without answers (.txt, .jsonl, .csv): how people ask; stored beside the plan, masked.",
    ),
    prompt: str | None = typer.Option(None, help="Today's instructions: the text, or a file."),
    model: str | None = typer.Option(
        None,
        help="The base model: a name, a folder, or openai:NAME@URL.",
        autocompletion=completion.complete_models,
    ),
    out: Path | None = typer.Option(None, help="Where to write the plan (default: plan.yaml)."),
    yes: bool = typer.Option(False, "--yes", "-y", help="Ask nothing; what is unknown stays unknown."),
    probe: bool = typer.Option(
        False,
        "--probe",
        help="Measure the base model on a few dev questions first, as tunewise probe does, and plan from that.",
    ),
    tune_retriever: bool = typer.Option(
        False,
        "--tune-retriever",
        help="Also tune the embedder on the examples and measure it as the arm rag-tuned (needs the extra retriever).",
    ),
    profile: str | None = typer.Option(
        None,
        help="Use the answers of a saved profile; see --profiles.",
        autocompletion=completion.complete_profiles,
    ),
    save: str | None = typer.Option(None, help="Save your answers as a profile of this name."),
    profiles: bool = typer.Option(False, "--profiles", help="List the saved profiles and stop."),
    accept_license: list[str] = typer.Option(
        [],
        help="Accept the terms of this licence, so that models under it are fetched: gemma; repeatable.",
        autocompletion=completion.complete_licenses,
    ),
    record: Path | None = typer.Option(None, help="Write a one-page decision record (Markdown) here."),
    as_json: bool = typer.Option(False, "--json", help="Print the recommendation as JSON on stdout."),
    schema: bool = typer.Option(False, "--schema", help="Print the plan's JSON Schema and stop."),
) -> None:
    """Recommend a method for your task, and write a plan to test it.

    On a terminal it asks what is unknown. Elsewhere, or with --yes, unknown stays unknown and lowers the confidence.
    Where the advice is unsure and your files allow it, it offers to measure first; --probe does that at once.
    """
    from advisor.workflows.plan import PlanRequest, make_plan, print_profiles, print_schema
    from runners.models.licenses import accept_licenses

    accept_licenses(accept_license)
    if schema:
        print_schema()
        return
    if profiles:
        print_profiles(as_json)
        return
    flags = {
        "documents": documents,
        "examples": examples,
        "columns": columns,
        "questions": questions,
        "prompt": prompt,
        "model": model,
    }
    make_plan(
        PlanRequest(
            answers,
            tuple(set),
            flags,
            out,
            yes,
            as_json,
            profile,
            save,
            record,
            probe,
            tune_retriever,
            wordings=wordings,
        )
    )
