"""The work behind ``tunewise questions``: logs are read, what is masked is shown, and questions are written."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.display.progress import watch_progress
from advisor.flags.questions import ImportFlags
from advisor.output import emit_result, note
from advisor.terminal import resume_hint
from advisor.workflows.index_build import load_embedder
from rag.embedding.language import embedder_knows_language
from rag.errors import BadInput, UsageProblem
from rag.files import write_text, writer_lock
from rag.text.words import count_noun
from runners.data.formats import parse_columns
from runners.data.log_questions import MAX_LOG_QUESTIONS
from runners.data.questions import load_questions, sure_language

if TYPE_CHECKING:
    import numpy as np

    from runners.logs.comparison import LogDifference
    from runners.logs.groups import QuestionGroups
    from runners.logs.log_import import LogImport

SHOWN_GROUPS = 8
SHOWN_CHARS = 90


def import_log(flags: ImportFlags) -> None:
    """Import questions of logs as the flags say, and print what came of it.

    Raises:
        UsageProblem: a file is there already, flags do not fit each other, or it was not agreed to write.
        BadInput: a log cannot be read or has no question in it.
    """
    _check_place(flags)
    columns = parse_columns(flags.columns) if flags.columns else None
    if flags.against is not None:
        load_questions(flags.against)  # before the minutes that the log takes
    finished = False
    try:
        with resume_hint(flags.resume_line(), "vectors that were computed"), writer_lock(flags.work):
            summary = _import(flags, columns)
        finished = True
    finally:
        if finished or not any(flags.work.glob("vectors-*.npy")):
            shutil.rmtree(flags.work, ignore_errors=True)
    if flags.as_json:
        emit_result(summary)


def _check_place(flags: ImportFlags) -> None:
    if flags.groups > flags.count:
        raise UsageProblem(
            f"--groups {flags.groups} is more than --count {flags.count}, and every cluster has a question",
            "raise --count",
        )
    targets = [path for path in (flags.out, flags.wordings) if path is not None]
    for path in targets:
        if any(path.exists() and log.exists() and path.samefile(log) for log in flags.logs):
            raise UsageProblem(f"{path} is the log itself", "write the questions elsewhere: --out")
        if path.exists() and not flags.overwrite:
            raise UsageProblem(f"{path} exists", "--overwrite replaces it")
    if len(set(targets)) < len(targets):
        raise UsageProblem("--out and --wordings are the same file", "name two")


def _import(flags: ImportFlags, columns: Mapping[str, str] | None) -> dict[str, Any]:
    from runners.logs.log_import import read_logs

    with watch_progress() as watch:
        watch.begin("reading the log")
        log = read_logs(flags.logs, columns, flags.seed, watch)
    for line in log.notes():
        note(line)
    for text in log.counter.sample:
        at = text.find("[")
        start = max(0, at - SHOWN_CHARS // 2)
        start = min(text.find(" ", start) + 1, at) if start else 0  # at the beginning of a word
        note(f"  masked, for example: {text[start : start + SHOWN_CHARS]}")
    _confirm(flags, log)
    embedder = load_embedder(flags.embedder)
    for name in log.languages:
        shown = next((q.text for q in log.questions if sure_language(q.text) == name), "")
        if shown and not embedder_knows_language(embedder, name, shown):
            note(
                f"{flags.embedder} does not know {name}: its clusters are poor there; name another with --embedder"
            )
    with watch_progress() as watch:
        watch.begin("embedding the questions")
        vectors = log.embed(embedder, flags.work, watch)
        groups = log.group(vectors, flags.count, flags.groups, flags.seed)
        difference = _compare(flags, embedder, vectors, groups)
    rows = log.rows(groups, flags.count, flags.seed)
    if flags.wordings is not None:
        _write_rows(flags.wordings, _wordings(log, flags.seed))
    _write_rows(flags.out, rows)
    summary = _summary(flags, log, groups, rows, difference)
    if not flags.as_json:
        _show(flags, log, groups, rows, difference)
    return summary


def _confirm(flags: ImportFlags, log: LogImport) -> None:
    """Ask before questions of people are written; without a terminal --yes has to be given."""
    if flags.yes:
        return
    masked = sum(log.counter.masked.values())
    what = f"{flags.out} is written from what {count_noun(round(log.asked), 'question')} of people say"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageProblem(
            f"nothing was written: {what}, {masked:,} masked values in them",
            "look at what is masked above, then give --yes",
        )
    import typer

    if not typer.confirm(f"{what}. Continue?", err=True):
        raise UsageProblem("nothing was written", "give --yes to continue without this question")


def _compare(
    flags: ImportFlags, embedder: Any, vectors: np.ndarray, groups: QuestionGroups
) -> LogDifference | None:
    """Return how the log differs from the questions that there are; None without such a file."""
    if flags.against is None:
        return None
    from runners.logs.comparison import compare_with_log
    from runners.logs.log_import import embed_in_blocks

    texts = list(dict.fromkeys(question.question for question in load_questions(flags.against)))
    return compare_with_log(vectors, groups, embed_in_blocks(embedder, texts, flags.work), flags.seed)


def _wordings(log: LogImport, seed: int) -> list[dict[str, Any]]:
    """Return rows for ``plan --wordings``: the questions that stand alone, of many a sample by how often they are asked."""
    from runners.logs.groups import sample_by_frequency

    alone = [question for question in log.questions if not question.before]
    drawn = sample_by_frequency([question.asked for question in alone], MAX_LOG_QUESTIONS, seed)
    return [{"question": alone[n].text} for n in sorted(drawn)]


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as JSON lines, the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _examples(log: LogImport, groups: QuestionGroups) -> list[str]:
    """Return the question of each cluster that is asked most."""
    usual: dict[int, str] = {}
    for question, group in zip(log.questions, groups.of, strict=True):  # the most asked first
        usual.setdefault(int(group), question.text)
    return [usual[n] for n in range(groups.count)]


def _summary(
    flags: ImportFlags,
    log: LogImport,
    groups: QuestionGroups,
    rows: Sequence[Mapping[str, Any]],
    difference: LogDifference | None,
) -> dict[str, Any]:
    examples = _examples(log, groups)
    shares = zip(groups.shares, examples, strict=True)
    body: dict[str, Any] = {
        "schema": 1,
        "out": str(flags.out),
        "questions": len(rows),
        "log": log.counts(),
        "groups": [
            {"group": n, "share": round(s, 4), "example": text} for n, (s, text) in enumerate(shares, 1)
        ],
    }
    if flags.wordings is not None:
        body["wordings"] = str(flags.wordings)
    if difference is not None:
        body["against"] = {
            "file": str(flags.against),
            "log": difference.log,
            "questions": difference.file,
            "energy_distance": None if difference.distance is None else round(difference.distance, 4),
            "p": difference.p,
            "differs": difference.differs,
            "missed_groups": [n + 1 for n in difference.missed],
            "missed_share": round(difference.missed_share, 4),
            "outside": difference.outside,
        }
    return body


def _show(
    flags: ImportFlags,
    log: LogImport,
    groups: QuestionGroups,
    rows: Sequence[Mapping[str, Any]],
    difference: LogDifference | None,
) -> None:
    """Print the clusters, and how the log differs from the questions that there are."""
    examples = _examples(log, groups)
    rule = "as told" if flags.groups else "the square root of half the different questions"
    limited = "" if flags.groups else ", at most half of --count"
    print(f"{count_noun(groups.count, 'cluster')} ({rule}{limited}); the ones asked most:")
    for share, text in list(zip(groups.shares, examples, strict=True))[:SHOWN_GROUPS]:
        print(f"  {share:4.0%}  {text[:SHOWN_CHARS]}")
    if difference is not None:
        for line in difference_lines(flags.against, difference, groups, examples):
            print(line)
    weights = [float(row["weight"]) for row in rows]
    print(
        f"{flags.out}: {count_noun(len(rows), 'question')} for {sum(weights):,.0f} asked "
        f"(weights {min(weights):,.4g} to {max(weights):,.4g}), without answers: write answers or a reference into its rows"
    )
    if len(rows) < flags.count:
        print(f"  fewer than --count {flags.count}: the log has no more different questions")
    if flags.wordings is not None:
        print(f"{flags.wordings}: for tunewise plan --wordings {flags.wordings}")


def difference_lines(
    against: Path | None, difference: LogDifference, groups: QuestionGroups, examples: Sequence[str]
) -> list[str]:
    """Return how a log differs from a file's questions, in words."""
    if difference.p is None:
        sizes = f"{difference.log} of the log and {difference.file} of {against}"
        lines = [f"too few questions to compare: {sizes}"]
    else:
        how = "asks about other things than" if difference.differs else "does not clearly differ from"
        lines = [
            f"the log {how} {against} (energy distance {difference.distance:.3f}, p {difference.p:.3f}; "
            f"{difference.log} and {count_noun(difference.file, 'question')})"
        ]
    if difference.missed:
        missed = count_noun(len(difference.missed), "cluster")
        lines.append(f"{against} asks nothing of {missed}, {difference.missed_share:.0%} of what is asked:")
        shown = difference.missed[:SHOWN_GROUPS]
        lines += [f"  {groups.shares[n]:4.0%}  {examples[n][:SHOWN_CHARS]}" for n in shown]
    if difference.outside:
        lines.append(
            f"of {against}, {count_noun(difference.outside, 'question')} of {difference.file} are like none of the log"
        )
    return lines


def forget_text(file: Path, text: str, as_json: bool) -> None:
    """Remove the rows that contain a text from a log and its rotated files, and say how many.

    Raises:
        UsageProblem: the text is blank.
        BadInput: there is no such file.
    """
    from runners.logs.question_log import forget, log_files

    if not text.strip():
        raise UsageProblem(
            "the text is blank, so every row contains it", "give a name, an address or a number"
        )
    if not log_files(file):
        raise BadInput(f"{file} does not exist", "name the file of tunewise serve --log")
    removed = forget(file, text)
    total = sum(removed.values())
    if as_json:
        emit_result({"schema": 1, "removed": total, "files": {str(path): n for path, n in removed.items()}})
        return
    print(f"removed {count_noun(total, 'row')} of {count_noun(len(removed), 'file')}")
    for path, count in removed.items():
        if count:
            print(f"  {count:,} of {path}")
    note(
        "files made from the log (questions, wordings, backups) are not changed: look for the text there too"
    )
