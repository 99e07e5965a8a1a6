"""What tells personal data and secrets from what only looks like them: checksums, reserved names, decoded headers."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re

Match = re.Match[str]

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


def email(found: Match) -> bool:
    """Not at a reserved domain, no git remote, and not the ``user:password@host`` of an address."""
    domain, text = found[2].lower(), found.string
    reserved = domain.rsplit(".", 1)[-1] in _NOT_DOMAINS or re.search(r"\bexample\.(com|org|net)$", domain)
    remote = found[1].lower() == "git" and text[found.end() : found.end() + 1] in (":", "/")
    in_address = re.search(r"://[^\s/]*$", text[: found.start()])
    return not (reserved or remote or in_address)


def phone(found: Match) -> bool:
    """Not a number of one or two digits over and over, nor one of the 555-01xx that fiction uses."""
    digits = re.sub(r"\D", "", found["number"])
    return 7 <= len(digits) <= 15 and len(set(digits)) > 3 and not re.search(r"5550?1\d\d$", digits)


def iban(found: Match) -> bool:
    """ISO 13616: the first four characters go to the end, letters become 10 to 35, the rest is 1 modulo 97."""
    text = found[0].replace(" ", "")
    number = "".join(str(int(letter, 36)) for letter in text[4:] + text[:4])
    return 15 <= len(text) <= 34 and int(number) % 97 == 1


def card(found: Match) -> bool:
    """ISO/IEC 7812: a card network's first digits and Luhn's checksum."""
    digits = re.sub(r"\D", "", found[0])
    doubled = [int(d) * (1 + i % 2) for i, d in enumerate(reversed(digits))]
    luhn = sum(d - 9 if d > 9 else d for d in doubled) % 10 == 0
    network = re.match(r"4|5[1-5]|2[2-7]|3[4-8]|6(?:011|5|4[4-9])", digits)
    return luhn and bool(network) and len(digits) in (14, 15, 16, 19) and len(set(digits)) > 2


def ssn(found: Match) -> bool:
    """The areas, groups and serial numbers that were ever issued, without two that are known from print."""
    area, group, serial = found[0].split("-")
    issued = area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"
    return issued and found[0] not in ("123-45-6789", "078-05-1120")


def public_address(found: Match) -> bool:
    """Not a version number, nor in a private or documentation range."""
    if re.search(r"(?:\bv|version|release|section|§)\s*$", found.string[: found.start()], re.IGNORECASE):
        return False
    try:
        return ipaddress.ip_address(found[0]).is_global
    except ValueError:
        return False


def drawn(found: Match) -> bool:
    """Whether a key looks drawn at random, unlike ``sk-your-key-goes-here`` or ``ghp_xxxxxxxx``."""
    part = max(re.split(r"[^A-Za-z0-9]+", found["tail"]), key=len)
    mixed = re.search(r"\d", part) and re.search(r"[A-Za-z]", part)
    return bool(mixed) and len(part) >= 16 and len(set(part)) >= 8 and "EXAMPLE" not in part.upper()


def web_token(found: Match) -> bool:
    """RFC 7519: the first part is the base64 of a JSON object that names its algorithm."""
    try:
        header = json.loads(base64.urlsafe_b64decode(found["head"] + "=" * (-len(found["head"]) % 4)))
    except (binascii.Error, ValueError):
        return False
    return isinstance(header, dict) and "alg" in header


def password(found: Match) -> bool:
    """Not a word that stands for the password, as documentation writes it."""
    placeholder = r"[<{$%\[*].*|x+|\.+|pass(word|wd)?|pwd|secret|token|your.*"
    return not re.fullmatch(placeholder, found["password"], re.IGNORECASE)


def always(found: Match) -> bool:
    """Whatever has the shape is real."""
    return True
