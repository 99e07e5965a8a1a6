"""The work behind ``tunewise examples make``: files are read, rows are made and checked, and what came of it is said."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advisor.catalog.prices import find_price
from advisor.display.events import print_event
from advisor.display.progress import watch_progress
from advisor.drafting.form_checks import derive_checks
from advisor.flags.examples import MakeFlags
from advisor.output import emit_result, note
from advisor.settings import read_settings
from advisor.terminal import resume_hint
from advisor.workflows.examples_summary import (
    JOURNAL,
    estimate_requests,
    estimate_rewording,
    show_request_estimate,
    show_rewording,
    show_summary,
    summarise_making,
    summarise_rewording,
)
from advisor.workflows.index_build import index_path, load_embedder
from advisor.workflows.train_inputs import read_prompt
from rag.embedding.language import detect_language
from rag.errors import BadInput, CannotRun, UsageProblem
from rag.evaluation.gold_documents import match_documents
from rag.files import append_line, write_text, writer_lock
from rag.index import Index
from rag.loading.reader import load_documents
from rag.text.words import count_noun
from runners.catalog.models import DEFAULT_MODEL
from runners.data.examples import load_examples
from runners.data.questions import load_questions, with_document_ids
from runners.data.tabular import read_rows
from runners.data.teachers import GRAMMAR, LICENSE_ANSWERS, LICENSE_QUESTION, NOT_ANSWERED
from runners.inference.http_client import RequestLimits
from runners.inference.remote import RemoteGenerator
from runners.models.endpoint import check_may_contact, endpoint_host
from runners.models.resolve import RemoteModel, parse_remote
from runners.run_folder import read_journal
from runners.synthesis.making import (
    BaseModelCheck,
    RowMaker,
    Teacher,
    example_row,
    make_without_teacher,
    question_row,
    rejected_row,
)
from runners.synthesis.question_form import language_name
from runners.synthesis.rewording import WORDING_FORM, WordingMaker, worded_rows
from runners.synthesis.row_checks import RowChecker
from runners.synthesis.teacher import ROW_FORM, TeacherTask, load_local_model

if TYPE_CHECKING:
    from rag.types import Chunk
    from runners.inference.constraints.constraint import OutputConstraint
    from runners.inference.types import Generator
    from runners.synthesis.making import MakingOutcome

EXAMPLES, QUESTIONS = "examples", "questions"
KEEP, DROP, SKIP = "keep", "drop", "skip"
_PRICE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*")


def make_rows(flags: MakeFlags) -> None:
    """Make rows as the flags say and print what came of it.

    Raises:
        UsageProblem: flags that exclude each other, or a file that is there already.
        BadInput: a file cannot be read, or data may not leave this machine.
        CannotRun: a model or an endpoint cannot be had.
    """
    kind, remote, price = _check_flags(flags)
    _check_place(flags)
    if remote is not None:
        check_may_contact(remote.name, remote.url, flags.local_only or _settings_say_local())
    if flags.documents is not None and not flags.documents.exists():
        raise BadInput(
            f"{flags.documents} does not exist", "give a folder, a file, or a .jsonl of document rows"
        )
    flags = _with_license_answer(flags, kind, remote)
    with resume_hint(flags.resume_line(), "the teacher's texts"), writer_lock(flags.work):
        if flags.wordings is not None:
            _make_wordings(flags, flags.wordings, remote, price)
        else:
            _make(flags, kind, remote, price)


def _check_flags(flags: MakeFlags) -> tuple[str, RemoteModel | None, tuple[float, float] | None]:
    """Return the kind of rows, the endpoint of the teacher and its price."""
    if flags.wordings is not None:
        _check_wording_flags(flags)
    elif flags.documents is None:
        raise UsageProblem("there is nothing to make rows from", "give --documents, or --wordings FILE")
    kind = flags.rows_as or (EXAMPLES if flags.teacher else QUESTIONS)
    if kind not in (EXAMPLES, QUESTIONS):
        raise UsageProblem(f"--as {kind!r} is not known", f"choose {EXAMPLES} or {QUESTIONS}")
    if kind == EXAMPLES and not flags.teacher:
        raise UsageProblem(
            "examples need a teacher that writes the replies: by rule only questions can be made",
            "give --teacher openai:NAME@URL or a model on this machine, or --as questions",
        )
    _check_license_flag(flags, kind)
    if flags.known not in (KEEP, DROP, SKIP):
        raise UsageProblem(f"--known {flags.known!r} is not known", f"choose {KEEP}, {DROP} or {SKIP}")
    if flags.resume and flags.overwrite:
        raise UsageProblem("--resume and --overwrite exclude each other", "choose one")
    remote = parse_remote(flags.teacher) if flags.teacher else None
    price = None
    if flags.price:
        match = _PRICE.fullmatch(flags.price)
        if match is None:
            raise UsageProblem(
                f"--price {flags.price!r} is not of the form 0.15/0.60", "USD of a million tokens in and out"
            )
        price = float(match[1]), float(match[2])
    elif remote is not None and (listed := find_price(remote.name)):
        price = listed.input, listed.output
    return kind, remote, price


def _check_license_flag(flags: MakeFlags, kind: str) -> None:
    """Raise UsageProblem for an answer that is none, or that is about no rows to train on."""
    if flags.teacher_license is None:
        return
    if flags.teacher_license not in LICENSE_ANSWERS:
        choices = ", ".join(LICENSE_ANSWERS)
        raise UsageProblem(
            f"--teacher-license {flags.teacher_license!r} is no answer", f"choose of {choices}"
        )
    if kind != EXAMPLES or flags.wordings is not None:
        raise UsageProblem(
            "--teacher-license is about rows to train on, and these are questions to test with", "remove it"
        )


def _with_license_answer(flags: MakeFlags, kind: str, remote: RemoteModel | None) -> MakeFlags:
    """Return the flags with the answer to :data:`LICENSE_QUESTION`: as given, as stored before, or asked on a terminal.

    None where it was not answered.
    """
    if kind != EXAMPLES or flags.wordings is not None or flags.teacher_license or flags.dry_run:
        return flags
    teacher = [remote.name, endpoint_host(remote.url)] if remote else [flags.teacher, ""]
    stored = [row for row in read_journal(flags.work / JOURNAL) if row.get("license_of") == teacher]
    if stored and not flags.overwrite:
        return replace(flags, teacher_license=stored[-1]["license"])
    if flags.yes or flags.as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return flags
    import typer

    note(
        "tunewise does not know the answer to this; yours is stored with the rows and all that learns from them:"
    )
    answer = ""
    while answer not in LICENSE_ANSWERS:
        question = f"{LICENSE_QUESTION} ({', '.join(LICENSE_ANSWERS)})"
        answer = typer.prompt(question, default="unknown", err=True).strip().lower()
    return replace(flags, teacher_license=answer)


def _check_wording_flags(flags: MakeFlags) -> None:
    """Raise UsageProblem for flags that change nothing where questions are reworded, and without a teacher."""
    if not flags.teacher:
        raise UsageProblem(
            "other wordings need a teacher that writes them",
            "give --teacher openai:NAME@URL or a model on this machine",
        )
    unused = ("documents", "rows_as", "prompt", "questions", "examples", "index", "strict")
    if given := [f"--{name.removeprefix('rows_')}" for name in unused if getattr(flags, name)]:
        raise UsageProblem(f"--wordings makes no rows, so {', '.join(given)} changes nothing", "remove it")


def _check_place(flags: MakeFlags) -> None:
    """Refuse to replace a file, or to mix two makings, without being told to."""
    if flags.resume or flags.overwrite or flags.dry_run:
        return
    started = (flags.work / JOURNAL).exists()
    if flags.out.exists() or started:
        what = (
            f"{flags.out} exists"
            if flags.out.exists()
            else f"{flags.work} has unfinished work of an earlier call"
        )
        raise UsageProblem(what, "--resume continues with what the teacher wrote, --overwrite starts again")


def _settings_say_local() -> bool:
    """Return whether the settings file forbids sending data elsewhere."""
    answers = read_settings().answers
    return answers.get("data_must_stay_local") in (True, "yes") or answers.get("hosted_api_allowed") in (
        False,
        "no",
    )


def _make(flags: MakeFlags, kind: str, remote: RemoteModel | None, price: tuple[float, float] | None) -> None:
    started = time.monotonic()
    system = read_prompt(flags.prompt) or ""
    language = _language(flags.language)
    task = TeacherTask(system, kind == QUESTIONS, language)
    if not flags.teacher and flags.index is None:
        _refuse_other_languages(flags)
    index = _open_index(flags)
    checker = _checker(flags, index, language)
    chunks = index.chunks
    _note_language(chunks, flags)
    if flags.teacher:
        estimate = estimate_requests(flags, task, chunks, price)
        show_request_estimate(flags, estimate, remote)
        if flags.dry_run:
            if flags.as_json:
                emit_result({"schema": 1, "dry_run": True, **estimate})
            return
        _confirm(flags, remote)
    elif flags.dry_run:
        note(
            f"questions would be made by rule from {count_noun(len(chunks), 'passage')}; no model is asked for them"
        )
        if flags.as_json:
            emit_result({"schema": 1, "dry_run": True, "passages": len(chunks), "requests": 0})
        return
    with watch_progress() as watch:
        teacher = _teacher(flags, remote)
        base = _base(flags, teacher, system)
        outcome = _outcome(flags, checker, task, teacher, base, chunks, watch)
    _write(flags, kind, system, teacher, outcome)
    summary = summarise_making(flags, kind, teacher, base, outcome, chunks, price, time.monotonic() - started)
    if flags.as_json:
        emit_result(summary)
    else:
        show_summary(summary)


def _make_wordings(
    flags: MakeFlags, source: Path, remote: RemoteModel | None, price: tuple[float, float] | None
) -> None:
    """Have the teacher reword the questions of a file, and write its rows with the wordings that pass."""
    started = time.monotonic()
    questions = load_questions(source)
    language = _language(flags.language)
    estimate = estimate_rewording(flags, questions, language, price)
    show_request_estimate(flags, estimate, remote)
    if flags.dry_run:
        if flags.as_json:
            emit_result({"schema": 1, "dry_run": True, **estimate})
        return
    _confirm(flags, remote)
    with watch_progress() as watch:
        teacher = _teacher(flags, remote, WORDING_FORM)
        assert teacher is not None
        if flags.overwrite:
            (flags.work / JOURNAL).unlink(missing_ok=True)
        watch.begin("rewording questions")
        maker = WordingMaker(teacher, flags.work / JOURNAL, language=language, on_event=watch)
        with _texts_saved(flags):
            outcome = maker.make(questions)
    _write_rows(flags.rejected, [rejected.to_json() for rejected in outcome.rejected])
    _write_rows(flags.out, worded_rows(read_rows(source), questions, outcome, teacher))
    summary = summarise_rewording(flags, teacher, outcome, len(questions), price, time.monotonic() - started)
    if flags.as_json:
        emit_result(summary)
    else:
        show_rewording(summary)


def _write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as JSON lines, the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _language(given: str) -> str:
    return language_name(given) if given else ""


def _note_language(chunks: Sequence[Chunk], flags: MakeFlags) -> None:
    """Say where the documents are in a language of which no questions can be made by rule."""
    sample = chunks[:: max(1, len(chunks) // 60)][:60]
    names = [detect_language(chunk.text) for chunk in sample]
    other = sorted({name for name in names if name and name != "English"})
    if flags.teacher or not other:
        return
    share = sum(bool(name) and name != "English" for name in names) / len(names)
    finding = f"{share:.0%} of the documents look like {', '.join(other)}"
    if share == 1:
        raise _no_rules_for(flags, finding)
    note(f"{finding}: without a teacher questions are made of English only")


def _refuse_other_languages(flags: MakeFlags) -> None:
    """Refuse documents of which none is English before they are embedded, which may take minutes.

    What is left is decided by :func:`_note_language`, on passages.
    """
    documents = load_documents(flags.corpus).documents
    names = [detect_language(document.raw) for document in documents[:: max(1, len(documents) // 60)]]
    if names and all(name and name != "English" for name in names):
        raise _no_rules_for(flags, f"100% of the documents look like {', '.join(sorted(set(names)))}")


def _no_rules_for(flags: MakeFlags, finding: str) -> BadInput:
    """Return the error for documents in languages of which no questions can be made by rule."""
    return BadInput(
        f"{flags.documents}: no question could be made: {finding}: without a teacher questions are made of English only",
        "give --teacher openai:NAME@URL, or a model on this machine that writes this language",
    )


def _open_index(flags: MakeFlags) -> Index:
    """Return the index that was named, or one in the work folder, built or brought up to date."""
    embedder = load_embedder(flags.embedder)
    if flags.index is not None:
        return Index.open(index_path(str(flags.index)), embedder)
    folder = flags.work / "index"
    with watch_progress() as watch:
        build = Index.update if (folder / "CURRENT").is_file() else Index.build
        report = build(folder, flags.corpus, embedder, on_event=watch)
    for item in report.skipped:
        note(f"document {item.path} was skipped: {item.reason}")
    index = Index.open(folder, embedder)
    if not index.chunks:
        raise BadInput(f"{flags.documents} has no text to ask about", "give documents that can be read")
    return index


def _checker(flags: MakeFlags, index: Index, language: str) -> RowChecker:
    questions = load_questions(flags.questions) if flags.questions else ()
    documents = {chunk.doc for chunk in index.chunks}
    named = [question.doc_id for question in questions if question.doc_id]
    questions = with_document_ids(questions, match_documents(named, documents).ids)
    examples = load_examples(flags.examples).rows if flags.examples else ()
    replies = [example.reply for example in examples]
    return RowChecker(
        index,
        k=flags.k,
        language=language,
        strict=flags.strict,
        examples=examples,
        held_out=questions,
        answer_checks=derive_checks(replies)[0],
    )


def _confirm(flags: MakeFlags, remote: RemoteModel | None) -> None:
    """Ask before documents are sent to an endpoint, on a terminal."""
    if remote is None or flags.yes or flags.as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    import typer

    if not typer.confirm(f"Send {flags.sent} to {endpoint_host(remote.url)}?", err=True):
        raise UsageProblem("nothing was sent", "give --yes to continue without this question")


def _teacher(
    flags: MakeFlags, remote: RemoteModel | None, form: OutputConstraint | None = None
) -> Teacher | None:
    """Return the teacher; None without one. ``form``: what a local model's texts are held to, that of rows by default."""
    if not flags.teacher:
        return None
    if remote is not None:
        limits = RequestLimits(at_once=flags.at_once, per_minute=flags.per_minute)
        generator = RemoteGenerator(
            remote.url, remote.name, limits, flags.seed, on_note=lambda line: note(f"  {line}")
        )
        return Teacher(remote.name, endpoint_host(remote.url), generator, 4 * flags.at_once)
    local, weights = load_local_model(flags.teacher, print_event)
    return Teacher(flags.teacher, "", local, form=form or ROW_FORM, weights=weights)


def _base(flags: MakeFlags, teacher: Teacher | None, system: str) -> BaseModelCheck | None:
    """Return the base model that is asked without the passage; None where that is skipped or it cannot be had."""
    if flags.known == SKIP:
        return None
    name = flags.model or DEFAULT_MODEL
    remote = parse_remote(name)
    if remote is not None:
        check_may_contact(remote.name, remote.url, flags.local_only or _settings_say_local())
        limits = RequestLimits(at_once=flags.at_once, per_minute=flags.per_minute)
        generator: Generator = RemoteGenerator(remote.url, remote.name, limits, flags.seed)
        name, identity = remote.name, endpoint_host(remote.url)
    elif teacher is not None and teacher.name == name and not teacher.host:
        generator, identity = teacher.generator, teacher.weights
    else:
        generator, identity = load_local_model(name, print_event)
    return BaseModelCheck(name, generator, system, flags.known == DROP, identity)


def _outcome(
    flags: MakeFlags,
    checker: RowChecker,
    task: TeacherTask,
    teacher: Teacher | None,
    base: BaseModelCheck | None,
    chunks: Sequence[Chunk],
    watch: Any,
) -> MakingOutcome:
    if flags.overwrite:  # last: the texts may have been paid for, and what comes before may refuse or fail
        (flags.work / JOURNAL).unlink(missing_ok=True)
    if flags.teacher_license and teacher:
        answered = {"license_of": [teacher.name, teacher.host], "license": flags.teacher_license}
        append_line(flags.work / JOURNAL, answered)
    watch.begin("making rows" if teacher else "making questions by rule")
    if teacher is None:
        return make_without_teacher(checker, chunks, flags.count, flags.seed, base)
    maker = RowMaker(checker, task, teacher, flags.work / JOURNAL, base, watch)
    with _texts_saved(flags):
        return maker.make(chunks, flags.count, flags.seed)


@contextmanager
def _texts_saved(flags: MakeFlags) -> Iterator[None]:
    """Say in an error of the teacher's how to go on with what it wrote."""
    try:
        yield
    except CannotRun as problem:
        hint = f"the teacher's texts are saved; continue with: {flags.resume_line()}"
        raise CannotRun(problem.message, f"{problem.hint}; {hint}" if problem.hint else hint) from None


def _write(flags: MakeFlags, kind: str, system: str, teacher: Teacher | None, outcome: MakingOutcome) -> None:
    """Write the rows and those that did not pass, each file whole or not at all."""
    by = {"name": teacher.name, "host": teacher.host} if teacher else {"name": GRAMMAR, "host": ""}
    if teacher and kind == EXAMPLES:
        by["license"] = flags.teacher_license or NOT_ANSWERED
    rows = [
        example_row(id, row, system, by) if kind == EXAMPLES else question_row(id, row, by)
        for id, row in outcome.passed
    ]
    _write_rows(flags.rejected, [rejected_row(id, row) for id, row in outcome.rejected])
    _write_rows(flags.out, rows)
