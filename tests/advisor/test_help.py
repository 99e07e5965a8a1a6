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
