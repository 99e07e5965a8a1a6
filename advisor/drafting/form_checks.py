"""Derive style checks from the examples: only rules of form that at least 95 % of the replies meet.

:func:`derive_checks` is the entry point: labels, a JSON schema, or shape, opening, last line, layout and the forms of
:mod:`advisor.drafting.reply_forms`.
:func:`fixed_sentences` and :func:`styled_refusals` take sentences that most replies share.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from advisor.drafting.reply_forms import MAX_CLOSED, learned_forms, value_shapes
from advisor.drafting.reply_schemas import reply_layout, reply_schema
from advisor.questionnaire.data_stats import guess_format
from rag.files import parse_json
from rag.text.words import count_noun, sentences
from runners.data.labels import labels_of
from runners.plan.data import Prompts
from runners.plan.schema import StyleCheck
from runners.scoring.scores import ANSWER_GROUP
from runners.scoring.style_checks import failed_checks

MIN_FORM_SHARE = 0.95
"""Share of the examples that must meet a rule for it to become a check."""
_SENTENCE = r"(?:(?![.!?]\s+[A-Z]).)"
_NUMBER = r"-?\$?\d[\d,]*(?:\.\d+)?"
# From strict to loose; the first that enough examples meet is taken.
_SHAPES: tuple[tuple[str, str], ...] = (
    (rf"^{_SENTENCE}+[.!]\s+[A-Z](?:(?![.!?]\s+[A-Z])[^?])*\?$", "one statement, then one closing question"),
    (r"^[^?]+[.!]\s+[^?]+\?$", "statements, then exactly one closing question"),
    (r"^[^?]+\?$", "exactly one question, at the end"),
    (rf"^{_SENTENCE}+[.!]$", "a single sentence"),
)
MIN_REPLIES = 20
"""With fewer examples than this no style is derived."""
CLOSING_SHARE = 0.9
"""Share of replies that must end with a question for a refusal to end with one."""
MAX_CLOSINGS = 4
"""Number of closing questions that refusals are given."""


def form_checks(texts: Sequence[str]) -> list[StyleCheck]:
    """Return the checks of shape, opening, closing, last line, form and layout that enough of the texts meet together."""
    checks: list[StyleCheck] = []
    own = [*_shape(texts), *_shared_opening(texts), *_last_line(texts)]
    learned = [
        StyleCheck(kind="regex", value=form.pattern, text=form.text)
        for form in learned_forms(texts)
        if not (own and form.end)
    ]
    for check in (*own, *learned, *_layout(texts)):
        together = sum(not failed_checks(text, [*checks, check]) for text in texts)
        if together >= MIN_FORM_SHARE * len(texts):
            checks.append(check)
    return checks


def derive_checks(replies: Sequence[str]) -> tuple[tuple[StyleCheck, ...], str]:
    """Return the checks that at least 95 % of replies meet together, and a line that says how they were derived.

    Each check's text says the share of the examples that meets it.
    """
    texts = [reply.strip() for reply in replies]
    if len(texts) < MIN_REPLIES:
        return (
            (),
            f"no checks of style: {count_noun(len(texts), 'example')}, and it takes {MIN_REPLIES} or more",
        )
    checks = _all_checks(texts)
    if not checks:
        return (), "no checks of style: the examples share no shape that code can judge"
    with_shares = tuple(_with_share(check, texts) for check in checks)
    return with_shares, "style: " + "; ".join(check.text for check in with_shares)


def _all_checks(texts: Sequence[str]) -> list[StyleCheck]:
    """Return the checks of JSON, of values, of labels, or of form; [] without any."""
    if guess_format(texts) == "json":
        text = "JSON with the examples' keys and types"
        return [StyleCheck(kind="json_schema", value=_json_schema(texts), text=text)]
    labels = labels_of(texts)
    # Many different numbers or dates are values and no labels: the next one may be new.
    shape = value_shapes(texts) if not labels or len(labels) > MAX_CLOSED else None
    if shape:
        return [StyleCheck(kind="regex", value=shape.pattern, text=shape.text)]
    if labels:
        return [
            StyleCheck(kind="labels", value=list(labels), text=f"one of {len(labels)} labels, nothing else")
        ]
    checks = form_checks(texts)
    if checks:
        words = sorted(len(text.split()) for text in texts)
        limit = words[min(len(words) - 1, math.ceil(0.99 * len(words)) - 1)]
        checks.append(StyleCheck(kind="max_words", value=limit, text=f"at most {limit} words"))
    return checks


def _with_share(check: StyleCheck, texts: Sequence[str]) -> StyleCheck:
    """Return the check with the share of the texts that meets it at the end of its text."""
    met = sum(not failed_checks(text, [check]) for text in texts)
    # rounded down, so that 100 % means all
    share = math.floor(100 * met / len(texts))
    return check.model_copy(update={"text": f"{check.text} ({share} % of {len(texts):,} examples)"})


def fixed_sentences(replies: Sequence[str]) -> tuple[str, ...]:
    """Return the sentences with which nearly all replies begin or end, without questions: style only."""
    opening = _shared_first_sentence(replies)
    closing = _shared_sentence(_last_sentences(replies), len(replies))
    return tuple(text for text in (*opening, *closing) if not text.endswith("?"))


def styled_refusals(replies: Sequence[str], plain: str = "") -> tuple[str, ...]:
    """Return refusals in the examples' style, for examples without any: a plain one in their frame, by default the plan's.

    A sentence that most replies begin or end with is put around it too. Where most replies end with a
    question, the most usual ones follow the refusal, so that a refusal passes the style checks.
    """
    endings = _last_sentences(replies)
    closings = _shared_sentence(endings, len(replies)) or _closing_questions(endings, len(replies))
    begun = " ".join((*_shared_first_sentence(replies), plain or Prompts().refusals[0]))
    return tuple(f"{begun} {closing}" for closing in closings) or (begun,)


def _shape(texts: Sequence[str]) -> list[StyleCheck]:
    """Return the strictest shape that enough of the texts have."""
    for pattern, text in _SHAPES:
        if _share(pattern, texts) >= MIN_FORM_SHARE:
            return [StyleCheck(kind="regex", value=pattern, text=text)]
    return []


def _shared_opening(texts: Sequence[str]) -> list[StyleCheck]:
    """Return checks of a fixed greeting or sign-off: the same first or last three words."""
    checks = []
    for position, cut in (("opens", slice(0, 3)), ("closes", slice(-3, None))):
        words, count = Counter(" ".join(text.split()[cut]) for text in texts).most_common(1)[0]
        if count >= MIN_FORM_SHARE * len(texts) and len(words.split()) == 3:
            pattern = r"\s+".join(re.escape(word) for word in words.split())
            pattern = f"^{pattern}" if position == "opens" else f"{pattern}$"
            checks.append(StyleCheck(kind="regex", value=pattern, text=f'{position} with "{words}"'))
    return checks


def _last_line(texts: Sequence[str]) -> list[StyleCheck]:
    """Return a check of a last line with a fixed form, such as "Answer: 12": the same but for numbers.

    Its number, where it has one, is the final answer of the reply: it is scored separately from the form.
    """
    # Numbers become a NUL character, so that lines that differ only in their numbers have the same form.
    lines = [text.splitlines()[-1].strip() if "\n" in text else "" for text in texts]
    form, count = Counter(re.sub(_NUMBER, "\0", line) for line in lines).most_common(1)[0]
    if count < MIN_FORM_SHARE * len(texts) or not re.search(r"[^\s\0]", form):
        return []
    number = f"(?P<{ANSWER_GROUP}>{_NUMBER})" if form.count("\0") == 1 else _NUMBER
    pattern = "(?:^|\n)" + re.escape(form).replace("\0", number) + "$"
    shown = form.replace("\0", "…")
    return [StyleCheck(kind="regex", value=pattern, text=f'the last line has the form "{shown}"')]


def _layout(texts: Sequence[str]) -> list[StyleCheck]:
    """Return a check against markup and line breaks that the texts do not use."""
    if sum("\n" not in text for text in texts) < MIN_FORM_SHARE * len(texts):
        return []
    marks = ["\n", "**", "`"]
    absent = [mark for mark in marks if sum(mark not in text for text in texts) >= 0.99 * len(texts)]
    return (
        [StyleCheck(kind="must_not", value=absent, text="one plain paragraph, no markup")]
        if "\n" in absent
        else []
    )


def _share(pattern: str, texts: Sequence[str]) -> float:
    """Return the share of the texts that match a pattern."""
    compiled = re.compile(pattern, re.DOTALL)
    return sum(bool(compiled.search(text)) for text in texts) / len(texts)


def _shared_first_sentence(replies: Sequence[str]) -> tuple[str, ...]:
    """Return the first sentence that most replies share; () without one."""
    return _shared_sentence(
        [parts[0] for reply in replies if len(parts := sentences(reply)) > 1], len(replies)
    )


def _last_sentences(replies: Sequence[str]) -> list[str]:
    """Return the last sentence of every reply that has several."""
    return [parts[-1] for reply in replies if len(parts := sentences(reply)) > 1]


def _shared_sentence(texts: Sequence[str], total: int) -> tuple[str, ...]:
    """Return the one sentence that occurs in most of ``total`` replies; () without one."""
    most = Counter(texts).most_common(1)
    return (most[0][0],) if most and most[0][1] >= max(MIN_REPLIES, CLOSING_SHARE * total) else ()


def _closing_questions(endings: Sequence[str], total: int) -> tuple[str, ...]:
    """Return the most usual closing questions, where most of ``total`` replies have one."""
    closing = Counter(text for text in endings if text.endswith("?"))
    if closing.total() < max(MIN_REPLIES, CLOSING_SHARE * total):
        return ()
    return tuple(sorted(closing, key=lambda text: (-closing[text], text))[:MAX_CLOSINGS])


def _json_schema(texts: Sequence[str]) -> dict[str, Any]:
    """Return the JSON Schema of the texts that are JSON, with their spacing; the others are at most 5 %."""
    values, parsed = [], []
    for text in texts:
        try:
            values.append(parse_json(text))
        except ValueError:
            continue
        parsed.append(text)
    layout = reply_layout(parsed)
    return {**({"x-guidance": layout} if layout else {}), **reply_schema(values)}
