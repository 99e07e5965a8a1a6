"""The flags of `tunewise demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from advisor.flags import options
from advisor.flags.records import flag, flag_words
from advisor.output import command_line


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoFlags:
    """What of the shipped example is shown, and where."""

    named: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ALIAS=NAME]...",
            help="With --models: models beside the two, such as big=openai:NAME@URL, or in place of smollm or gemma.",
        ),
    ] = None
    models: Annotated[
        bool,
        flag(
            "Compare models: smollm2-135m-instruct with gemma-3-270m, and those that are named, by three methods each.",
            "--models",
        ),
    ] = False
    out: Annotated[
        Path | None,
        flag("The run folder; by default runs/harbor-desk, of --models runs/harbor-desk-models."),
    ] = None
    quick: Annotated[bool, flag("Fewer questions and rows: at most five minutes.", "--quick")] = False
    resume: Annotated[bool, flag("Continue after the last finished step.", "--resume")] = False
    overwrite: Annotated[
        bool, flag("Remove the run folder that is there, and start again.", "--overwrite")
    ] = False
    accept_license: options.AcceptLicense = None
    copy: Annotated[
        Path | None,
        flag("Only copy the example's files into this folder, to work with them step by step."),
    ] = None
    as_json: Annotated[bool, flag("Print the report as JSON, and everything else to stderr.", "--json")] = (
        False
    )

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.out or Path("runs/harbor-desk-models" if self.models else "runs/harbor-desk")

    def models_line(self, out: Path, *words: object) -> str:
        """Return the command that compares the same models in a folder."""
        licenses = flag_words(self, "accept_license")
        return command_line("demo", "--models", *(self.named or ()), *licenses, "--out", out, *words)
