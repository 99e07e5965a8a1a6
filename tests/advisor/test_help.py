"""`tunewise --help`: every verb under its heading, on one screen."""

from __future__ import annotations

import pytest
import typer.main

from advisor import cli


@pytest.fixture
def help_text(capsys: pytest.CaptureFixture[str]) -> str:
    """The help as it is printed on a terminal of 80 columns."""
    command = typer.main.get_command(cli.app)
    command.get_help(command.make_context("tunewise", [], resilient_parsing=True, terminal_width=80))
    return capsys.readouterr().out


def test_help_fits_on_one_screen(help_text: str) -> None:
    lines = help_text.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80


def test_every_verb_is_one_line_under_its_heading(help_text: str) -> None:
    sections: dict[str, list[str]] = {}
    for line in help_text.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            sections[line.removesuffix(":")] = []
        elif sections:
            list(sections.values())[-1].append(line)
    for name, heading in {**cli.VERBS, **cli.GROUPS}.items():
        rows = [row for row in sections[heading] if row.split()[0] == name]
        assert len(rows) == 1, name
        assert rows[0].endswith("."), f"the help of {name} does not fit on one line"


def test_options_are_named(help_text: str) -> None:
    assert all(
        f"--{name}" in help_text for name in ("format", "quiet", "verbose", "debug", "version", "help")
    )


@pytest.mark.parametrize(
    ("word", "verb"),
    [
        ("recomend", "plan"),
        ("recommend", "plan"),
        ("advice", "plan"),
        ("repotr", "report"),
        ("Serve", "serve"),
        ("finetune", "train"),
        ("evalute", "eval"),
        ("search", "index search"),
        ("querry", "ask"),
        ("modles", "models"),
    ],
)
def test_an_unknown_verb_is_answered_with_the_one_that_is_meant(
    word: str, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main([word, "--json"])
    assert stopped.value.code == 2
    printed = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert f"No such command '{word}'. Did you mean '{verb}'?" in printed


def test_other_words_lead_to_verbs_and_are_none() -> None:
    """Each leads to a verb, or to a noun and its verb; no verb of our own is among them."""
    verbs = {**cli.VERBS, **cli.GROUPS}
    assert not cli.OTHER_WORDS.keys() & verbs.keys()
    assert len(cli.OTHER_WORDS) >= 40
    command = typer.main.get_command(cli.app)
    for verb in set(cli.OTHER_WORDS.values()):
        first, *rest = verb.split()
        assert first in verbs
        assert not rest or rest[0] in command.commands[first].commands  # type: ignore[attr-defined]
    assert cli.meant_verb("xylophone") == ""
