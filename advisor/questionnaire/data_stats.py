"""Count what the user's files hold: documents, examples, questions, tokens, repeats, formats.

:func:`measure_files` is the entry point; its :class:`DataStats` become answers with the source ``counted``.
Imports no torch; a tokenizer is only loaded when the model's folder has one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from advisor.questionnaire.answer_lookup import count_answers
from advisor.questionnaire.data_facts import HALF_HELD, STATE_FACTS, DataFacts
from advisor.questionnaire.file_facts import count_facts
from advisor.questionnaire.made_rows import made_warnings
from rag.errors import BadInput
from rag.files import parse_json
from rag.text.words import count_noun
from rag.types import Document
from runners.data import duplicates
from runners.data.examples import Example, ExampleSet, load_examples, shared_opening
from runners.data.labels import labels_of
from runners.data.leakage import Leak
from runners.data.questions import Question, read_question_file
from runners.data.tabular import ROW_FORMAT, read_rows
from runners.runs import dataset
from runners.tokenization.token_estimate import (
    CHARS_PER_TOKEN,
    FOREIGN_TOKEN_ERROR,
    TOKEN_ERROR,
    count_pieces,
)

MAX_READ_BYTES = 20_000_000
"""Above this size documents are not read; their tokens are estimated from the file size."""
MAX_EXAMPLES = 20_000
"""Above this number of rows only the first are read; their statistics are scaled to all rows."""
SAMPLE_CHARS = 1_000_000
"""Characters that are tokenized to estimate the tokens of longer texts."""

WHICH_DOCUMENTS = (
    "which documents hold these? Name them with --documents; a model that is trained on such replies repeats old values, "
    "and invents some where it is asked for others"
)
"""The question about replies that are facts, where no documents are named."""


NO_FACTS = DataFacts()
"""What is known where no file tells anything."""


@dataclass(frozen=True, slots=True)
class TokenCounting:
    """A way of counting tokens, and its description for notes."""

    count: Callable[[str], int]
    how: str
    exact: bool = True
    """Whether it is the model's own tokenizer."""

    def of(self, texts: Sequence[str]) -> int:
        """Count tokens; beyond a million characters they are extrapolated from a sample of that size."""
        total = sum(len(text) for text in texts)
        tokens = 0
        chars = 0
        for text in texts:
            if chars >= SAMPLE_CHARS:
                break
            tokens += self.count(text)
            chars += len(text)
        return round(tokens * total / chars) if chars else 0


@dataclass(frozen=True, slots=True)
class DataStats:
    """What was counted, with the loaded rows so that nothing is read twice."""

    counted: dict[str, Any]
    """Values of the questionnaire's keys."""
    notes: dict[str, str]
    """How each value was found."""
    examples: ExampleSet | None = None
    questions: tuple[Question, ...] | None = None
    warnings: tuple[str, ...] = ()
    facts: DataFacts = NO_FACTS
    """What decides beyond the answers."""


@lru_cache(maxsize=4)
def token_counting(folder: Path | None) -> TokenCounting:
    """Count with the tokenizer of a model folder, else estimate tokens from words, digits and marks."""
    if folder is not None and (folder / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        encode = tokenizer.encode
        return TokenCounting(
            lambda text: len(encode(text, add_special_tokens=False).ids), f"tokenizer of {folder.name}"
        )
    return TokenCounting(count_pieces, "estimated from words, digits and marks", exact=False)


def measure_files(
    documents: Path | None,
    examples: Path | None,
    questions: Path | None,
    tokens: TokenCounting,
    prompt: str = "",
    columns: Mapping[str, str] | None = None,
    output_format: str | None = None,
) -> DataStats:
    """Count the files that are given.

    Args:
        documents: a folder, a file or a .jsonl of documents.
        examples: training rows.
        questions: held-out questions.
        tokens: how tokens are counted.
        prompt: the instructions, counted into prompts without a system turn of their own and checked for leakage.
        columns: the column of the examples for each role, None to guess them.
        output_format: what a person answered to the question of that name.

    Raises:
        BadInput: for missing or broken files, and, naming the rows, when questions occur in the examples or
            in the instructions.
    """
    counted: dict[str, Any] = {}
    notes: dict[str, str] = {}
    warnings: list[str] = []
    read: tuple[Document, ...] = ()
    if documents is not None:
        size, note, read = _count_documents(documents, tokens, warnings)
        counted |= {"corpus_tokens": size, "task_needs_facts": "new"}
        notes |= {"corpus_tokens": note, "task_needs_facts": "there are documents"}
    example_set = load_examples(examples, columns, MAX_EXAMPLES) if examples is not None else None
    rows = example_set.rows if example_set is not None else ()
    if example_set is not None and examples is not None:
        _count_examples(example_set, examples, tokens, prompt, counted, notes, warnings)
    question_rows: tuple[Question, ...] | None = None
    if questions is not None:
        question_file = read_question_file(questions, columns)
        question_rows = question_file.questions
        warnings += question_file.notes(questions)
        _warn_of_shared_instruction(rows, question_rows, warnings)
        guarded = dataset.partition_questions(rows, question_rows, prompt, questions, examples)
        _warn_of_near_repeats(guarded.left_out, warnings)
        _warn_of_missing_answers(question_rows, questions, warnings)
    facts = count_facts(
        rows,
        question_rows or (),
        None if documents is None else [document.raw for document in read],
        output_format,
        _scale(example_set) if example_set is not None else 1.0,
    )
    if facts.label_count and example_set is not None:
        facts = _with_labels_counted(facts, example_set, tokens, counted, notes)
    facts = _with_answers_counted(facts, read, rows, question_rows or (), counted, notes, warnings)
    if facts.replies_state_facts:
        _count_facts_as_needed(facts, counted, notes, warnings)
    warnings += made_warnings(rows, question_rows or ())
    facts = _with_token_ranges(facts, tokens, counted, notes)
    return DataStats(counted, notes, example_set, question_rows, tuple(warnings), facts)


def _with_labels_counted(
    facts: DataFacts,
    example_set: ExampleSet,
    tokens: TokenCounting,
    counted: dict[str, Any],
    notes: dict[str, str],
) -> DataFacts:
    """Count the labels as an answer, and return the facts with the mean tokens of the texts that get one."""
    counted["label_count"], notes["label_count"] = facts.label_count, "different replies of the examples"
    texts = [row.question for row in example_set.rows]
    return replace(facts, text_tokens=max(1, round(tokens.of(texts) / max(1, len(texts)))))


def _with_token_ranges(
    facts: DataFacts, tokens: TokenCounting, counted: Mapping[str, Any], notes: dict[str, str]
) -> DataFacts:
    """Return the facts with the least and the most tokens of each estimated count, and add them to its note."""
    ranges = []
    estimated = [] if tokens.exact else [key for key, note in notes.items() if note.endswith(tokens.how)]
    for key in filter(counted.get, estimated):
        language = facts.documents_language if key == "corpus_tokens" else facts.language
        low, high = TOKEN_ERROR if language in (None, "en") else FOREIGN_TOKEN_ERROR
        ranges.append((key, round(low * counted[key]), round(high * counted[key])))
        notes[key] += f": {ranges[-1][1]:,} to {ranges[-1][2]:,}"
    return replace(facts, token_ranges=tuple(ranges))


def _with_answers_counted(
    facts: DataFacts,
    documents: Sequence[Document],
    examples: Sequence[Example],
    questions: Sequence[Question],
    counted: dict[str, Any],
    notes: dict[str, str],
    warnings: list[str],
) -> DataFacts:
    """Count the right answers that the documents hold; warn where these may be under one half; rule KN013 is surer."""
    answers = count_answers(documents, examples, questions, facts)
    if answers is None:
        return facts
    counted["answers_in_documents"] = answers.rate
    notes["answers_in_documents"] = f"a passage supports the answer to {answers.text}"
    if answers.rate < HALF_HELD and not answers.surely_under_half:
        warnings.append(f"it may be chance, but {answers.lack}")
    return replace(facts, answers=answers)


def _count_facts_as_needed(
    facts: DataFacts, counted: dict[str, Any], notes: dict[str, str], warnings: list[str]
) -> None:
    """Count the task as one of facts, since the replies state them, and ask for their documents."""
    note = f"{facts.facts_in_replies:.0%} of the replies {STATE_FACTS}"
    counted["task_needs_facts"], notes["task_needs_facts"] = "new", note
    warnings.append(f"{note}: {WHICH_DOCUMENTS}")


def _warn_of_shared_instruction(
    rows: Sequence[Example], questions: Sequence[Question], warnings: list[str]
) -> None:
    """Warn of an instruction in front of every prompt that is trained on and of no question that is asked."""
    opening = "" if any(row.raw for row in rows) else shared_opening([row.question for row in rows])
    if opening and questions and not any(question.question.startswith(opening) for question in questions):
        warnings.append(
            f"all {len(rows)} examples begin with the same instruction, and no question does: what is tuned would be "
            "asked in another form than it was trained on. Give the instruction as --prompt, and leave it out of the "
            "examples' prompts: in rows of instruction, input and output with "
            "--columns system=instruction,prompt=input,reply=output"
        )


def _warn_of_near_repeats(leaks: Sequence[Leak], warnings: list[str]) -> None:
    """Warn of questions that nearly repeat examples: `tunewise run` refuses them."""
    if leaks:
        shown = "; ".join(f"question line {x.held_out} = example line {x.row}" for x in leaks[:3])
        warnings.append(
            f"{count_noun(len(leaks), 'test question')} nearly the same as an example ({shown}): take them out of one file, "
            "or write near_repeats: leave_out under data in the plan"
        )


def _warn_of_missing_answers(rows: Sequence[Question], path: Path, warnings: list[str]) -> None:
    """Warn of questions without an expected answer, which are not marked as unanswerable: nothing can be right for them.

    The keys of the first are named: a reply under a key that is not read, such as "respuesta", looks the same.
    """
    bare = [row for row in rows if row.answerable and not (row.short_answers or row.reference)]
    if not bare:
        return
    keys = next((", ".join(map(str, row)) for line, row in read_rows(path) if line == bare[0].line), "")
    warnings.append(
        f"{len(bare)} of {count_noun(len(rows), 'question')} without an expected answer (the first: line {bare[0].line}, "
        f"keys {keys}): give it as answers or reference, or write answerable: false where the documents have none; "
        "after a trial people can grade its answers: tunewise label"
    )


def guess_format(replies: Sequence[str]) -> str:
    """Return the format (labels, json or free) that at least 95 % of replies have."""
    if not replies:
        return "free"
    if sum(_is_json(reply) for reply in replies) >= 0.95 * len(replies):
        return "json"
    return "labels" if labels_of(replies) else "free"


def count_distinct(rows: Sequence[Example]) -> int:
    """Count the examples, near repeats of each other once; with labels, only under the same label."""
    texts = ["\n".join(m["content"] for m in row.messages if m["role"] != "system") for row in rows]
    replies = [row.reply for row in rows]
    return duplicates.count_distinct_texts(
        texts, [reply.strip() for reply in replies] if labels_of(replies) else None, replies
    )


def _count_documents(
    path: Path, tokens: TokenCounting, warnings: list[str]
) -> tuple[int, str, tuple[Document, ...]]:
    """Return the tokens of the documents, a note on how they were counted, and the documents; () where not read."""
    from rag.loading.reader import load_documents
    from rag.loading.registry import loader_for

    if not path.exists():
        raise BadInput(
            f"the documents path {path} does not exist", "give a folder, a file or a .jsonl of documents"
        )
    files = [path] if path.is_file() else [f for f in sorted(path.rglob("*")) if f.is_file()]
    sizes = {f: f.stat().st_size for f in files if loader_for(f.name)}
    if sum(sizes.values()) > MAX_READ_BYTES or sum(f.suffix.lower() == ".pdf" for f in sizes) > 3:
        total = round(sum(sizes.values()) / CHARS_PER_TOKEN)
        return (
            total,
            f"{count_noun(len(sizes), 'file')}, estimated from their size ({CHARS_PER_TOKEN} bytes a token)",
            (),
        )
    loaded = load_documents(path)
    if loaded.skipped:
        first = loaded.skipped[0]
        rest = ", ..." if len(loaded.skipped) > 1 else ""
        counted = count_noun(len(loaded.skipped), "file or row", "files or rows")
        warnings.append(f"skipped {counted}: {first.path} ({first.reason}){rest}")
    texts = [document.raw for document in loaded.documents]
    return tokens.of(texts), f"{count_noun(len(texts), 'document')}, {tokens.how}", loaded.documents


def _count_examples(
    example_set: ExampleSet,
    path: Path,
    tokens: TokenCounting,
    prompt: str,
    counted: dict[str, Any],
    notes: dict[str, str],
    warnings: list[str],
) -> None:
    """Add what the training rows hold to ``counted`` and ``notes``, and problems to ``warnings``."""
    rows = example_set.rows
    if not rows:
        raise BadInput(
            f"{path} has no usable example", f"each row needs a prompt and an answer: {ROW_FORMAT}"
        )
    scale = _scale(example_set)
    if scale > 1:
        warnings.append(f"{path} has {example_set.total:,} rows; the first {len(rows):,} were looked at")
    if rows[0].raw:
        counted["unlabelled_tokens"] = round(scale * tokens.of([row.reply for row in rows]))
        notes["unlabelled_tokens"] = f"{count_noun(len(rows), 'text')} to learn as they are, {tokens.how}"
        return
    distinct = count_distinct(rows)
    repeats = len(rows) - distinct
    near_repeats = repeats - example_set.duplicates
    repeat_note = (
        f", {example_set.duplicates} exact and {near_repeats} near repeats counted once" if repeats else ""
    )
    prompts = [f"{row.system or prompt}\n{row.question}" for row in rows]
    replies = [row.reply for row in rows]
    counted |= {
        "labelled_examples": round(scale * distinct),
        "unlabelled_tokens": 0,
        "output_format": guess_format(replies),
        "prompt_tokens": max(1, round(tokens.of(prompts) / len(rows))),
        "answer_tokens": max(1, round(tokens.of(replies) / len(rows))),
    }
    notes |= {
        "labelled_examples": f"{count_noun(len(rows), 'row')} ({example_set.format}){repeat_note}",
        "unlabelled_tokens": "none of the examples is a plain text",
        "output_format": "what at least 95 % of the examples' answers look like",
        "prompt_tokens": f"mean of the examples, {tokens.how}",
        "answer_tokens": f"mean of the examples, {tokens.how}",
    }
    warnings += example_set.notes
    if example_set.rejected:
        first = example_set.rejected[0]
        warnings.append(
            f"{count_noun(len(example_set.rejected), 'unusable example')}: line {first.line}: {first.reason}, ..."
        )
    if near_repeats > 0.2 * len(rows):
        warnings.append(
            f"{near_repeats} of {len(rows)} examples are nearly the same as others: they count as {distinct}"
        )


def _scale(example_set: ExampleSet) -> float:
    """Return how many times more rows the file holds than were read."""
    return max(1.0, example_set.total / max(1, len(example_set.rows) + len(example_set.rejected)))


def _is_json(text: str) -> bool:
    try:
        return isinstance(parse_json(text), dict | list)
    except ValueError:
        return False
