"""The flags of `tunewise recheck`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from advisor import completion
from advisor.flags import options
from advisor.flags.records import flag, flag_words


@dataclass(frozen=True, slots=True, kw_only=True)
class RecheckFlags:
    """A finished run, what is given in place of its own, and what is done with the result."""

    run: options.Run
    documents: Annotated[Path | None, flag("Today's documents; those of the plan by default.")] = None
    prompt: options.Prompt = None
    examples: Annotated[Path | None, flag("Today's examples.")] = None
    questions: Annotated[
        Path | None,
        flag("The file of the run's questions, with gold that was corrected or moved."),
    ] = None
    model: Annotated[
        list[str] | None,
        flag(
            "Another base model in place of the plan's; of several ALIAS=MODEL, repeatable.",
            autocompletion=completion.complete_models,
            metavar="MODEL",
        ),
    ] = None
    plan: Annotated[
        Path | None,
        flag(
            "A plan with other settings; its arms of the same names are measured.",
            autocompletion=completion.complete_plans,
        ),
    ] = None
    prices: Annotated[Path | None, flag("A file of prices in place of TUNEWISE_FACTS.")] = None
    arm: Annotated[
        list[str] | None,
        flag(
            "An arm to measure; may be repeated. The one in use and the recommended one by default.",
            autocompletion=completion.complete_arms,
            show_default=False,
        ),
    ] = None
    all_arms: Annotated[bool, flag("Measure every arm of the run.", "--all-arms")] = False
    ask_all: Annotated[
        bool, flag("Ask every question again, also where the model reads the same.", "--ask-all")
    ] = False
    count_lost_gold: Annotated[
        bool,
        flag(
            "Count questions whose answer the documents no longer state, as losses: for documents that keep their facts.",
            "--count-lost-gold",
        ),
    ] = False
    margin: Annotated[
        float,
        flag("A loss up to this share of the questions, or of the score, is accepted.", min=0.0, max=1.0),
    ] = 0.0
    out: Annotated[Path | None, flag("Folder for the results; one in RUN/rechecks by default.")] = None
    junit: Annotated[Path | None, flag("Also write the JUnit report to this file.")] = None
    markdown: Annotated[Path | None, flag("Also write the Markdown report to this file.")] = None
    accept: Annotated[
        bool, flag("Compare the next recheck with this one; the run's verdict stays.", "--accept")
    ] = False
    yes: Annotated[bool, flag("Train again without asking where examples or model changed.", "--yes")] = False
    workflow: Annotated[str | None, flag("Print a CI workflow file instead: github or gitlab.")] = None
    as_json: Annotated[bool, flag("Print the result as JSON.", "--json")] = False

    @property
    def measured(self) -> list[object]:
        """The flags that say what is measured, as words of a command line."""
        return flag_words(
            self, "arm", "model", "plan", "prices", "all_arms", "ask_all", "count_lost_gold", "margin"
        )

    @property
    def others(self) -> list[object]:
        """The other flags that a command to resume repeats."""
        return flag_words(
            self,
            *("documents", "prompt", "examples", "questions"),
            *("out", "junit", "markdown", "accept", "yes"),
        )
