"""Personal data and secrets in what would be learnt: told by kind and row, never by value.

A model repeats what it learnt. Every shape has a second test (checksum, header, reserved name) against false alarms.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runners import lookalikes as real
from runners.example import Example, Place, place

Match = re.Match[str]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value: its shape, and what tells the real ones from look-alikes."""

    name: str
    shape: re.Pattern[str]
    real: Callable[[Match], bool]
    secret: bool = False
    """Whether whoever reads it can use it: a key rather than a person's data."""


def kinds_in(text: str) -> tuple[str, ...]:
    """Return the kinds of personal data and secrets that a text holds, in the order of :data:`KINDS`."""
    found = (kind.name for kind in KINDS if any(map(kind.real, kind.shape.finditer(text))))
    return tuple(dict.fromkeys(found))


def search(rows: Sequence[Example]) -> dict[str, list[Place]]:
    """Return, by kind, the places of the rows that hold it in any turn; a text that recurs is read once."""
    texts = {turn["content"] for row in rows for turn in row.messages}
    holds = {text: kinds_in(text) for text in texts}
    found: dict[str, list[Place]] = {}
    for row in rows:
        for kind in {kind for turn in row.messages for kind in holds[turn["content"]]}:
            found.setdefault(kind, []).append(place(row))
    return {kind.name: found[kind.name] for kind in KINDS if kind.name in found}


_KEYS = (
    r"sk-(?:proj-|ant-|or-)?", r"gh[opusr]_", r"github_pat_", r"glpat-", r"hf_", r"xox[abeprs]-", r"[sr]k_live_",
    r"npm_", r"pypi-", r"AIza", r"AKIA", r"ASIA",
)  # fmt: skip
"""How keys begin: OpenAI and Anthropic, GitHub, GitLab, Hugging Face, Slack, Stripe, npm, PyPI, Google, AWS."""

KINDS: tuple[Kind, ...] = (
    Kind("e-mail address", re.compile(r"(?<![\w.+-])([\w.+-]+)@((?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,})\b"), real.email),
    Kind("phone number", re.compile(
        r"(?<![\w+.])(?P<number>\+\d[\d ().-]{6,18}\d|\(\d{3}\) ?\d{3}-\d{4}|\d{3}[-.]\d{3}[-.]\d{4})(?![\w-])"),
        real.phone),
    Kind("phone number", re.compile(
        r"\b(?:phone|telephone|tel|call|mobile|fax|ring)\b[^\d\n]{0,20}(?P<number>\d[\d ().-]{5,14}\d)(?!\w)", re.I),
        real.phone),
    Kind("bank account (IBAN)", re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), real.iban),
    Kind("payment card", re.compile(r"(?<![\w.+-])\d(?:[ -]?\d){12,18}(?![\w-])"), real.card),
    Kind("US social security number", re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])"), real.ssn),
    Kind("IP address", re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]\w)(?!\w)"), real.public_address),
    Kind("IP address", re.compile(r"(?<![\w:])(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}(?![\w:])"), real.public_address),
    Kind("API key", re.compile(rf"(?<![\w-])(?:{'|'.join(_KEYS)})(?P<tail>[\w-]{{16,}})", re.ASCII), real.drawn, True),
    Kind("private key", re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----(?:\s|\\n)*[\w+/=-]{16,}"), real.always, True),
    Kind("JSON web token", re.compile(
        r"\b(?P<head>eyJ[\w-]{8,})\.eyJ[\w-]{8,}\.[\w-]{10,}", re.ASCII), real.web_token, True),
    Kind("password in a URL", re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/:@]*:(?P<password>[^\s/:@]+)@[^\s/@]+"),
         real.password, True),
)  # fmt: skip
"""Every kind that is looked for; two shapes of one kind share its name."""
