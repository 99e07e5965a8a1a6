"""Personal data and secrets: every kind is found, look-alikes are not, and no value is ever reported."""

from __future__ import annotations

import base64
import json
import random
import string

import pytest

from runners.data.examples import Example
from runners.data.personal_data import PERSONAL_DATA_KINDS, personal_data_kinds
from runners.preflight.data_checks import check_personal_data

DRAW = random.Random(7)
"""Values are drawn here, so that no key stands in this file."""


def drawn(length: int, letters: str = string.ascii_letters + string.digits) -> str:
    """A random text that surely has a digit and a letter."""
    return "".join(DRAW.choice(letters) for _ in range(length - 2)) + "a7"


def encoded(value: object) -> str:
    """A part of a web token."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def card(first: str, length: int = 16) -> str:
    """A number with a right last digit."""
    digits = first + "".join(DRAW.choice(string.digits) for _ in range(length - len(first) - 1))
    total = sum(sum(divmod(int(d) * (2 if i % 2 == 0 else 1), 10)) for i, d in enumerate(reversed(digits)))
    return digits + str(-total % 10)


def spaced(digits: str) -> str:
    """A card as it is printed."""
    return " ".join(digits[i : i + 4] for i in range(0, len(digits), 4))


TOKEN = f"{encoded({'alg': 'HS256', 'typ': 'JWT'})}.{encoded({'sub': '1234567890'})}.{drawn(43)}"
PEM = "-----BEGIN RSA PRIVATE KEY-----\n"

FOUND = {
    "write to jane.doe@acme-corp.co.uk today": "e-mail address",
    "call +44 1223 362 456 or come": "phone number",
    "our number is (212) 867-5309": "phone number",
    "212-867-5309 after six": "phone number",
    "Phone: 01223 362456": "phone number",
    "pay to GB29 NWBK 6016 1331 9268 19 please": "bank account (IBAN)",
    "DE89370400440532013000": "bank account (IBAN)",
    f"card {spaced(card('4'))}, thanks": "payment card",
    f"amex {card('37', 15)}": "payment card",
    "her number is 536-22-8437": "US social security number",
    "the host 8.8.4.4 answers": "IP address",
    "from 2a00:1450:4001:0829:0000:0000:0000:200e": "IP address",
    f"OPENAI_API_KEY=sk-proj-{drawn(40)}": "API key",
    f"token ghp_{drawn(36)}": "API key",
    f"AKIA{drawn(16, string.ascii_uppercase + '234567').upper()}": "API key",
    f"hf_{drawn(34)}": "API key",
    f"xoxb-{drawn(12, string.digits)}-{drawn(24)}": "API key",
    PEM + drawn(64): "private key",
    f"Bearer {TOKEN}": "JSON web token",
    "postgres://admin:hunter2@db.acme-corp.com:5432/main": "password in a URL",
}

LOOK_ALIKES = (
    "jane@example.com and john@mail.example.org are nobody",
    "git clone git@github.com:acme/tool.git",
    "logo@2x.png, @dataclass, me@home, a @ b",
    "on 2024-05-17 at 10:30, pages 123-456, ISBN 978-3-16-148410-0",
    "call 555-0123 or 212-555-0142, as in films",
    "dial 112; room 1.204; line 4",
    "order 4111-22, 1234 5678 9012 3456 is not a card, nor 0000 0000 0000 0000",
    "GB29 NWBK 6016 1331 9268 18 has a wrong checksum",
    "part 123-45-6789 and 000-12-3456",
    "version 1.2.3.4, v8.8.4.4, 192.168.0.1, 127.0.0.1, 203.0.113.9, 1.2.3.4.5, 300.1.1.1",
    "sk-learn-tutorial-part-2, task-force-12345678901234567890",
    "sk-your-api-key-goes-here, ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx, AKIAIOSFODNN7EXAMPLE",
    "a file that begins with -----BEGIN PRIVATE KEY----- holds a key",
    "-----BEGIN PUBLIC KEY-----\n" + "A" * 64,
    "eyJhbGciOiJub25l is how they begin; eyJub3RoaW5nIjoxfQ.eyJub3RoaW5nIjoxfQ.abcdefghijkl has no algorithm",
    "https://user:password@host/ and https://user:<PASSWORD>@host/, http://localhost:8080/@me",
    "between 1 000 000 and 2 000 000 people; π is 3.14159265358979",
)


@pytest.mark.parametrize("text", FOUND, ids=lambda t: FOUND[t])
def test_every_kind_is_found(text: str) -> None:
    assert personal_data_kinds(text) == (FOUND[text],)


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_look_alikes_are_not_found(text: str) -> None:
    assert personal_data_kinds(text) == ()


def test_every_kind_has_an_example() -> None:
    assert {kind.name for kind in PERSONAL_DATA_KINDS} == set(FOUND.values())


def test_report_names_kinds_and_rows_but_no_value() -> None:
    texts = [*FOUND, "nothing here"]
    rows = [
        Example(({"role": "user", "content": "Hi"}, {"role": "assistant", "content": text}), {}, line)
        for line, text in enumerate(texts, start=1)
    ]
    personal, secret = check_personal_data(rows)
    assert (personal.level, secret.level) == ("warn", "stop")
    assert "phone number in 4 rows (2, 3, 4, 5)" in personal.text
    assert "API key in 5 rows (13, 14, 15, 16, 17)" in secret.text
    assert set(secret.rows) == {13, 14, 15, 16, 17}
    told = f"{personal.to_json()}{secret.to_json()}"
    for value in ("jane.doe", "867-5309", "hunter2", "6016", "536-22", "8.8.4.4", "ghp_", "sk-proj", "eyJ"):
        assert value not in told


def test_clean_rows_pass(examples: tuple[Example, ...]) -> None:
    assert [check.level for check in check_personal_data(examples)] == ["ok", "ok"]


def test_public_rows_raise_no_false_alarm(shared: object, example: object) -> None:
    from pathlib import Path

    from runners.data.examples import load_examples

    for file in (
        Path(str(example)) / "examples.jsonl",
        Path(str(shared)) / "data/hybrid_concierge/train.jsonl",
    ):
        assert [check.level for check in check_personal_data(load_examples(file).rows)] == ["ok", "ok"]
