"""Find personal data and secrets in training rows; they are reported by kind and row, never by value.

:func:`mask_personal_data` replaces them in texts that are stored.

A model can repeat what it was trained on. :func:`find_personal_data` searches rows for the kinds in
:data:`PERSONAL_DATA_KINDS`: each has a regular expression, and a check against false alarms (a checksum, a decoded header,
a list of reserved names).
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runners.data.examples import Example, RowPlace, row_place

ValueMatch = re.Match[str]

_NOT_DOMAINS = frozenset(
    (
        "example",
        "invalid",
        "test",
        "localhost",
        "local",
        "png",
        "jpg",
        "jpeg",
        "gif",
        "svg",
        "webp",
        "js",
        "css",
        "py",
    )
)
"""Last parts of names that are no e-mail domain: RFC 2606's reserved ones, and endings of files (``logo@2x.png``)."""


@dataclass(frozen=True, slots=True)
class PersonalDataKind:
    """One kind of value: a regular expression, and a check that tells real values from look-alikes."""

    name: str
    shape: re.Pattern[str]
    real: Callable[[ValueMatch], bool]
    secret: bool = False
    """Whether it is a key that anyone who reads it can use, rather than a person's data."""


def find_personal_data(rows: Sequence[Example]) -> dict[str, list[RowPlace]]:
    """Return, by kind, the places of the rows that hold it in any turn; a text that recurs is read once."""
    texts = {turn["content"] for row in rows for turn in row.messages}
    kinds_of_text = {text: personal_data_kinds(text) for text in texts}
    places_by_kind: dict[str, list[RowPlace]] = {}
    for row in rows:
        for kind in {kind for turn in row.messages for kind in kinds_of_text[turn["content"]]}:
            places_by_kind.setdefault(kind, []).append(row_place(row))
    return {
        kind.name: places_by_kind[kind.name] for kind in PERSONAL_DATA_KINDS if kind.name in places_by_kind
    }


def personal_data_kinds(text: str) -> tuple[str, ...]:
    """Return the kinds of personal data and secrets in a text, in the order of :data:`PERSONAL_DATA_KINDS`."""
    names = (kind.name for kind in PERSONAL_DATA_KINDS if any(map(kind.real, kind.shape.finditer(text))))
    return tuple(dict.fromkeys(names))


def mask_personal_data(text: str) -> tuple[str, tuple[str, ...]]:
    """Return a text with the name of the kind, in brackets, in place of each value, and the kinds that were found."""
    kinds = []
    for kind in PERSONAL_DATA_KINDS:
        spans = [match.span(_value_group(match)) for match in kind.shape.finditer(text) if kind.real(match)]
        for start, end in reversed(spans):
            text = f"{text[:start]}[{kind.name}]{text[end:]}"
        kinds += [kind.name] if spans else []
    return text, tuple(dict.fromkeys(kinds))


def _value_group(match: ValueMatch) -> int | str:
    """Return the group that holds the value: a phone number without the word before it."""
    return "number" if "number" in match.re.groupindex else 0


def is_email(match: ValueMatch) -> bool:
    """Whether it is not at a reserved domain, no git remote, and not the ``user:password@host`` of a URL."""
    domain, text = match[2].lower(), match.string
    reserved = domain.rsplit(".", 1)[-1] in _NOT_DOMAINS or re.search(r"\bexample\.(com|org|net)$", domain)
    remote = match[1].lower() == "git" and text[match.end() : match.end() + 1] in (":", "/")
    in_address = re.search(r"://[^\s/]*$", text[: match.start()])
    return not (reserved or remote or in_address)


def is_phone_number(match: ValueMatch) -> bool:
    """Whether it has 7 to 15 digits, more than three different ones, and is none of fiction's 555-01xx numbers."""
    digits = re.sub(r"\D", "", match["number"])
    return 7 <= len(digits) <= 15 and len(set(digits)) > 3 and not re.search(r"5550?1\d\d$", digits)


def is_iban(match: ValueMatch) -> bool:
    """Check ISO 13616: with the first four characters moved to the end and letters as 10 to 35, it is 1 modulo 97."""
    text = match[0].replace(" ", "")
    number = "".join(str(int(letter, 36)) for letter in text[4:] + text[:4])
    return 15 <= len(text) <= 34 and int(number) % 97 == 1


def is_card_number(match: ValueMatch) -> bool:
    """Check ISO/IEC 7812: a card network's first digits and Luhn's checksum."""
    digits = re.sub(r"\D", "", match[0])
    doubled = [int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits))]
    luhn = sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0
    network = re.match(r"4|5[1-5]|2[2-7]|3[4-8]|6(?:011|5|4[4-9])", digits)
    return luhn and bool(network) and len(digits) in (14, 15, 16, 19) and len(set(digits)) > 2


def is_social_security_number(match: ValueMatch) -> bool:
    """Whether area, group and serial number could have been issued, and it is none of two well-known printed ones."""
    area, group, serial = match[0].split("-")
    issued = area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"
    return issued and match[0] not in ("123-45-6789", "078-05-1120")


def is_public_address(match: ValueMatch) -> bool:
    """Whether it is no version number, and not in a private or documentation range."""
    if re.search(r"(?:\bv|version|release|section|§)\s*$", match.string[: match.start()], re.IGNORECASE):
        return False
    try:
        return ipaddress.ip_address(match[0]).is_global
    except ValueError:
        return False


def is_random_key(match: ValueMatch) -> bool:
    """Whether a key looks random, unlike ``sk-your-key-goes-here`` or ``ghp_xxxxxxxx``."""
    part = max(re.split(r"[^A-Za-z0-9]+", match["tail"]), key=len)
    mixed = re.search(r"\d", part) and re.search(r"[A-Za-z]", part)
    return bool(mixed) and len(part) >= 16 and len(set(part)) >= 8 and "EXAMPLE" not in part.upper()


def is_web_token(match: ValueMatch) -> bool:
    """Check RFC 7519: the first part is the base64 of a JSON object that names its algorithm."""
    try:
        header = json.loads(base64.urlsafe_b64decode(match["head"] + "=" * (-len(match["head"]) % 4)))
    except (binascii.Error, ValueError):
        return False
    return isinstance(header, dict) and "alg" in header


def is_password(match: ValueMatch) -> bool:
    """Whether it is no placeholder for a password, as in documentation."""
    placeholder = r"[<{$%\[*].*|x+|\.+|pass(word|wd)?|pwd|secret|token|your.*"
    return not re.fullmatch(placeholder, match["password"], re.IGNORECASE)


def is_always_real(match: ValueMatch) -> bool:
    """Accept every match: the expression alone is specific enough."""
    return True


_KEYS = (
    r"sk-(?:proj-|ant-|or-)?",
    r"gh[opusr]_",
    r"github_pat_",
    r"glpat-",
    r"hf_",
    r"xox[abeprs]-",
    r"[sr]k_live_",
    r"npm_",
    r"pypi-",
    r"AIza",
    r"AKIA",
    r"ASIA",
)
"""Prefixes of keys: OpenAI and Anthropic, GitHub, GitLab, Hugging Face, Slack, Stripe, npm, PyPI, Google, AWS."""

PERSONAL_DATA_KINDS: tuple[PersonalDataKind, ...] = (
    PersonalDataKind(
        "e-mail address", re.compile(r"(?<![\w.+-])([\w.+-]+)@((?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,})\b"), is_email
    ),
    PersonalDataKind(
        "phone number",
        re.compile(
            r"(?<![\w+.])(?P<number>\+\d[\d ().-]{6,18}\d|\(\d{3}\) ?\d{3}-\d{4}|\d{3}[-.]\d{3}[-.]\d{4})(?![\w-])"
        ),
        is_phone_number,
    ),
    PersonalDataKind(
        "phone number",
        re.compile(
            r"\b(?:phone|telephone|tel|call|mobile|fax|ring)\b[^\d\n]{0,20}(?P<number>\d[\d ().-]{5,14}\d)(?!\w)",
            re.I,
        ),
        is_phone_number,
    ),
    PersonalDataKind(
        "bank account (IBAN)",
        re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"),
        is_iban,
    ),
    PersonalDataKind(
        "payment card", re.compile(r"(?<![\w.+-])\d(?:[ -]?\d){12,18}(?![\w-])"), is_card_number
    ),
    PersonalDataKind(
        "US social security number",
        re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])"),
        is_social_security_number,
    ),
    PersonalDataKind(
        "IP address", re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]\w)(?!\w)"), is_public_address
    ),
    PersonalDataKind(
        "IP address",
        re.compile(r"(?<![\w:])(?:[0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}(?![\w:])"),
        is_public_address,
    ),
    PersonalDataKind(
        "API key",
        re.compile(rf"(?<![\w-])(?:{'|'.join(_KEYS)})(?P<tail>[\w-]{{16,}})", re.ASCII),
        is_random_key,
        True,
    ),
    PersonalDataKind(
        "private key",
        re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----(?:\s|\\n)*[\w+/=-]{16,}"),
        is_always_real,
        True,
    ),
    PersonalDataKind(
        "JSON web token",
        re.compile(r"\b(?P<head>eyJ[\w-]{8,})\.eyJ[\w-]{8,}\.[\w-]{10,}", re.ASCII),
        is_web_token,
        True,
    ),
    PersonalDataKind(
        "password in a URL",
        re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/:@]*:(?P<password>[^\s/:@]+)@[^\s/@]+"),
        is_password,
        True,
    ),
)
"""Every kind that is searched for; two entries with the same name are one kind."""
