"""The work of ``tunewise label``: a session on a page or in the terminal, and gold written into the file of questions."""

from __future__ import annotations

import sys
import threading
import webbrowser
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from advisor.flags.label import LabelFlags
from advisor.output import command_line, emit_result, note
from rag.errors import UsageProblem
from rag.text.sanitize import single_line
from rag.text.words import count_noun
from runners.judging.grades import GRADE_JOURNAL
from runners.labels.gold import (
    GoldChange,
    GoldChanges,
    gold_changes,
    require_takes_gold,
    takes_gold,
    write_gold,
)
from runners.labels.journal import this_person
from runners.labels.labels import RunLabels, read_labels
from runners.labels.records import LabelProgress
from runners.labels.run_answers import LabelQuestions, match_questions, read_run_answers
from runners.labels.session import LabelSession
from runners.plan.schema import Plan
from runners.run_folder import TRIAL, read_run_plan

SHOWN_CHANGES = 5
"""Changed rows that the terminal shows whole; of the others the ids."""
SHOWN_CHARS = 100
TERMINAL_BROWSERS = ("www-browser", "links", "elinks", "lynx", "w3m")


def label_answers(flags: LabelFlags) -> None:
    """Label as the flags say, then write gold after agreement, and print what came of it.

    Raises:
        UsageProblem: flags do not fit each other, or it was not agreed to write.
        BadInput: as in :meth:`LabelSession.open`.
        CannotRun: the run folder or the file of questions cannot be written.
    """
    if flags.out and not flags.write:
        raise UsageProblem("--out is where --write writes", "add --write, or leave --out away")
    if flags.write:
        require_takes_gold(flags.out or flags.questions, f"write another file: {_write_line(flags)}")
    progress: LabelProgress | None = None
    if not flags.write:
        with LabelSession.open(flags.questions, flags.run, _person(flags), flags.all_pairs) as session:
            for line in session.progress().notes:
                note(line)
            _label(session, flags)
            progress = session.progress()
        _say_progress(progress, flags)
    written = _write(flags, *_read(flags))
    if flags.as_json:
        emit_result({"schema": 1, "progress": progress and asdict(progress), "gold": written})


def _person(flags: LabelFlags) -> str:
    return this_person() if flags.by is None else flags.by


def _write_line(flags: LabelFlags) -> str:
    """Return the command that writes the gold, into another file where QUESTIONS cannot take it."""
    out = () if takes_gold(flags.questions) else ("--out", flags.questions.with_suffix(".jsonl"))
    return command_line("label", flags.questions, "--run", flags.run, "--write", *out)


def _label(session: LabelSession, flags: LabelFlags) -> None:
    if flags.terminal:
        from advisor.workflows.label_terminal import label_on_terminal

        with suppress(KeyboardInterrupt):  # another way to end; every label is on the disk
            label_on_terminal(session, sys.stdin)
        return
    from advisor.terminal import require_extra

    require_extra("serve", "fastapi", "uvicorn", "sse_starlette", "prometheus_client")
    from runners.serving.label_page.server import serve_page

    def ready(url: str) -> None:
        note(f"label here: {url}")
        note("end it on the page or with Ctrl-C; without a browser: --terminal")
        if not flags.no_open:
            _open_browser(url)

    serve_page(session, port=flags.port, on_ready=ready)


def _open_browser(url: str) -> None:
    """Open a browser without waiting for it; one of the terminal runs no scripts, and would take the terminal."""
    with suppress(webbrowser.Error):
        if getattr(webbrowser.get(), "name", "") not in TERMINAL_BROWSERS:
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def _say_progress(progress: LabelProgress, flags: LabelFlags) -> None:
    skipped = f", {count_noun(progress.skipped, 'question')} skipped" if progress.skipped else ""
    note(f"{progress.by}: {count_noun(progress.pages, 'page')} labelled{skipped}")
    for line in progress.results:
        note(f"  {line}")
    note(f"continue with: {flags.resume_line()}")
    if any(pair.labels for pair in progress.pairs):
        note(f"take the labels into the report: {command_line('run', flags.run, '--resume')}")


def _read(flags: LabelFlags) -> tuple[RunLabels, LabelQuestions]:
    """Return the labels of all people, and the questions of the file."""
    return read_labels(flags.run), match_questions(flags.questions, read_run_answers(flags.run))


def _write(flags: LabelFlags, labels: RunLabels, questions: LabelQuestions) -> dict[str, Any]:
    """Show what people's gold changes in the file, write it where that is agreed to, and return what was done."""
    changes = gold_changes(labels, questions)
    rows = len(changes.changes)
    body: dict[str, Any] = {
        "file": str(flags.out or flags.questions),
        "changed": rows,
        "unlabelled": changes.unlabelled,
        "same": changes.same,
        "disagree": list(changes.disagree),
        "unwritable": list(changes.unwritable),
        "written": False,
    }
    if not rows:
        if flags.write or changes.disagree or changes.unwritable:
            note("no gold to write")
            for line in changes.notes():
                note(f"  {line}")
        return body
    target = flags.out or flags.questions
    _show(changes, target)
    if not (flags.run / TRIAL / GRADE_JOURNAL).exists():
        note("  a judge that is to count has to grade this run's answers before the gold is written")
    if not takes_gold(target) or not _agreed(flags, target, rows):
        note(f"the gold is not written; write it with: {_write_line(flags)}")
        return body
    backup = write_gold(changes, flags.out)
    note(
        f"{target}: the gold of {count_noun(rows, 'row')} is written"
        + (f"; the file that was there is saved as {backup}" if backup else "")
    )
    note(f"judge the run's answers by it: {_next_command(flags.run, read_run_plan(flags.run), target)}")
    return body | {"written": True, "backup": backup and str(backup)}


def _show(changes: GoldChanges, target: Path) -> None:
    note(f"gold for {target} changes {count_noun(len(changes.changes), 'row')}:")
    for change in changes.changes[:SHOWN_CHANGES]:
        for line in change_lines(change):
            note(f"  {line}")
    if more := [change.id for change in changes.changes[SHOWN_CHANGES:]]:
        note(f"  and {count_noun(len(more), 'more row')}: {', '.join(more)}")
    for line in changes.notes():
        note(f"  {line}")


def change_lines(change: GoldChange) -> list[str]:
    """Return what changes in a row, a line for each key."""
    lines = [f"{change.id} (line {change.line}): {_short(change.question)}"]
    for key in change.keys:
        before, after = (_short(value) if value is not None else None for value in (key.before, key.after))
        if after is None:
            lines.append(f"  {key.key} is removed: {before}")
        else:
            lines.append(
                f"  {key.key} is added: {after}"
                if before is None
                else f"  {key.key}: {before} becomes {after}"
            )
    return lines


def _short(value: object) -> str:
    text = single_line(str(value))
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 1].rstrip() + "…"


def _agreed(flags: LabelFlags, target: Path, rows: int) -> bool:
    """Return whether the gold is to be written; UsageProblem where it was asked for and there is no terminal to agree on."""
    if flags.yes:
        return True
    if sys.stdin.isatty() and sys.stderr.isatty():
        import typer

        return typer.confirm(f"Write the gold of {count_noun(rows, 'row')} into {target}?", err=True)
    if flags.write:
        raise UsageProblem(
            "nothing was written, as no one agreed to it", "look at what changes above, then give --yes"
        )
    return False


def _next_command(run: Path, plan: Plan, file: Path) -> str:
    """Return the command by which a run's answers are judged by the gold of a file."""
    own = [path.resolve() for path in (plan.data.questions, plan.data.test_questions) if path]
    if file.resolve() in own:
        return command_line("run", run, "--resume")
    return command_line("recheck", run, "--questions", file)
