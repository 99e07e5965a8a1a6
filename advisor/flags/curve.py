"""The flags of `tunewise curve`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from advisor import completion
from advisor.flags.records import flag, flag_words
from advisor.output import command_line


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveRequest:
    """What to measure a learning curve of."""

    target: Annotated[
        Path | None,
        typer.Argument(
            help="A run folder or a plan. Of a finished run the test questions are asked, of a plan the dev questions.",
            autocompletion=completion.complete_runs,
        ),
    ] = None
    examples: Annotated[Path | None, flag("Without a plan: the examples to tune on.")] = None
    questions: Annotated[Path | None, flag("Without a plan: questions; their dev part is asked.")] = None
    model: Annotated[
        str | None,
        flag("Without a plan: the base model.", autocompletion=completion.complete_models),
    ] = None
    method: Annotated[str | None, flag("Without a plan: lora, qlora or full; lora by default.")] = None
    arm: Annotated[
        list[str] | None,
        flag(
            "The arm: tuned, few-shot, classifier or nearest-reply; repeatable, or as lora,few-shot, or all, for several on "
            "one axis. By default the one to use, else the first tuned one.",
            autocompletion=completion.complete_arms,
        ),
    ] = None
    sizes: Annotated[
        str | None, flag("Numbers of rows, as 50,100,200; 1/8, 1/4, 1/2 and all by default.")
    ] = None
    seeds: Annotated[
        int | None,
        flag("Trainings of each size; by default 1, and 2 where --minutes allows.", show_default=False),
    ] = None
    minutes: Annotated[
        float | None,
        flag("Time limit by which a second seed is decided; 60 by default.", show_default=False),
    ] = None
    worth: Annotated[
        float, flag("Gain in the combined score that makes twice as many examples worth writing.")
    ] = 0.01
    out: Annotated[
        Path | None,
        flag(
            "The folder of the curve; RUN/curves/ARM or curves/NAME-ARM by default. Of several arms it holds one for each.",
            show_default=False,
        ),
    ] = None
    resume: Annotated[bool, flag("Continue in a folder that exists.", "--resume")] = False
    overwrite: Annotated[bool, flag("Start again in a folder that exists.", "--overwrite")] = False
    cases: Annotated[
        Path | None,
        flag("Measure nothing: score the forecast on a file of published curves.", show_default=False),
    ] = None
    as_json: Annotated[bool, flag("Print the curve as JSON.", "--json")] = False

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that are named, each once; () for the default one."""
        names = [name.strip() for given in self.arm or () for name in given.split(",")]
        return tuple(dict.fromkeys(filter(None, names)))

    @property
    def resume_line(self) -> str:
        """The command that goes on with this curve."""
        words: list[object] = [self.target] if self.target else []
        words += flag_words(
            self, "examples", "questions", "model", "method", "arm", "seeds", "minutes", "out"
        )
        return command_line("curve", *words, *flag_words(self, "sizes", "worth"), "--resume")
