"""The flags of `tunewise questions import`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from advisor.flags import options
from advisor.flags.records import flag, flag_words
from advisor.output import command_line


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportFlags:
    """The logs to read, and the questions to take from them."""

    logs: Annotated[
        list[Path],
        typer.Argument(
            help="Files of the log: chats as JSON lines, OpenTelemetry spans, a table, or the log of tunewise serve."
        ),
    ]
    out: Annotated[Path, flag("The file of questions to write (.jsonl).")]
    count: Annotated[int, flag("Questions wanted.", min=1, max=10_000)] = 100
    groups: Annotated[
        int, flag("Clusters; 0 takes the square root of half the different questions.", min=0, max=5_000)
    ] = 0
    columns: Annotated[
        str | None,
        flag(
            "Columns of a table: question=COLUMN, and title, conversation, author; guessed by their names otherwise."
        ),
    ] = None
    against: Annotated[
        Path | None, flag("Questions that you have: how the log differs from them, and what they miss.")
    ] = None
    wordings: Annotated[
        Path | None, flag("Also write what was asked, in its own words, for tunewise plan --wordings.")
    ] = None
    embedder: Annotated[str, flag("The embedder: a known name or a folder.")] = options.EMBEDDER
    seed: Annotated[int, flag("Seed of clusters and samples.", min=0)] = 0
    overwrite: Annotated[bool, flag("Replace the files.", "--overwrite")] = False
    yes: Annotated[bool, flag("Write without asking, after what is masked was shown.", "--yes")] = False
    as_json: Annotated[bool, flag("Print the summary as JSON.", "--json")] = False

    @property
    def work(self) -> Path:
        """Folder of the vectors while the import is not finished, beside the file of questions."""
        return self.out.with_name(f"{self.out.name}.work")

    def resume_line(self) -> str:
        """Return the command that goes on where this one stopped."""
        names = (
            "out",
            "count",
            "groups",
            "columns",
            "against",
            "wordings",
            "embedder",
            "seed",
            "overwrite",
            "yes",
        )
        return command_line("questions", "import", *self.logs, *flag_words(self, *names))
