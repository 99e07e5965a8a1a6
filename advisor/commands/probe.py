"""`tunewise probe`: measure the base model on a few of your questions before advising."""

from __future__ import annotations

from pathlib import Path

import typer

from advisor import completion


def command(
    questions: Path | None = typer.Option(None, help="Held-out questions; only their dev part is asked."),
    documents: Path | None = typer.Option(None, help="A folder, a file, or a .jsonl of document rows."),
    examples: Path | None = typer.Option(None, help="Examples of good answers: style, and the stop rule."),
    columns: str | None = typer.Option(
        None, help="Columns of the examples: prompt=COLUMN,reply=COLUMN; guessed by their names otherwise."
    ),
    prompt: str | None = typer.Option(None, help="Today's instructions: the text, or a file."),
    model: str | None = typer.Option(
        None,
        help="The base model: a name, a folder, or openai:NAME@URL.",
        autocompletion=completion.complete_models,
    ),
    answers: Path | None = typer.Option(None, help="Answers file, or a plan whose answers to take."),
    set: list[str] = typer.Option(
        [], help="One answer: key=value; repeatable.", autocompletion=completion.complete_answers
    ),
    out: Path = typer.Option(
        Path("probe.yaml"), help="Where to write the answers, the settled ones with them."
    ),
    limit: int = typer.Option(30, min=1, help="Dev questions to ask."),
    as_json: bool = typer.Option(False, "--json", help="Print what was found as JSON."),
) -> None:
    """Ask the base model about 30 dev questions three ways: from memory, with the right passage, with retrieval.

    Ten real examples by prompting alone tell whether to stop there. What the intervals settle is written as answers
    for `tunewise plan --answers`; what they leave open is only reported. About two minutes on two CPU cores.
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
