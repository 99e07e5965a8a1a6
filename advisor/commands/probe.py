"""`tunewise probe`: measure the base model on a few of your questions before advising."""

from __future__ import annotations

from pathlib import Path

import typer

from advisor import completion


def command(
    questions: Path | None = typer.Option(
        None, help="Test questions with known answers; only the third for choices (dev) is asked."
    ),
    documents: Path | None = typer.Option(None, help="A folder, a file, or a .jsonl of document rows."),
    examples: Path | None = typer.Option(
        None, help="Examples of good answers: for style, and whether a prompt is good enough."
    ),
    columns: str | None = typer.Option(
        None,
        help="Columns of the examples (and questions): prompt=COLUMN,reply=COLUMN; guessed by their names otherwise.",
    ),
    prompt: str | None = typer.Option(None, help="Today's instructions: the text, or a file."),
    model: str | None = typer.Option(
        None,
        help="The base model: a name, a folder, or openai:NAME@URL.",
        autocompletion=completion.complete_models,
    ),
    answers: Path | None = typer.Option(None, help="Use the answers of this file, or of a plan."),
    set: list[str] = typer.Option(
        [], help="One answer: key=value; repeatable.", autocompletion=completion.complete_answers
    ),
    out: Path = typer.Option(
        Path("probe.yaml"), help="Where to write the answers, with those that were measured."
    ),
    limit: int = typer.Option(30, min=1, help="Dev questions to ask."),
    as_json: bool = typer.Option(False, "--json", help="Print what was found as JSON."),
) -> None:
    """Test the base model on some of your questions.

    It answers about 30 questions from memory, with the right passage, and with search, and ten of your examples with a
    prompt alone: is that good enough already? What is clear is written as answers for `tunewise plan --answers`; what
    stays open is only printed. About two minutes on two CPU cores.
    """
    from advisor.probe.probe_view import ProbeRequest, run_probe

    flags = {
        "documents": documents,
        "examples": examples,
        "columns": columns,
        "questions": questions,
        "prompt": prompt,
        "model": model,
    }
    run_probe(ProbeRequest(answers, tuple(set), flags, out, limit, as_json))
