"""Checks of the training data: target tokens, row lengths, labels, repeats, leakage, personal data.

Row lengths, masks and ends of answers are read from the encoded rows, the rest from the examples alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from statistics import median

from rag.text.words import count_noun
from runners.data import duplicates, leakage, personal_data
from runners.data.examples import Example, RowPlace, normalise_text, row_place
from runners.data.formats import Message
from runners.data.labels import labels_of
from runners.data.questions import Question
from runners.plan.train_config import TrainConfig
from runners.preflight.report import MAX_PLACES, CheckLevel, PreflightCheck, count_of_rows, first_places
from runners.tokenization.chat_template import ChatTokenizer
from runners.tokenization.encoding import EncodedRows, ExampleTokens

MAX_LOST_SHARE = 0.05
"""Above this share of rows left out the run is refused: the rest would no longer represent the user's data."""
MIN_TARGET_SHARE = 0.02
"""Below this share of target tokens the run mostly computes prompts and learns little."""
OUTLIER_FACTOR = 10
"""Replies this many times longer or shorter than the median are reported."""
LONG_REPLY_TOKENS = 200
"""Tokens up to which no reply counts as very long, however short the others are."""
MAX_LABEL_SHARE = 0.8
"""From this share of rows with one label on, always answering with it looks like success."""
MIN_ROWS_OF_LABEL = 5
"""Fewest rows from which a label can be learnt."""
MAX_REPEATED_SHARE = 0.2
"""From this share of repeated rows on, the file holds much less than its number of rows suggests."""


def check_targets(
    rows: Sequence[Example], encoded: EncodedRows, chat: ChatTokenizer, config: TrainConfig
) -> Iterator[PreflightCheck]:
    """Yield the checks of target tokens and row lengths (PF001 to PF006, PF018).

    Args:
        rows: The examples.
        encoded: The same examples as tokens.
        chat: Tokenizer and template of the base.
        config: Settings of the run.
    """
    yield _count(rows, encoded)
    yield _length(rows, encoded, config)
    yield _targets(rows, encoded)
    yield _ends(encoded, chat)
    yield _padding(chat)
    yield _sides(rows)
    yield _replies(encoded)


def check_label_balance(rows: Sequence[Example]) -> PreflightCheck | None:
    """Return the check of labels (PF017), None for other tasks.

    It warns of one label for nearly all rows, labels with few rows, and inputs with several labels.
    """
    if not labels_of([row.reply for row in rows]):
        return None
    counts = Counter(row.reply.strip() for row in rows)
    by_input = defaultdict[str, list[Example]](list)
    for row in rows:
        by_input[normalise_text(row.question)].append(row)
    contradicting = [same for same in by_input.values() if len({row.reply.strip() for row in same}) > 1]
    findings, places, todo = [], [], []
    label, most = counts.most_common(1)[0]
    if most >= MAX_LABEL_SHARE * len(rows):
        findings.append(f"{most} of {len(rows)} rows have the label {_short(label)}")
    if rare := [name for name, count in counts.items() if count < MIN_ROWS_OF_LABEL]:
        have = "label has" if len(rare) == 1 else "labels have"
        findings.append(
            f"{len(rare)} {have} fewer than {MIN_ROWS_OF_LABEL} rows ({', '.join(map(_short, rare[:3]))})"
        )
        places += [row_place(row) for row in rows if row.reply.strip() in set(rare)]
    if findings:
        todo.append("balance the labels, and judge by each label's own score")
    if contradicting:
        todo.append("decide for one label where an input has several")
        have = "inputs have" if len(contradicting) > 1 else "input has"
        findings.append(f"{len(contradicting)} {have} two labels or more")
        places = [row_place(row) for same in contradicting for row in same] + places
    least = min(counts.values())
    if not findings:
        return PreflightCheck("PF017", "ok", f"{len(counts)} labels, {least} to {most} rows each")
    return PreflightCheck("PF017", "warn", "; ".join(findings), first_places(places), "; ".join(todo))


def check_held_out_questions(rows: Sequence[Example], questions: Sequence[Question]) -> PreflightCheck:
    """Return the check of held-out questions (PF013): none may occur in training rows or their instructions."""
    leaks = leakage.find_leaks(rows, questions)
    leaking = [leak for leak in leaks if leak.kind in leakage.LEAKING]
    if leaking:
        return PreflightCheck(
            "PF013",
            "stop",
            f"{len(leaking)} of {len(questions)} held-out questions also occur in the examples: "
            f"{_kind_counts(leaking)}",
            _pairs(leaking),
            "remove them from one of the two files: a score on them proves nothing",
        )
    about = f"; {len(leaks)} are about documents that rows are about too" if leaks else ""
    return PreflightCheck(
        "PF013", "ok", f"none of {len(questions)} held-out questions occurs in the examples{about}"
    )


def check_validation_rows(rows: Sequence[Example], valid: Sequence[Example]) -> PreflightCheck:
    """Return the check of validation rows (PF014): the loss on training rows never rises, so it could not stop a run."""
    leaks = leakage.find_leaks(rows, valid)
    repeats = (leakage.EXACT_MATCH, leakage.NORMALISED_MATCH, leakage.NEAR_REPEAT)
    repeated = [leak for leak in leaks if leak.kind in repeats]
    related = [leak for leak in leaks if leak not in repeated]
    todo = "remove --valid and let --valid-share divide the rows by document and near repeat"
    count = count_of_rows(len(valid))
    if repeated:
        text = (
            f"{len(repeated)} of {count} for validation also occur in the examples: {_kind_counts(repeated)}"
        )
        return PreflightCheck("PF014", "stop", text, _pairs(repeated), todo)
    if related:
        text = f"{len(related)} of {count} for validation are about facts or documents that are learnt too"
        return PreflightCheck("PF014", "warn", text, _pairs(related), todo)
    return PreflightCheck("PF014", "ok", f"{count} for validation share no question and no document")


def check_personal_data(rows: Sequence[Example]) -> tuple[PreflightCheck, PreflightCheck]:
    """Return the check of personal data (PF015, a warning) and the one of secrets (PF016, a stop)."""
    places_by_kind = personal_data.find_personal_data(rows)
    secret_kinds = {kind.name for kind in personal_data.PERSONAL_DATA_KINDS if kind.secret}
    personal = {kind: places for kind, places in places_by_kind.items() if kind not in secret_kinds}
    secret = {kind: places for kind, places in places_by_kind.items() if kind in secret_kinds}
    return (
        _check_of_kinds(
            "PF015",
            "warn",
            personal,
            "no personal data of the usual shapes",
            "replace what the model need not know; the values are not shown",
        ),
        _check_of_kinds(
            "PF016",
            "stop",
            secret,
            "no keys or passwords of the usual shapes",
            "remove them, and renew those that were real; the values are not shown",
        ),
    )


def check_repeats(rows: Sequence[Example]) -> PreflightCheck:
    """Return the check of repeated rows (PF012).

    Rows repeat each other when they are equal but for case and punctuation, or nearly equal
    (:mod:`runners.data.duplicates`).
    """
    texts = ["\n".join(m["content"] for m in row.messages if m["role"] != "system") for row in rows]
    labels = labels_of([row.reply for row in rows])
    replies = [row.reply.strip() for row in rows]
    groups = duplicates.near_duplicate_groups(texts, replies if labels else None, replies)
    exact = len(rows) - len({normalise_text(text) for text in texts})
    repeats = sorted(index for group in groups for index in group[1:])
    if not repeats:
        return PreflightCheck("PF012", "ok", "no row repeats another")
    nearly = max(0, len(repeats) - exact)
    distinct = f"{count_of_rows(len(groups))} of {len(rows):,} differ"
    text = f"{exact:,} repeat another row, {nearly:,} nearly do: {distinct}"
    places = first_places(row_place(rows[index]) for index in repeats)
    if len(repeats) < MAX_REPEATED_SHARE * len(rows):
        return PreflightCheck("PF012", "ok", text, places)
    todo = "remove repeats, or lower --epochs: repeated rows are learnt by heart"
    return PreflightCheck("PF012", "warn", text, places, todo)


def _count(rows: Sequence[Example], encoded: EncodedRows) -> PreflightCheck:
    """Return the check of the number of rows and the share of target tokens."""
    if not rows:
        return PreflightCheck(
            "PF001", "stop", "there are no rows", next="give examples with a prompt and an answer each"
        )
    used = encoded.used
    tokens = sum(len(row.ids) for row in used)
    targets = sum(len(row.learnt) for row in used)
    if encoded.texts.texts:
        count = f"{count_noun(encoded.texts.texts, 'text')} in {len(used):,} pieces"
    else:
        count = f"{len(used):,} of {count_of_rows(len(rows))}"
    text = f"{count} used: {tokens:,} tokens, {targets:,} of them learnt"
    if used and targets < MIN_TARGET_SHARE * tokens:
        todo = "shorten the prompts, if they are longer than they will be when the model is asked"
        return PreflightCheck("PF001", "warn", f"{text}, under {MIN_TARGET_SHARE:.0%}", next=todo)
    return PreflightCheck("PF001", "ok" if used else "stop", text)


def _length(rows: Sequence[Example], encoded: EncodedRows, config: TrainConfig) -> PreflightCheck:
    """Return the check of row lengths against max_tokens."""
    longest, p95 = encoded.within(1), encoded.within(0.95)
    if not encoded.long:
        cut = f"; {encoded.texts.cut} texts continue in the next piece" if encoded.texts.cut else ""
        text = f"longest {longest:,} tokens, 95 % within {p95:,}, limit {config.max_tokens:,}{cut}"
        return PreflightCheck("PF002", "ok", text)
    # Truncation would cut the end, which is the answer: such rows teach nothing, or to stop in mid-sentence.
    return PreflightCheck(
        "PF002",
        "stop" if len(encoded.long) > MAX_LOST_SHARE * len(rows) else "warn",
        f"{len(encoded.long):,} of {count_of_rows(len(rows))} are longer than max_tokens "
        f"{config.max_tokens:,} and skipped",
        _places(encoded.long),
        f"95 % of the rows are within {p95:,} tokens, the longest has {longest:,}: "
        "set --max-tokens, or split them",
    )


def _targets(rows: Sequence[Example], encoded: EncodedRows) -> PreflightCheck:
    """Return the check that every row has target tokens, and that none loses answers to the template."""
    if encoded.masked:
        return PreflightCheck(
            "PF003",
            "stop" if len(encoded.masked) > MAX_LOST_SHARE * len(rows) else "warn",
            f"{len(encoded.masked):,} of {count_of_rows(len(rows))} have nothing to learn, "
            "every token is masked; skipped",
            _places(encoded.masked),
            "give each an assistant turn with words in it",
        )
    partial = [(row, tokens) for row, tokens in encoded.chats if tokens.note]
    if partial:
        text = f"{count_of_rows(len(partial))} are only partly learnt: {partial[0][1].note}"
        return PreflightCheck(
            "PF003", "warn", text, _places(partial), "split these chats, so that each answer comes last once"
        )
    return PreflightCheck("PF003", "ok", "every row has target tokens")


def _ends(encoded: EncodedRows, chat: ChatTokenizer) -> PreflightCheck:
    """Return the check that every answer ends with an end token that is a target."""
    if not chat.eos_ids:
        text = "the tokenizer has no end token, so the model could never learn to stop"
        return PreflightCheck(
            "PF004", "stop", text, next="name eos_token in the model's tokenizer_config.json"
        )
    endless = [pair for pair in encoded.chats if pair[1].ids[pair[1].learnt[-1]] not in chat.eos_ids]
    if endless:
        return PreflightCheck(
            "PF004",
            "stop",
            f"{count_of_rows(len(endless))} do not end with the end token, so it would not be learnt",
            _places(endless),
            "correct the chat template, or eos_token: answers would ramble on",
        )
    unit = "answer" if encoded.chats or not encoded.texts.texts else "text"
    return PreflightCheck("PF004", "ok", f"every {unit} ends with the end token, which is learnt")


def _padding(chat: ChatTokenizer) -> PreflightCheck:
    """Return the check of the padding token."""
    if chat.pad is None:
        return PreflightCheck(
            "PF005", "ok", "no padding token other than the end token: rows are masked by length instead"
        )
    own = chat.special.get("pad_token")
    instead = "" if own == chat.pad else f" (the model's own, {own or 'none'}, is not used)"
    return PreflightCheck(
        "PF005", "ok", f"{chat.pad} is not the end token{instead}; rows are masked by length"
    )


def _sides(rows: Sequence[Example]) -> PreflightCheck:
    """Return the check that every row has a prompt and an answer.

    Raw text has no prompts on purpose; a few rows without one among chats more likely lost theirs.
    """
    empty = [row for row in rows if any(not m["content"].strip() and not _has_calls(m) for m in row.messages)]
    unanswered = [row for row in rows if not row.messages or row.messages[-1]["role"] != "assistant"]
    promptless = [row for row in rows if not any(m["role"] == "user" for m in row.messages)]
    if empty or unanswered:
        places = first_places(map(row_place, (*empty, *unanswered)))
        many = len(empty) + len(unanswered) > MAX_LOST_SHARE * len(rows)
        text = (
            f"{count_of_rows(len(empty))} with an empty turn, {len(unanswered)} without an answer at the end"
        )
        return PreflightCheck(
            "PF006", "stop" if many else "warn", text, places, "fill them in or remove them"
        )
    if promptless and len(promptless) < len(rows):
        text = f"{len(promptless)} of {count_of_rows(len(rows))} have an answer and no prompt"
        todo = "add the prompts, or give raw text in a file of its own"
        return PreflightCheck("PF006", "warn", text, first_places(map(row_place, promptless)), todo)
    text = "raw text: every token is learnt" if promptless else "every row has a prompt and an answer"
    return PreflightCheck("PF006", "ok", text)


def _replies(encoded: EncodedRows) -> PreflightCheck:
    """Return the check for replies that are much longer or shorter than the median."""
    sizes = [len(tokens.learnt) for _, tokens in encoded.chats]
    if not sizes:
        return PreflightCheck("PF018", "ok", "no replies: raw text")
    usual = median(sizes)
    long = [
        pair for pair in encoded.chats if len(pair[1].learnt) > max(LONG_REPLY_TOKENS, OUTLIER_FACTOR * usual)
    ]
    short = [pair for pair in encoded.chats if len(pair[1].learnt) <= max(1, usual / OUTLIER_FACTOR)]
    findings = [
        f"{count_of_rows(len(pairs))} with a reply {comparison} the median of {usual:g} tokens"
        for pairs, comparison in ((short, "of at most a tenth of"), (long, f"over {OUTLIER_FACTOR} times"))
        if pairs
    ]
    if findings:
        todo = "check that these replies are meant so"
        return PreflightCheck("PF018", "warn", "; ".join(findings), _places([*short, *long]), todo)
    return PreflightCheck(
        "PF018", "ok", f"replies of {min(sizes):,} to {max(sizes):,} tokens, median {usual:g}"
    )


def _places(pairs: Sequence[ExampleTokens]) -> tuple[RowPlace, ...]:
    """Return the first rows of some pairs of a row and its tokens."""
    return first_places(row_place(row) for row, _ in pairs)


def _has_calls(turn: Message) -> bool:
    """Return whether a turn is the call or the result of a tool, whose text may be empty."""
    return turn["role"] == "tool" or "tool_calls" in turn


def _kind_counts(leaks: Sequence[leakage.Leak]) -> str:
    """Return the number of leaks of each kind, as text."""
    counts = Counter(leak.kind for leak in leaks)
    return ", ".join(f"{counts[kind]} {kind}" for kind in leakage.LEAK_KINDS if kind in counts)


def _pairs(leaks: Sequence[leakage.Leak]) -> tuple[RowPlace, ...]:
    """Return the first pairs of a held-out row and the training row it occurs in."""
    return first_places(f"{leak.held_out} = {leak.row}" for leak in leaks)


def _check_of_kinds(
    code: str, level: CheckLevel, places_by_kind: dict[str, list[RowPlace]], fine: str, todo: str
) -> PreflightCheck:
    """Return a check of ``level`` that lists each kind of data with its rows; ok with the text ``fine`` for none."""
    if not places_by_kind:
        return PreflightCheck(code, "ok", fine)
    parts = []
    for kind, places in places_by_kind.items():
        more = ", …" if len(places) > MAX_PLACES else ""
        parts.append(
            f"{kind} in {count_of_rows(len(places))} ({', '.join(map(str, first_places(places)))}{more})"
        )
    rows = first_places(place for places in places_by_kind.values() for place in places)
    return PreflightCheck(code, level, "; ".join(parts), rows, todo, placed=True)


def _short(label: str) -> str:
    """Return a label in quotes, at most 30 characters of it."""
    return repr(label if len(label) <= 30 else label[:29] + "…")
