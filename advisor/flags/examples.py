"""The flags of `tunewise examples make`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from advisor import completion
from advisor.flags import options
from advisor.flags.records import flag, flag_words
from advisor.output import command_line


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeFlags:
    """Rows to make from documents, or questions to reword, and by whom."""

    documents: options.Documents = None
    out: Annotated[Path, flag("The file of rows to write (.jsonl).")]
    teacher: Annotated[
        str | None,
        flag(
            "The model that writes rows: a name, a folder, or openai:NAME@URL. Without it, questions are made from "
            "English statements by rule.",
            autocompletion=completion.complete_models,
        ),
    ] = None
    teacher_license: Annotated[
        str | None,
        flag(
            "Whether the teacher's licence allows training on its answers: yes, no or unknown; asked on a terminal. Stored "
            "with the rows, and shown with all that is trained on them."
        ),
    ] = None
    count: Annotated[int, flag("Rows wanted.", min=1, max=100_000)] = 100
    rows_as: Annotated[
        str,
        flag("examples (for tuning) or questions (for testing); examples where there is a teacher.", "--as"),
    ] = ""
    wordings: Annotated[
        Path | None,
        flag("Have the teacher reword each question of this file as customers ask, in place of making rows."),
    ] = None
    prompt: Annotated[str | None, flag("Instructions that replies follow today: the text, or a file.")] = None
    questions: Annotated[Path | None, flag("Held-out questions: no row may contain one of them.")] = None
    examples: Annotated[Path | None, flag("Your own examples: no row may repeat one of them.")] = None
    model: Annotated[
        str | None,
        flag(
            "The base model, which is asked without the passage; the default model where none is named.",
            autocompletion=completion.complete_models,
        ),
    ] = None
    known: Annotated[
        str,
        flag("Rows that the base model answers without the passage: keep (marked), drop, or skip the check."),
    ] = "keep"
    index: Annotated[
        Path | None, flag("An index of the documents; without it one is built beside --out.")
    ] = None
    embedder: Annotated[str, flag("The embedder: a known name or a folder.")] = options.EMBEDDER
    k: Annotated[int, flag("Passages among which retrieval must find the row's own.", min=1, max=100)] = 10
    strict: Annotated[
        bool,
        flag(
            "Keep only replies that the claim check of citations supports sentence by sentence.",
            "--strict",
        ),
    ] = False
    language: Annotated[
        str, flag("Language of the rows, such as en or de. Without it, that of each passage.")
    ] = ""
    seed: Annotated[int, flag("Seed of the order of documents and styles.", min=0)] = 0
    at_once: Annotated[int, flag("Requests to an endpoint at a time.", min=1, max=64)] = 4
    per_minute: Annotated[float | None, flag("Most requests a minute to an endpoint.", min=0.1)] = None
    price: Annotated[
        str | None,
        flag("USD of a million tokens, of prompt and answer: 0.15/0.60. Without it, as listed."),
    ] = None
    local_only: Annotated[
        bool,
        flag("Refuse a teacher outside of this machine and private networks.", "--data-must-stay-local"),
    ] = False
    resume: Annotated[bool, flag("Continue with what the teacher wrote before.", "--resume")] = False
    overwrite: Annotated[bool, flag("Replace the file, and ask again.", "--overwrite")] = False
    dry_run: Annotated[bool, flag("Say what would be asked and what it costs; ask nothing.", "--dry-run")] = (
        False
    )
    yes: Annotated[bool, flag("Do not ask before an endpoint is used.", "--yes")] = False
    as_json: Annotated[bool, flag("Print the summary as JSON.", "--json")] = False

    @property
    def work(self) -> Path:
        """Folder of what the teacher wrote and of the index, beside the file of rows."""
        return self.out.with_name(f"{self.out.name}.work")

    @property
    def rejected(self) -> Path:
        """File of the rows that did not pass."""
        return self.out.with_name(f"{self.out.name}.rejected.jsonl")

    @property
    def corpus(self) -> Path:
        """The documents of rows."""
        assert self.documents is not None
        return self.documents

    @property
    def sent(self) -> str:
        """What a teacher is shown, in words."""
        return f"the questions of {self.wordings}" if self.wordings else f"passages of {self.documents}"

    def resume_line(self) -> str:
        """Return the command that goes on where this one stopped."""
        words = flag_words(self, "out", "documents", "wordings", "teacher", "teacher_license")
        words += [] if self.wordings else ["--count", self.count]
        words += flag_words(
            self,
            "rows_as",
            "prompt",
            "questions",
            "examples",
            "model",
            "known",
            "index",
            "embedder",
            "k",
            "language",
            "seed",
            "at_once",
            "per_minute",
            "price",
            "strict",
            "local_only",
        )
        return command_line("examples", "make", *words, "--resume", *flag_words(self, "yes"))
