"""The form that plain replies share, as checks: shape, opening, last line, layout."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from runners.final import GROUP
from runners.plan import Check

SHARE = 0.95
"""Share of the examples that must meet a rule for it to be one."""
_SENTENCE = r"(?:(?![.!?]\s+[A-Z]).)"
_NUMBER = r"-?\$?\d[\d,]*(?:\.\d+)?"
# From strict to loose; the first that enough examples meet is taken.
_SHAPES: tuple[tuple[str, str], ...] = (
    (rf"^{_SENTENCE}+[.!]\s+[A-Z](?:(?![.!?]\s+[A-Z])[^?])*\?$", "one statement, then one closing question"),
    (r"^[^?]+[.!]\s+[^?]+\?$", "statements, then exactly one closing question"),
    (r"^[^?]+\?$", "exactly one question, at the end"),
    (rf"^{_SENTENCE}+[.!]$", "a single sentence"),
)


def form(texts: Sequence[str]) -> list[Check]:
    """Return the checks of one shape, opening, closing, last line and layout that enough of the texts meet."""
    return [*_shape(texts), *_opening(texts), *_last_line(texts), *_layout(texts)]


def _shape(texts: Sequence[str]) -> list[Check]:
    for pattern, text in _SHAPES:
        if _share(pattern, texts) >= SHARE:
            return [Check(kind="regex", value=pattern, text=text)]
    return []


def _opening(texts: Sequence[str]) -> list[Check]:
    """A fixed greeting or sign-off: the same first or last three words."""
    found = []
    for place, cut in (("opens", slice(0, 3)), ("closes", slice(-3, None))):
        words, count = Counter(" ".join(text.split()[cut]) for text in texts).most_common(1)[0]
        if count >= SHARE * len(texts) and len(words.split()) == 3:
            pattern = r"\s+".join(re.escape(word) for word in words.split())
            pattern = f"^{pattern}" if place == "opens" else f"{pattern}$"
            found.append(Check(kind="regex", value=pattern, text=f'{place} with "{words}"'))
    return found


def _last_line(texts: Sequence[str]) -> list[Check]:
    """A last line of fixed form, such as "Answer: 12": the same in all replies once numbers are left out.

    Its number, where it has one, is what the reply comes to: it is scored apart from the form.
    """
    lines = [text.splitlines()[-1].strip() if "\n" in text else "" for text in texts]
    form, count = Counter(re.sub(_NUMBER, "\0", line) for line in lines).most_common(1)[0]
    if count < SHARE * len(texts) or not re.search(r"[^\s\0]", form):
        return []
    number = f"(?P<{GROUP}>{_NUMBER})" if form.count("\0") == 1 else _NUMBER
    pattern = "(?:^|\n)" + re.escape(form).replace("\0", number) + "$"
    shown = form.replace("\0", "…")
    return [Check(kind="regex", value=pattern, text=f'the last line has the form "{shown}"')]


def _layout(texts: Sequence[str]) -> list[Check]:
    if sum("\n" not in text for text in texts) < SHARE * len(texts):
        return []
    marks = ["\n", "**", "`"]
    kept = [mark for mark in marks if sum(mark not in text for text in texts) >= 0.99 * len(texts)]
    return [Check(kind="must_not", value=kept, text="one plain paragraph, no markup")] if "\n" in kept else []


def _share(pattern: str, texts: Sequence[str]) -> float:
    compiled = re.compile(pattern, re.DOTALL)
    return sum(bool(compiled.search(text)) for text in texts) / len(texts)
