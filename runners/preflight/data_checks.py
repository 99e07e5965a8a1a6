"""The preflight's checks of the data: tokens that are learnt, labels, leakage, personal data.

Row lengths, masks and ends of answers come from the tokenised rows; the rest from the rows alone.

Rows that repeat each other: learnt twice, counted once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from statistics import median

from runners.data import duplicates, leakage
from runners.data import personal_data as data_personal_data
from runners.data.examples import Example, RowPlace, normalise_text, row_place
from runners.data.formats import Message
from runners.data.labels import labels_of
from runners.data.questions import Question
from runners.plan.train_config import TrainConfig
from runners.preflight.report import MAX_PLACES, CheckLevel, PreflightCheck, count_of_rows, first_places
from runners.tokenization.chat_template import ChatTokenizer
from runners.tokenization.encoding import EncodedRows, ExampleTokens

MAX_LOST_SHARE = 0.05
"""More rows than this share left out, and the run is refused: the rest would no longer be the user's data."""
MIN_TARGET_SHARE = 0.02
"""Under this share of learnt tokens the run computes prompts and hardly teaches."""
OUTLIER_FACTOR = 10
"""Replies so many times longer than the median one are told."""
LONG_REPLY_TOKENS = 200
"""Tokens up to which no reply counts as very long, however short the others are."""
MAX_LABEL_SHARE = 0.8
"""From this share on, always answering with one label looks like success."""
MIN_ROWS_OF_LABEL = 5
"""Fewer rows than this hardly teach a label."""


def check_targets(
    rows: Sequence[Example], found: EncodedRows, chat: ChatTokenizer, config: TrainConfig
) -> Iterator[PreflightCheck]:
    """Yield the checks of what is learnt (PF001 to PF006, PF018)."""
    yield _count(rows, found)
    yield _length(rows, found, config)
    yield _learnt(rows, found)
    yield _ends(found, chat)
    yield _padding(chat)
    yield _sides(rows)
    yield _replies(found)


def check_label_balance(rows: Sequence[Example]) -> PreflightCheck | None:
    """Return the check of a label task: one label for nearly all, labels with few rows, contradictions."""
    if not labels_of([row.reply for row in rows]):
        return None
    counts = Counter(row.reply.strip() for row in rows)
    given = defaultdict[str, list[Example]](list)
    for row in rows:
        given[normalise_text(row.question)].append(row)
    torn = [same for same in given.values() if len({row.reply.strip() for row in same}) > 1]
    complaints, lines, todo = [], [], []
    label, most = counts.most_common(1)[0]
    if most >= MAX_LABEL_SHARE * len(rows):
        complaints.append(f"{most} of {len(rows)} rows have the label {_short(label)}")
    if rare := [name for name, count in counts.items() if count < MIN_ROWS_OF_LABEL]:
        have = "label has" if len(rare) == 1 else "labels have"
        complaints.append(
            f"{len(rare)} {have} fewer than {MIN_ROWS_OF_LABEL} rows ({', '.join(map(_short, rare[:3]))})"
        )
        lines += [row_place(row) for row in rows if row.reply.strip() in set(rare)]
    if complaints:
        todo.append("balance the labels, and judge by each label's own score")
    if torn:
        todo.append("decide for one label where an input has several")
        complaints.append(f"{len(torn)} {'inputs have' if len(torn) > 1 else 'input has'} two labels or more")
        lines = [row_place(row) for same in torn for row in same] + lines
    least = min(counts.values())
    if not complaints:
        return PreflightCheck("PF017", "ok", f"{len(counts)} labels, {least} to {most} rows each")
    return PreflightCheck("PF017", "warn", "; ".join(complaints), first_places(lines), "; ".join(todo))


def check_held_out_questions(rows: Sequence[Example], asked: Sequence[Question]) -> PreflightCheck:
    """Return the check of held-out questions (PF013): rows that training rows or their instructions give away."""
    found = leakage.find_leaks(rows, asked)
    leaking = [leak for leak in found if leak.kind in leakage.LEAKING]
    if leaking:
        return PreflightCheck(
            "PF013",
            "stop",
            f"{len(leaking)} of {len(asked)} held-out questions also occur in the examples: {_counted(leaking)}",
            _pairs(leaking),
            "remove them from one of the two files: a score on them says nothing",
        )
    about = f"; {len(found)} are about documents that rows are about too" if found else ""
    return PreflightCheck(
        "PF013", "ok", f"none of {len(asked)} held-out questions occurs in the examples{about}"
    )


def check_validation_rows(rows: Sequence[Example], valid: Sequence[Example]) -> PreflightCheck:
    """Return the check of validation rows (PF014): a loss on rows that were learnt never rises, so nothing stops early."""
    found = leakage.find_leaks(rows, valid)
    repeated = [
        x for x in found if x.kind in (leakage.EXACT_MATCH, leakage.NORMALISED_MATCH, leakage.NEAR_REPEAT)
    ]
    related = [x for x in found if x not in repeated]
    todo = "leave --valid out and let --valid-share divide the rows by document and near repeat"
    count = count_of_rows(len(valid))
    if repeated:
        text = f"{len(repeated)} of {count} for validation also occur in the examples: {_counted(repeated)}"
        return PreflightCheck("PF014", "stop", text, _pairs(repeated), todo)
    if related:
        text = f"{len(related)} of {count} for validation are about facts or documents that are learnt too"
        return PreflightCheck("PF014", "warn", text, _pairs(related), todo)
    return PreflightCheck("PF014", "ok", f"{count} for validation share no question and no document")


def check_personal_data(rows: Sequence[Example]) -> tuple[PreflightCheck, PreflightCheck]:
    """Return the check of personal data (a warning) and the one of secrets (a stop)."""
    found = data_personal_data.find_personal_data(rows)
    keys = {kind.name for kind in data_personal_data.PERSONAL_DATA_KINDS if kind.secret}
    personal = {kind: lines for kind, lines in found.items() if kind not in keys}
    secret = {kind: lines for kind, lines in found.items() if kind in keys}
    return (
        _of_kinds(
            "PF015",
            "warn",
            personal,
            "no personal data of the usual shapes",
            "replace what the model need not know; the values are not shown",
        ),
        _of_kinds(
            "PF016",
            "stop",
            secret,
            "no keys or passwords of the usual shapes",
            "remove them, and renew those that were real; the values are not shown",
        ),
    )


def _count(rows: Sequence[Example], found: EncodedRows) -> PreflightCheck:
    if not rows:
        return PreflightCheck(
            "PF001", "stop", "there are no rows", next="give examples with a prompt and an answer each"
        )
    used = found.used
    tokens, learnt = sum(len(e.ids) for e in used), sum(len(e.learnt) for e in used)
    what = (
        f"{found.texts.texts:,} texts in {len(used):,} pieces"
        if found.texts.texts
        else f"{len(used):,} of {count_of_rows(len(rows))}"
    )
    text = f"{what} used: {tokens:,} tokens, {learnt:,} of them learnt"
    if used and learnt < MIN_TARGET_SHARE * tokens:
        todo = "shorten the prompts, if they are longer than they will be when the model is asked"
        return PreflightCheck("PF001", "warn", f"{text}, under {MIN_TARGET_SHARE:.0%}", next=todo)
    return PreflightCheck("PF001", "ok" if used else "stop", text)


def _length(rows: Sequence[Example], found: EncodedRows, config: TrainConfig) -> PreflightCheck:
    longest, p95 = found.within(1), found.within(0.95)
    if not found.long:
        cut = f"; {found.texts.cut} texts go on in the next piece" if found.texts.cut else ""
        text = f"longest {longest:,} tokens, 95 % within {p95:,}, limit {config.max_tokens:,}{cut}"
        return PreflightCheck("PF002", "ok", text)
    # Truncation would cut the end, which is the answer: such rows teach nothing, or to stop in mid-sentence.
    return PreflightCheck(
        "PF002",
        "stop" if len(found.long) > MAX_LOST_SHARE * len(rows) else "warn",
        f"{len(found.long):,} of {count_of_rows(len(rows))} are longer than max_tokens {config.max_tokens:,} and left out",
        _places(found.long),
        f"95 % of the rows are within {p95:,} tokens, the longest has {longest:,}: set --max-tokens, or split them",
    )


def _learnt(rows: Sequence[Example], found: EncodedRows) -> PreflightCheck:
    if found.masked:
        return PreflightCheck(
            "PF003",
            "stop" if len(found.masked) > MAX_LOST_SHARE * len(rows) else "warn",
            f"{len(found.masked):,} of {count_of_rows(len(rows))} have nothing to learn, every token is masked; left out",
            _places(found.masked),
            "give each an assistant turn with words in it",
        )
    part = [(row, encoded) for row, encoded in found.chats if encoded.note]
    if part:
        text = f"{count_of_rows(len(part))} teach less than they hold: {part[0][1].note}"
        return PreflightCheck(
            "PF003", "warn", text, _places(part), "split these chats, so that each answer comes last once"
        )
    return PreflightCheck("PF003", "ok", "every row has learnt tokens")


def _ends(found: EncodedRows, chat: ChatTokenizer) -> PreflightCheck:
    if not chat.eos_ids:
        text = "the tokenizer has no end token, so the model could never learn to stop"
        return PreflightCheck(
            "PF004", "stop", text, next="name eos_token in the model's tokenizer_config.json"
        )
    endless = [pair for pair in found.chats if pair[1].ids[pair[1].learnt[-1]] not in chat.eos_ids]
    if endless:
        return PreflightCheck(
            "PF004",
            "stop",
            f"{count_of_rows(len(endless))} do not end with the end token, so it would not be learnt",
            _places(endless),
            "correct the chat template, or eos_token: answers would ramble on",
        )
    what = "answer" if found.chats or not found.texts.texts else "text"
    return PreflightCheck("PF004", "ok", f"every {what} ends with the end token, which is learnt")


def _padding(chat: ChatTokenizer) -> PreflightCheck:
    if chat.pad is None:
        return PreflightCheck(
            "PF005", "ok", "no padding token apart from the end token: rows are masked by length instead"
        )
    own = chat.special.get("pad_token")
    instead = "" if own == chat.pad else f" (the model's own, {own or 'none'}, is not used)"
    return PreflightCheck(
        "PF005", "ok", f"{chat.pad} is not the end token{instead}; rows are masked by length"
    )


def _sides(rows: Sequence[Example]) -> PreflightCheck:
    """Text rows have one side on purpose; a few among chats are more likely rows whose prompt was lost."""
    empty = [r for r in rows if any(not m["content"].strip() and not _calls(m) for m in r.messages)]
    silent = [r for r in rows if not r.messages or r.messages[-1]["role"] != "assistant"]
    alone = [r for r in rows if not any(m["role"] == "user" for m in r.messages)]
    if empty or silent:
        spoilt = first_places(map(row_place, (*empty, *silent)))
        many = len(empty) + len(silent) > MAX_LOST_SHARE * len(rows)
        text = f"{count_of_rows(len(empty))} with an empty turn, {len(silent)} without an answer at the end"
        return PreflightCheck(
            "PF006", "stop" if many else "warn", text, spoilt, "fill them in or remove them"
        )
    if alone and len(alone) < len(rows):
        text = f"{len(alone)} of {count_of_rows(len(rows))} have an answer and no prompt"
        todo = "add the prompts, or give raw text in a file of its own"
        return PreflightCheck("PF006", "warn", text, first_places(map(row_place, alone)), todo)
    return PreflightCheck(
        "PF006", "ok", "raw text: every token is learnt" if alone else "every row has a prompt and an answer"
    )


def _replies(found: EncodedRows) -> PreflightCheck:
    sizes = [len(encoded.learnt) for _, encoded in found.chats]
    if not sizes:
        return PreflightCheck("PF018", "ok", "no replies: raw text")
    usual = median(sizes)
    long = [
        pair for pair in found.chats if len(pair[1].learnt) > max(LONG_REPLY_TOKENS, OUTLIER_FACTOR * usual)
    ]
    short = [pair for pair in found.chats if len(pair[1].learnt) <= max(1, usual / OUTLIER_FACTOR)]
    told = [
        f"{count_of_rows(len(pairs))} with a reply {what} the median of {usual:g} tokens"
        for pairs, what in ((short, "of at most a tenth of"), (long, f"over {OUTLIER_FACTOR} times"))
        if pairs
    ]
    if told:
        todo = "check that these replies are meant so"
        return PreflightCheck("PF018", "warn", "; ".join(told), _places([*short, *long]), todo)
    return PreflightCheck(
        "PF018", "ok", f"replies of {min(sizes):,} to {max(sizes):,} tokens, median {usual:g}"
    )


def _places(pairs: Sequence[ExampleTokens]) -> tuple[RowPlace, ...]:
    return first_places(row_place(row) for row, _ in pairs)


def _calls(turn: Message) -> bool:
    return turn["role"] == "tool" or "tool_calls" in turn


def _counted(found: Sequence[leakage.Leak]) -> str:
    counts = Counter(leak.kind for leak in found)
    return ", ".join(f"{counts[kind]} {kind}" for kind in leakage.LEAK_KINDS if kind in counts)


def _pairs(found: Sequence[leakage.Leak]) -> tuple[RowPlace, ...]:
    return first_places(f"{leak.held_out} = {leak.row}" for leak in found)


def _of_kinds(
    code: str, level: CheckLevel, found: dict[str, list[RowPlace]], fine: str, todo: str
) -> PreflightCheck:
    if not found:
        return PreflightCheck(code, "ok", fine)
    parts = [
        f"{kind} in {count_of_rows(len(lines))} ({', '.join(map(str, first_places(lines)))}{', …' if len(lines) > MAX_PLACES else ''})"
        for kind, lines in found.items()
    ]
    return PreflightCheck(
        code,
        level,
        "; ".join(parts),
        first_places(line for lines in found.values() for line in lines),
        todo,
        True,
    )


def _short(label: str) -> str:
    return repr(label if len(label) <= 30 else label[:29] + "…")


MAX_REPEATED_SHARE = 0.2
"""From this share of repeats on, the file holds much less than its row count says."""


def check_repeats(rows: Sequence[Example]) -> PreflightCheck:
    """Return the check of repeats: equal but for case and punctuation, and nearly equal (:mod:`runners.data.duplicates`)."""
    texts = ["\n".join(m["content"] for m in row.messages if m["role"] != "system") for row in rows]
    labels = labels_of([row.reply for row in rows])
    groups = duplicates.near_duplicate_groups(texts, [row.reply.strip() for row in rows] if labels else None)
    exact = len(rows) - len({normalise_text(text) for text in texts})
    again = sorted(at for group in groups for at in group[1:])
    if not again:
        return PreflightCheck("PF012", "ok", "no row repeats another")
    nearly = max(0, len(again) - exact)
    told = f"{exact:,} repeat another row, {nearly:,} nearly do: {count_of_rows(len(groups))} of {len(rows):,} differ"
    level = "warn" if len(again) >= MAX_REPEATED_SHARE * len(rows) else "ok"
    todo = "remove repeats, or lower --epochs: repeated rows are learnt by heart" if level == "warn" else ""
    return PreflightCheck(
        "PF012",
        "warn" if level == "warn" else "ok",
        told,
        first_places(row_place(rows[at]) for at in again),
        todo,
    )
