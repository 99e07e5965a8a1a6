"""Personal data and secrets in what would be learnt: told by kind and row, never by value.

A model repeats what it learnt. Every shape has a second test (checksum, header, reserved name) against false alarms.

What tells personal data and secrets from what only looks like them: checksums, reserved names, decoded headers.
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
"""Ends of names that nobody has: RFC 2606's reserved ones, and files such as ``logo@2x.png``."""


def is_email(found: ValueMatch) -> bool:
    """Not at a reserved domain, no git remote, and not the ``user:password@host`` of an address."""
    domain, text = found[2].lower(), found.string
    reserved = domain.rsplit(".", 1)[-1] in _NOT_DOMAINS or re.search(r"\bexample\.(com|org|net)$", domain)
    remote = found[1].lower() == "git" and text[found.end() : found.end() + 1] in (":", "/")
    in_address = re.search(r"://[^\s/]*$", text[: found.start()])
    return not (reserved or remote or in_address)


def is_phone_number(found: ValueMatch) -> bool:
    """Not a number of one or two digits over and over, nor one of the 555-01xx that fiction uses."""
    digits = re.sub(r"\D", "", found["number"])
    return 7 <= len(digits) <= 15 and len(set(digits)) > 3 and not re.search(r"5550?1\d\d$", digits)


def is_iban(found: ValueMatch) -> bool:
    """ISO 13616: the first four characters go to the end, letters become 10 to 35, the rest is 1 modulo 97."""
    text = found[0].replace(" ", "")
    number = "".join(str(int(letter, 36)) for letter in text[4:] + text[:4])
    return 15 <= len(text) <= 34 and int(number) % 97 == 1


def is_card_number(found: ValueMatch) -> bool:
    """ISO/IEC 7812: a card network's first digits and Luhn's checksum."""
    digits = re.sub(r"\D", "", found[0])
    doubled = [int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits))]
    luhn = sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0
    network = re.match(r"4|5[1-5]|2[2-7]|3[4-8]|6(?:011|5|4[4-9])", digits)
    return luhn and bool(network) and len(digits) in (14, 15, 16, 19) and len(set(digits)) > 2


def is_social_security_number(found: ValueMatch) -> bool:
    """The areas, groups and serial numbers that were ever issued, without two that are known from print."""
    area, group, serial = found[0].split("-")
    issued = area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"
    return issued and found[0] not in ("123-45-6789", "078-05-1120")


def is_public_address(found: ValueMatch) -> bool:
    """Not a version number, nor in a private or documentation range."""
    if re.search(r"(?:\bv|version|release|section|§)\s*$", found.string[: found.start()], re.IGNORECASE):
        return False
    try:
        return ipaddress.ip_address(found[0]).is_global
    except ValueError:
        return False


def is_random_key(found: ValueMatch) -> bool:
    """Whether a key looks drawn at random, unlike ``sk-your-key-goes-here`` or ``ghp_xxxxxxxx``."""
    part = max(re.split(r"[^A-Za-z0-9]+", found["tail"]), key=len)
    mixed = re.search(r"\d", part) and re.search(r"[A-Za-z]", part)
    return bool(mixed) and len(part) >= 16 and len(set(part)) >= 8 and "EXAMPLE" not in part.upper()


def is_web_token(found: ValueMatch) -> bool:
    """RFC 7519: the first part is the base64 of a JSON object that names its algorithm."""
    try:
        header = json.loads(base64.urlsafe_b64decode(found["head"] + "=" * (-len(found["head"]) % 4)))
    except (binascii.Error, ValueError):
        return False
    return isinstance(header, dict) and "alg" in header


def is_password(found: ValueMatch) -> bool:
    """Not a word that stands for the password, as documentation writes it."""
    placeholder = r"[<{$%\[*].*|x+|\.+|pass(word|wd)?|pwd|secret|token|your.*"
    return not re.fullmatch(placeholder, found["password"], re.IGNORECASE)


def is_always_real(found: ValueMatch) -> bool:
    """Whatever has the shape is real."""
    return True


Match = re.Match[str]


@dataclass(frozen=True, slots=True)
class PersonalDataKind:
    """One kind of value: its shape, and what tells the real ones from look-alikes."""

    name: str
    shape: re.Pattern[str]
    real: Callable[[Match], bool]
    secret: bool = False
    """Whether whoever reads it can use it: a key rather than a person's data."""


def personal_data_kinds(text: str) -> tuple[str, ...]:
    """Return the kinds of personal data and secrets that a text holds, in the order of :data:`KINDS`."""
    found = (kind.name for kind in PERSONAL_DATA_KINDS if any(map(kind.real, kind.shape.finditer(text))))
    return tuple(dict.fromkeys(found))


def find_personal_data(rows: Sequence[Example]) -> dict[str, list[RowPlace]]:
    """Return, by kind, the places of the rows that hold it in any turn; a text that recurs is read once."""
    texts = {turn["content"] for row in rows for turn in row.messages}
    holds = {text: personal_data_kinds(text) for text in texts}
    found: dict[str, list[RowPlace]] = {}
    for row in rows:
        for kind in {kind for turn in row.messages for kind in holds[turn["content"]]}:
            found.setdefault(kind, []).append(row_place(row))
    return {kind.name: found[kind.name] for kind in PERSONAL_DATA_KINDS if kind.name in found}


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
"""How keys begin: OpenAI and Anthropic, GitHub, GitLab, Hugging Face, Slack, Stripe, npm, PyPI, Google, AWS."""

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
"""Every kind that is looked for; two shapes of one kind share its name."""
