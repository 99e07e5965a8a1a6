"""`tunewise examples`: rows for tuning and questions for testing, made from documents."""

from __future__ import annotations

from pathlib import Path

import typer

from advisor import completion

group = typer.Typer(help="Make examples and test questions from your documents.")


@group.command("make")
def make(
    documents: Path | None = typer.Option(None, help="A folder, a file, or a .jsonl of document rows."),
    out: Path = typer.Option(..., help="The file of rows to write (.jsonl)."),
    teacher: str | None = typer.Option(
        None,
        help="The model that writes rows: a name, a folder, or openai:NAME@URL. Without it, questions are made from "
        "English statements by rule.",
        autocompletion=completion.complete_models,
    ),
    count: int = typer.Option(100, min=1, max=100_000, help="Rows wanted."),
    rows_as: str = typer.Option(
        "",
        "--as",
        help="examples (for tuning) or questions (for testing); examples where there is a teacher.",
    ),
    wordings: Path | None = typer.Option(
        None,
        help="Have the teacher reword each question of this file as customers ask, in place of making rows.",
    ),
    prompt: str | None = typer.Option(
        None, help="Instructions that replies follow today: the text, or a file."
    ),
    questions: Path | None = typer.Option(None, help="Held-out questions: no row may contain one of them."),
    examples: Path | None = typer.Option(None, help="Your own examples: no row may repeat one of them."),
    model: str | None = typer.Option(
        None,
        help="The base model, which is asked without the passage; the default model where none is named.",
        autocompletion=completion.complete_models,
    ),
    known: str = typer.Option(
        "keep",
        help="Rows that the base model answers without the passage: keep (marked), drop, or skip the check.",
    ),
    index: Path | None = typer.Option(
        None, help="An index of the documents; without it one is built beside --out."
    ),
    embedder: str = typer.Option("all-minilm-l6-v2", help="The embedder: a known name or a folder."),
    k: int = typer.Option(10, min=1, max=100, help="Passages among which retrieval must find the row's own."),
    strict: bool = typer.Option(
        False,
        "--strict",
        help="Keep only replies that the claim check of citations supports sentence by sentence.",
    ),
    language: str = typer.Option(
        "", help="Language of the rows, such as en or de. Without it, that of each passage."
    ),
    seed: int = typer.Option(0, min=0, help="Seed of the order of documents and styles."),
    at_once: int = typer.Option(4, min=1, max=64, help="Requests to an endpoint at a time."),
    per_minute: float | None = typer.Option(None, min=0.1, help="Most requests a minute to an endpoint."),
    price: str | None = typer.Option(
        None, help="USD of a million tokens, of prompt and answer: 0.15/0.60. Without it, as listed."
    ),
    local_only: bool = typer.Option(
        False, "--data-must-stay-local", help="Refuse a teacher outside of this machine and private networks."
    ),
    resume: bool = typer.Option(False, "--resume", help="Continue with what the teacher wrote before."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace the file, and ask again."),
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Say what would be asked and what it costs; ask nothing."
    ),
    yes: bool = typer.Option(False, "--yes", help="Do not ask before an endpoint is used."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
) -> None:
    """Make examples or questions from documents, and keep only those that pass every check.

    A row is kept if its passage supports its reply, retrieval finds that passage for its question, it repeats no other row
    and no held-out question, and it is one question in the right language. Each row names its document, its teacher and
    what was checked, and is marked made: a verdict never rests on made questions alone.
    """
    from advisor.workflows.examples_make import MakeFlags, make_rows

    make_rows(
        MakeFlags(
            documents=documents,
            out=out,
            teacher=teacher,
            count=count,
            rows_as=rows_as,
            prompt=prompt,
            questions=questions,
            examples=examples,
            model=model,
            known=known,
            index=index,
            embedder=embedder,
            k=k,
            strict=strict,
            language=language,
            seed=seed,
            at_once=at_once,
            per_minute=per_minute,
            price=price,
            local_only=local_only,
            resume=resume,
            overwrite=overwrite,
            dry_run=dry_run,
            yes=yes,
            as_json=as_json,
            wordings=wordings,
        )
    )
