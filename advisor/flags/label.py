"""The flags of `tunewise label`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from advisor import completion
from advisor.flags.records import flag, flag_words
from advisor.output import command_line


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFlags:
    """The questions and the run whose answers are labelled, by whom, and how."""

    questions: Annotated[Path, typer.Argument(help="The file of the run's questions, or rows of it.")]
    run: Annotated[Path, flag("The run folder.", autocompletion=completion.complete_runs)]
    by: Annotated[
        str | None, flag("Your name: each person has labels of their own. The account's by default.")
    ] = None
    terminal: Annotated[
        bool, flag("Label in this terminal, as over ssh, and not on a page.", "--terminal")
    ] = False
    all_pairs: Annotated[
        bool,
        flag("Ask about all questions and methods, not only what can change the verdict.", "--all-pairs"),
    ] = False
    port: Annotated[int, flag("Port of the page; 0 takes a free one.", min=0, max=65535)] = 0
    no_open: Annotated[bool, flag("Print the page's address, and open no browser.", "--no-open")] = False
    write: Annotated[
        bool, flag("Write the gold of all people into QUESTIONS, without labelling.", "--write")
    ] = False
    out: Annotated[
        Path | None, flag("With --write: another file (.jsonl) to write, QUESTIONS stays as it is.")
    ] = None
    yes: Annotated[bool, flag("Write without asking, after what changes was shown.", "--yes")] = False
    as_json: Annotated[bool, flag("Print at the end as JSON what is labelled and written.", "--json")] = False

    def resume_line(self) -> str:
        """Return the command that goes on with the same labels."""
        return command_line(
            "label", self.questions, "--run", self.run, *flag_words(self, "by", "terminal", "all_pairs")
        )
