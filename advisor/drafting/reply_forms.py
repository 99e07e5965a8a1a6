"""Forms that replies share: cards of keys, prefixes, bullets, casing, punctuation and the shapes of short values.

:func:`learned_forms` proposes patterns from two thirds of the replies and returns those that at least 95 % of the last third
meet too, so that nothing is learnt by heart. A pattern demands a form and never a value: closed sets are learnt of
beginnings, endings and short constants ("no", "not stated") only. Every repetition in a pattern ends at a character that
it cannot match, so that none backtracks beyond one line.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from rag.text.words import sentences
from runners.scoring.scores import ANSWER_GROUP

MIN_SHARE = 0.95
"""Share of the replies that must have a form, among those it was learnt from, the held-out ones, and all."""
HELD_OUT = 3
"""Every how many-th reply, in an order drawn once, is held out."""
MAX_CLOSED = 12
"""Number of different beginnings or endings up to which they are a closed set."""
MAX_SHAPES = 4
"""Number of shapes and constants of short values together."""
MIN_MEMBER_SHARE = 0.01
"""Share of the replies that a member of a closed set must have, at least three of them."""
LOWER, UPPER = "a-zß-öø-ÿ", "A-ZÀ-ÖØ-Þ"
"""Lower and upper case letters of Latin scripts, as parts of a character class."""
_KEY = re.compile(r"([^\W\d][^\n:]{0,30}):(?: |$)")
_TYPE_SCOPE = re.compile(r"(\w[\w-]*)(\([^()\n]+\))?(!)?: \S")
_PATH = r"[\w./,*@{}+-]+"
_VALUES: tuple[tuple[str, str], ...] = (
    (r"\d{4}-\d{2}-\d{2}", "a date as YYYY-MM-DD"),
    (r"\d{1,2}:\d{2}", "a time as HH:MM"),
    (r"-?\d+", "a whole number"),
    (r"v?\d+(?:\.\d+)+(?:[-+.]?[A-Za-z]+\d*)?", "a version or decimal number"),
    (r"-?\d[\d,]*(?:\.\d+)?", "a number"),
    (r"#[0-9A-F]{6}", "a colour as #RRGGBB, in capitals"),
    (r"#[0-9A-Fa-f]{6}", "a colour as #RRGGBB"),
    (r"[$€£¥] ?\d[\d,.]*|\d[\d,.]* ?[$€£¥%]", "an amount with its sign"),
    (r"https?://\S+", "a web address"),
    (r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", "an e-mail address"),
    (r"`[^`\n]+`", "code in backticks"),
)


@dataclass(frozen=True, slots=True)
class ReplyForm:
    """A form as a pattern, and in words."""

    pattern: str
    text: str
    end: bool = False
    """Whether it is about the mark at the end alone."""


def learned_forms(texts: Sequence[str]) -> list[ReplyForm]:
    """Return the forms that the replies share, the most telling first.

    Args:
        texts: the replies, without white space around them.
    """
    order = list(texts)
    random.Random(0).shuffle(order)
    held_out = order[::HELD_OUT]
    learnt_from = [text for index, text in enumerate(order) if index % HELD_OUT]

    def first_that_holds(proposed: Iterator[ReplyForm]) -> list[ReplyForm]:
        parts = (learnt_from, held_out, texts)
        return [
            form for form in proposed if all(share_with(form.pattern, part) >= MIN_SHARE for part in parts)
        ][:1]

    for whole in (_value_shapes, _card):
        if forms := first_that_holds(whole(learnt_from)):
            return forms
    forms = first_that_holds(_bullets(learnt_from)) or first_that_holds(_line_count(learnt_from))
    begun = first_that_holds(_prefix(learnt_from))
    forms += begun or [
        *first_that_holds(_closed_beginnings(learnt_from)),
        *first_that_holds(_casing(learnt_from)),
    ]
    ended = first_that_holds(_closed_endings(learnt_from))
    return [*forms, *(ended or first_that_holds(_ending_mark(learnt_from)))]


def share_with(pattern: str, texts: Sequence[str]) -> float:
    """Return the share of the texts that match a pattern, as a style check searches it."""
    compiled = re.compile(pattern, re.DOTALL)
    return sum(bool(compiled.search(text)) for text in texts) / max(1, len(texts))


def value_shapes(texts: Sequence[str]) -> ReplyForm | None:
    """Return the shape of replies that are all short values (numbers, dates, versions, colours); None without one.

    The value is the group ``answer`` of the pattern, so that it is scored as a final answer.
    """
    return next((form for form in learned_forms(texts) if f"(?P<{ANSWER_GROUP}>" in form.pattern), None)


def _value_shapes(texts: Sequence[str]) -> Iterator[ReplyForm]:
    """Yield the fewest shapes, with constants such as "no", that nearly all short replies have."""
    if max((len(text.split()) for text in texts), default=9) > 4:
        return
    left = list(texts)
    chosen: list[tuple[str, str]] = []
    while len(left) > (1 - MIN_SHARE) * len(texts) / 2 and len(chosen) < MAX_SHAPES:
        options = [
            (sum(bool(re.fullmatch(pattern, text)) for text in left), -n)
            for n, (pattern, _) in enumerate(_VALUES)
        ]
        count, index = max(options)
        constant, repeats = Counter(left).most_common(1)[0]
        if count >= repeats and count >= _member_count(texts):
            chosen.append(_VALUES[-index])
        elif repeats >= _member_count(texts) and re.search(r"[^\W\d]", constant):
            chosen.append((re.escape(constant), f'"{constant}"'))
        else:
            break
        left = [text for text in left if not re.fullmatch(chosen[-1][0], text)]
    if any(shape in _VALUES for shape in chosen):
        pattern = "|".join(pattern for pattern, _ in chosen)
        yield ReplyForm(f"^(?P<{ANSWER_GROUP}>{pattern})$", "only " + " or ".join(text for _, text in chosen))


def _card(texts: Sequence[str]) -> Iterator[ReplyForm]:
    """Yield the lines `KEY: value` of cards: with the shapes of their values, then without."""
    rows = [[_KEY.match(line) for line in text.split("\n")] for text in texts]
    keyed = [[match[1] for match in row if match] for row in rows if all(row) and len(row) > 1]
    if len(keyed) < MIN_SHARE * len(texts):
        return
    order, count = Counter(tuple(keys) for keys in keyed).most_common(1)[0]
    if count >= MIN_SHARE * len(texts):
        values = [_card_value(texts, key) for key in order]
        names = ", ".join(f'"{key}:"' for key in order)
        description = [
            f"{key} is {description}"
            for key, (_, description) in zip(order, values, strict=True)
            if description
        ]
        lines = [f"{re.escape(key)}: {value}" for key, (value, _) in zip(order, values, strict=True)]
        text = f"exactly {len(order)} lines {names}, in this order"
        if description:
            yield ReplyForm("^" + r"\n".join(lines) + "$", f"{text}; {', '.join(description)}")
        yield ReplyForm("^" + r"\n".join(rf"{re.escape(key)}: [^\n]+" for key in order) + "$", text)
        return
    seen = Counter(key for keys in keyed for key in set(keys))
    common = [key for key, n in seen.items() if n >= _member_count(texts)]
    place = {key: median(keys.index(key) for keys in keyed if key in keys) for key in common}
    common.sort(key=lambda key: (place[key], key))
    required = [key for key in common if seen[key] >= MIN_SHARE * len(texts)]
    if common and len(common) <= MAX_CLOSED and common[0] in required:
        parts = [
            rf"\n{re.escape(key)}: [^\n]*" if key in required else rf"(?:\n{re.escape(key)}: [^\n]*)?"
            for key in common[1:]
        ]
        names = ", ".join(f'"{key}:"' if key in required else f'"{key}:" (may be missing)' for key in common)
        yield ReplyForm(rf"^{re.escape(common[0])}: [^\n]*{''.join(parts)}$", f"lines {names}, in this order")


def _card_value(texts: Sequence[str], key: str) -> tuple[str, str]:
    """Return pattern and description of what stands after a key; a line's rest and "" where it has no known shape."""
    values = [
        match[1] for text in texts if (match := re.search(rf"(?:^|\n){re.escape(key)}: ([^\n]+)", text))
    ]
    for pattern, description in _VALUES:
        if sum(bool(re.fullmatch(pattern, value)) for value in values) >= 0.99 * len(texts):
            return f"(?:{pattern})", description
    return r"[^\n]+", ""


def _bullets(texts: Sequence[str]) -> Iterator[ReplyForm]:
    """Yield lists: every line with the same mark."""
    for mark, name in (
        (r"- ", '"- "'),
        (r"\* ", '"* "'),
        (r"• ", '"• "'),
        (r"\d+\. ", 'a number and "."'),
        (r"\d+\) ", 'a number and ")"'),
    ):
        yield ReplyForm(
            rf"^{mark}[^\n]+\n{mark}[^\n]+(?:\n{mark}[^\n]+)*$", f"a list whose lines begin with {name}"
        )


def _line_count(texts: Sequence[str]) -> Iterator[ReplyForm]:
    """Yield a fixed number of lines, from two on."""
    count, _ = Counter(text.count("\n") + 1 for text in texts).most_common(1)[0]
    if 1 < count <= MAX_CLOSED:
        yield ReplyForm(rf"^[^\n]*(?:\n[^\n]*){{{count - 1}}}$", f"exactly {count} lines")


def _prefix(texts: Sequence[str]) -> Iterator[ReplyForm]:
    """Yield a beginning before ": ": a closed set of types with a scope, a closed set, or one word or path."""
    if sum("\n" in text for text in texts) > (1 - MIN_SHARE) * len(texts):
        return
    typed = [match for text in texts if (match := _TYPE_SCOPE.match(text))]
    rest = _casing_after_colon(texts)
    types = _closed_set(Counter(match[1] for match in typed), texts)
    if types:
        scopes = sum(bool(match[2]) for match in typed)
        scope = (
            r"\([^()\n]+\)" if scopes >= MIN_SHARE * len(texts) else r"(?:\([^()\n]+\))?" if scopes else ""
        )
        breaking = "!?" if any(match[3] for match in typed) else ""
        shape = "type(scope): text" if scope else "type: text"
        optional = ", the scope may be missing" if scope.endswith("?") else ""
        text = f'the form "{shape}"{optional}; the type is one of {", ".join(types)}'
        closed = "|".join(map(re.escape, types))
        for after, description in rest:
            yield ReplyForm(f"^(?:{closed}){scope}{breaking}: {after}", text + description)
    begun = [match[1] for text in texts if (match := re.match(r"([^:\n]{1,60}): \S", text))]
    beginnings = _closed_set(Counter(begun), texts)
    if beginnings:
        closed = "|".join(map(re.escape, beginnings))
        names = ", ".join(f'"{text}:"' for text in beginnings)
        for after, description in rest:
            yield ReplyForm(f"^(?:{closed}): {after}", f"begins with one of {names}{description}")
    if len(set(begun)) > 1:
        example = Counter(begun).most_common(1)[0][0]
        for pattern, name in (
            (_PATH, "one name or path"),
            (rf"{_PATH}(?:, {_PATH})*", "names or paths, with commas between them"),
        ):
            for after, description in rest:
                yield ReplyForm(
                    f"^{pattern}: {after}",
                    f'begins with {name}, a colon and a space ("{example}: "){description}',
                )


def _casing_after_colon(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Return how what follows the first colon begins, the strictest first."""
    after = [text.split(": ", 1)[1] for text in texts if ": " in text]
    options = [
        (f"[{LOWER}]", "; then a small letter"),
        (f"[{UPPER}]", "; then a capital letter"),
    ]
    usual = [(p, description) for p, description in options if share_with(f"^{p}", after) >= 0.97]
    return [*usual, (r"\S", "")]


def _closed_beginnings(texts: Sequence[str]) -> Iterator[ReplyForm]:
    """Yield a closed set of first words of replies that go on for some words."""
    if _are_short(texts):
        return
    for length in (3, 2, 1):
        begun = Counter(" ".join(text.split()[:length]) for text in texts)
        if len(begun) > 1 and (closed := _closed_set(begun, texts)):
            pattern = "|".join(r"\s+".join(map(re.escape, text.split())) for text in closed)
            names = ", ".join(f'"{text}"' for text in closed)
            yield ReplyForm(rf"^(?:{pattern})(?!\w)", f"opens with one of {names}")


def _closed_endings(texts: Sequence[str]) -> Iterator[ReplyForm]:
    """Yield a closed set of last sentences, or last lines, of replies that have something before them."""
    for split, name in ((lambda text: sentences(text), "sentence"), (lambda text: text.split("\n"), "line")):
        ended = Counter(parts[-1].strip() for text in texts if len(parts := split(text)) > 1)
        if len(ended) > 1 and (closed := _closed_set(ended, texts)):
            pattern = "|".join(map(re.escape, closed))
            names = ", ".join(f'"{text}"' for text in closed)
            yield ReplyForm(rf"\s(?:{pattern})$", f"the last {name} is one of {names}")


def _casing(texts: Sequence[str]) -> Iterator[ReplyForm]:
    """Yield all small letters, all capitals, a capital at the start of every long word, or the case of the first letter."""
    lettered = [text for text in texts if re.search(f"[{LOWER}{UPPER}]", text)]
    if len(lettered) < MIN_SHARE * len(texts):
        return
    yield ReplyForm(f"^[^{UPPER}]*[{LOWER}][^{UPPER}]*$", "no capital letters")
    yield ReplyForm(f"^[^{LOWER}]*[{UPPER}][^{LOWER}]*$", "capital letters only")
    if sum(len(text.split()) > 2 for text in texts) >= MIN_SHARE * len(texts):
        yield ReplyForm(
            rf"^(?!.*(?<![\w'’-])[{LOWER}][{LOWER}]{{3}})[^\n]*[{UPPER}]",
            "title case: long words begin with a capital",
        )
    yield ReplyForm(f"^[^{LOWER}{UPPER}]*[{UPPER}]", "begins with a capital letter")
    yield ReplyForm(f"^[^{LOWER}{UPPER}]*[{LOWER}]", "begins with a small letter")


def _ending_mark(texts: Sequence[str]) -> Iterator[ReplyForm]:
    """Yield the mark that replies end with, or that they end with none."""
    for mark, name in (
        (r"\.", "a full stop"),
        ("!", "an exclamation mark"),
        ("。", '"。"'),
        (":", "a colon"),
    ):
        yield ReplyForm(f"{mark}$", f"ends with {name}", end=True)
    yield ReplyForm(r"[^\s.!?;:,…。]$", "no punctuation mark at the end", end=True)


def _closed_set(counts: Counter[str], texts: Sequence[str]) -> list[str]:
    """Return the members, most frequent first, that nearly all texts have and each of them some; [] without such a set."""
    members = [text for text, n in counts.most_common() if n >= _member_count(texts)]
    covered = sum(counts[text] for text in members)
    return members if members and len(members) <= MAX_CLOSED and covered >= MIN_SHARE * len(texts) else []


def _member_count(texts: Sequence[str]) -> float:
    """Return the number of texts that a member of a closed set must have at least."""
    return max(3.0, MIN_MEMBER_SHARE * len(texts))


def _are_short(texts: Sequence[str]) -> bool:
    """Whether replies are so short that their first words would be their content."""
    return median(len(text.split()) for text in texts) < 4
