"""The preflight's checks of the data: tokens that are learnt, labels, leakage, personal data.

Row lengths, masks and ends of answers come from the tokenised rows; the rest from the rows alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from statistics import median

from runners import leaks, secrets
from runners.chat import Chat
from runners.complaints import PLACES, Check, Level, places, rows_of
from runners.data import Question
from runners.example import Example, Place, normalised, place
from runners.labels import labels_of
from runners.shapes import Message
from runners.tokenised import Pair, Rows
from runners.tuning import TrainConfig

MOST_LOST = 0.05
"""More rows than this share left out, and the run is refused: the rest would no longer be the user's data."""
LITTLE_LEARNT = 0.02
"""Under this share of learnt tokens the run computes prompts and hardly teaches."""
OUTLYING = 10
"""Replies so many times longer than the median one are told."""
LONG_REPLY = 200
"""Tokens up to which no reply counts as very long, however short the others are."""
MOST_SHARE = 0.8
"""From this share on, always answering with one label looks like success."""
FEWEST = 5
"""Fewer rows than this hardly teach a label."""


def checks(rows: Sequence[Example], found: Rows, chat: Chat, config: TrainConfig) -> Iterator[Check]:
    """Yield the checks of what is learnt (PF001 to PF006, PF018)."""
    yield _count(rows, found)
    yield _length(rows, found, config)
    yield _learnt(rows, found)
    yield _ends(found, chat)
    yield _padding(chat)
    yield _sides(rows)
    yield _replies(found)


def label_balance(rows: Sequence[Example]) -> Check | None:
    """Return the check of a label task: one label for nearly all, labels with few rows, contradictions."""
    if not labels_of([row.reply for row in rows]):
        return None
    counts = Counter(row.reply.strip() for row in rows)
    given = defaultdict[str, list[Example]](list)
    for row in rows:
        given[normalised(row.question)].append(row)
    torn = [same for same in given.values() if len({row.reply.strip() for row in same}) > 1]
    complaints, lines, todo = [], [], []
    label, most = counts.most_common(1)[0]
    if most >= MOST_SHARE * len(rows):
        complaints.append(f"{most} of {len(rows)} rows have the label {_short(label)}")
    if rare := [name for name, count in counts.items() if count < FEWEST]:
        have = "label has" if len(rare) == 1 else "labels have"
        complaints.append(f"{len(rare)} {have} fewer than {FEWEST} rows ({', '.join(map(_short, rare[:3]))})")
        lines += [place(row) for row in rows if row.reply.strip() in set(rare)]
    if complaints:
        todo.append("balance the labels, and judge by each label's own score")
    if torn:
        todo.append("decide for one label where an input has several")
        complaints.append(f"{len(torn)} {'inputs have' if len(torn) > 1 else 'input has'} two labels or more")
        lines = [place(row) for same in torn for row in same] + lines
    least = min(counts.values())
    if not complaints:
        return Check("PF017", "ok", f"{len(counts)} labels, {least} to {most} rows each")
    return Check("PF017", "warn", "; ".join(complaints), places(lines), "; ".join(todo))


def held_out_questions(rows: Sequence[Example], asked: Sequence[Question]) -> Check:
    """Return the check of held-out questions (PF013): rows that training rows or their instructions give away."""
    found = leaks.find(rows, asked)
    leaking = [leak for leak in found if leak.kind in leaks.LEAKING]
    if leaking:
        return Check(
            "PF013", "stop",
            f"{len(leaking)} of {len(asked)} held-out questions also occur in the examples: {_counted(leaking)}",
            _pairs(leaking), "remove them from one of the two files: a score on them says nothing",
        )  # fmt: skip
    about = f"; {len(found)} are about documents that rows are about too" if found else ""
    return Check("PF013", "ok", f"none of {len(asked)} held-out questions occurs in the examples{about}")


def validation_rows(rows: Sequence[Example], valid: Sequence[Example]) -> Check:
    """Return the check of validation rows (PF014): a loss on rows that were learnt never rises, so nothing stops early."""
    found = leaks.find(rows, valid)
    repeated = [x for x in found if x.kind in (leaks.EXACT, leaks.NORMALISED, leaks.NEAR)]
    related = [x for x in found if x not in repeated]
    todo = "leave --valid out and let --valid-share divide the rows by document and near repeat"
    count = rows_of(len(valid))
    if repeated:
        text = f"{len(repeated)} of {count} for validation also occur in the examples: {_counted(repeated)}"
        return Check("PF014", "stop", text, _pairs(repeated), todo)
    if related:
        text = f"{len(related)} of {count} for validation are about facts or documents that are learnt too"
        return Check("PF014", "warn", text, _pairs(related), todo)
    return Check("PF014", "ok", f"{count} for validation share no question and no document")


def personal_data(rows: Sequence[Example]) -> tuple[Check, Check]:
    """Return the check of personal data (a warning) and the one of secrets (a stop)."""
    found = secrets.search(rows)
    keys = {kind.name for kind in secrets.KINDS if kind.secret}
    personal = {kind: lines for kind, lines in found.items() if kind not in keys}
    secret = {kind: lines for kind, lines in found.items() if kind in keys}
    return (
        _of_kinds("PF015", "warn", personal, "no personal data of the usual shapes",
                  "replace what the model need not know; the values are not shown"),
        _of_kinds("PF016", "stop", secret, "no keys or passwords of the usual shapes",
                  "remove them, and renew those that were real; the values are not shown"),
    )  # fmt: skip


def _count(rows: Sequence[Example], found: Rows) -> Check:
    if not rows:
        return Check(
            "PF001", "stop", "there are no rows", next="give examples with a prompt and an answer each"
        )
    used = found.used
    tokens, learnt = sum(len(e.ids) for e in used), sum(len(e.learnt) for e in used)
    what = (
        f"{found.texts.texts:,} texts in {len(used):,} pieces"
        if found.texts.texts
        else f"{len(used):,} of {rows_of(len(rows))}"
    )
    text = f"{what} used: {tokens:,} tokens, {learnt:,} of them learnt"
    if used and learnt < LITTLE_LEARNT * tokens:
        todo = "shorten the prompts, if they are longer than they will be when the model is asked"
        return Check("PF001", "warn", f"{text}, under {LITTLE_LEARNT:.0%}", next=todo)
    return Check("PF001", "ok" if used else "stop", text)


def _length(rows: Sequence[Example], found: Rows, config: TrainConfig) -> Check:
    longest, p95 = found.within(1), found.within(0.95)
    if not found.long:
        cut = f"; {found.texts.cut} texts go on in the next piece" if found.texts.cut else ""
        text = f"longest {longest:,} tokens, 95 % within {p95:,}, limit {config.max_tokens:,}{cut}"
        return Check("PF002", "ok", text)
    # Truncation would cut the end, which is the answer: such rows teach nothing, or to stop in mid-sentence.
    return Check(
        "PF002", "stop" if len(found.long) > MOST_LOST * len(rows) else "warn",
        f"{len(found.long):,} of {rows_of(len(rows))} are longer than max_tokens {config.max_tokens:,} and left out",
        _places(found.long),
        f"95 % of the rows are within {p95:,} tokens, the longest has {longest:,}: set --max-tokens, or split them",
    )  # fmt: skip


def _learnt(rows: Sequence[Example], found: Rows) -> Check:
    if found.masked:
        return Check(
            "PF003", "stop" if len(found.masked) > MOST_LOST * len(rows) else "warn",
            f"{len(found.masked):,} of {rows_of(len(rows))} have nothing to learn, every token is masked; left out",
            _places(found.masked), "give each an assistant turn with words in it",
        )  # fmt: skip
    part = [(row, encoded) for row, encoded in found.chats if encoded.note]
    if part:
        text = f"{rows_of(len(part))} teach less than they hold: {part[0][1].note}"
        return Check(
            "PF003", "warn", text, _places(part), "split these chats, so that each answer comes last once"
        )
    return Check("PF003", "ok", "every row has learnt tokens")


def _ends(found: Rows, chat: Chat) -> Check:
    if not chat.eos_ids:
        text = "the tokenizer has no end token, so the model could never learn to stop"
        return Check("PF004", "stop", text, next="name eos_token in the model's tokenizer_config.json")
    endless = [pair for pair in found.chats if pair[1].ids[pair[1].learnt[-1]] not in chat.eos_ids]
    if endless:
        return Check(
            "PF004", "stop", f"{rows_of(len(endless))} do not end with the end token, so it would not be learnt",
            _places(endless), "correct the chat template, or eos_token: answers would ramble on",
        )  # fmt: skip
    what = "answer" if found.chats or not found.texts.texts else "text"
    return Check("PF004", "ok", f"every {what} ends with the end token, which is learnt")


def _padding(chat: Chat) -> Check:
    if chat.pad is None:
        return Check(
            "PF005", "ok", "no padding token apart from the end token: rows are masked by length instead"
        )
    own = chat.special.get("pad_token")
    instead = "" if own == chat.pad else f" (the model's own, {own or 'none'}, is not used)"
    return Check("PF005", "ok", f"{chat.pad} is not the end token{instead}; rows are masked by length")


def _sides(rows: Sequence[Example]) -> Check:
    """Text rows have one side on purpose; a few among chats are more likely rows whose prompt was lost."""
    empty = [r for r in rows if any(not m["content"].strip() and not _calls(m) for m in r.messages)]
    silent = [r for r in rows if not r.messages or r.messages[-1]["role"] != "assistant"]
    alone = [r for r in rows if not any(m["role"] == "user" for m in r.messages)]
    if empty or silent:
        spoilt = places(map(place, (*empty, *silent)))
        many = len(empty) + len(silent) > MOST_LOST * len(rows)
        text = f"{rows_of(len(empty))} with an empty turn, {len(silent)} without an answer at the end"
        return Check("PF006", "stop" if many else "warn", text, spoilt, "fill them in or remove them")
    if alone and len(alone) < len(rows):
        text = f"{len(alone)} of {rows_of(len(rows))} have an answer and no prompt"
        todo = "add the prompts, or give raw text in a file of its own"
        return Check("PF006", "warn", text, places(map(place, alone)), todo)
    return Check(
        "PF006", "ok", "raw text: every token is learnt" if alone else "every row has a prompt and an answer"
    )


def _replies(found: Rows) -> Check:
    sizes = [len(encoded.learnt) for _, encoded in found.chats]
    if not sizes:
        return Check("PF018", "ok", "no replies: raw text")
    usual = median(sizes)
    long = [pair for pair in found.chats if len(pair[1].learnt) > max(LONG_REPLY, OUTLYING * usual)]
    short = [pair for pair in found.chats if len(pair[1].learnt) <= max(1, usual / OUTLYING)]
    told = [
        f"{rows_of(len(pairs))} with a reply {what} the median of {usual:g} tokens"
        for pairs, what in ((short, "of at most a tenth of"), (long, f"over {OUTLYING} times"))
        if pairs
    ]
    if told:
        todo = "check that these replies are meant so"
        return Check("PF018", "warn", "; ".join(told), _places([*short, *long]), todo)
    return Check("PF018", "ok", f"replies of {min(sizes):,} to {max(sizes):,} tokens, median {usual:g}")


def _places(pairs: Sequence[Pair]) -> tuple[Place, ...]:
    return places(place(row) for row, _ in pairs)


def _calls(turn: Message) -> bool:
    return turn["role"] == "tool" or "tool_calls" in turn


def _counted(found: Sequence[leaks.Leak]) -> str:
    counts = Counter(leak.kind for leak in found)
    return ", ".join(f"{counts[kind]} {kind}" for kind in leaks.KINDS if kind in counts)


def _pairs(found: Sequence[leaks.Leak]) -> tuple[Place, ...]:
    return places(f"{leak.held_out} = {leak.row}" for leak in found)


def _of_kinds(code: str, level: Level, found: dict[str, list[Place]], fine: str, todo: str) -> Check:
    if not found:
        return Check(code, "ok", fine)
    parts = [
        f"{kind} in {rows_of(len(lines))} ({', '.join(map(str, places(lines)))}{', …' if len(lines) > PLACES else ''})"
        for kind, lines in found.items()
    ]
    return Check(
        code, level, "; ".join(parts), places(line for lines in found.values() for line in lines), todo, True
    )


def _short(label: str) -> str:
    return repr(label if len(label) <= 30 else label[:29] + "…")
