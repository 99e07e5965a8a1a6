"""Arguments and options that several verbs have, each with its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from advisor import completion
from advisor.flags.records import flag

EMBEDDER = "all-minilm-l6-v2"
"""The embedder of an index by default."""

Run = Annotated[Path, typer.Argument(help="The run folder.", autocompletion=completion.complete_runs)]
Arm = Annotated[
    str | None,
    flag(
        "Answer with this arm (method) in place of the one the verdict chose.",
        autocompletion=completion.complete_arms,
    ),
]
MovedModel = Annotated[
    list[str] | None,
    flag(
        "Folder of the run's base model, if it has moved; other weights are refused. Of several models ALIAS=FOLDER; "
        "repeatable.",
        metavar="FOLDER",
    ),
]
Backend = Annotated[
    list[str] | None,
    flag(
        "Server that generates the answers: openai:NAME@URL[,URL...], or ARM=openai:NAME@URL for one arm; repeatable. "
        "local: this process. Default: what the run was measured with."
    ),
]
Server = Annotated[
    bool,
    flag(
        "Ask a server of this machine that has the run loaded (tunewise serve), where there is one.",
        "--server/--no-server",
    ),
]
Check = Annotated[
    Literal["refuse", "mark"] | None,
    flag(
        "What becomes of an answer that the passages do not support. Default: what the trial settled for the arm."
    ),
]
Documents = Annotated[Path | None, flag("A folder, a file, or a .jsonl of document rows.")]
Columns = Annotated[
    str | None,
    flag(
        "Columns of the examples (and questions): prompt=COLUMN,reply=COLUMN; guessed by their names otherwise."
    ),
]
Prompt = Annotated[str | None, flag("Today's instructions: the text, or a file.")]
Model = Annotated[
    str | None,
    flag("The base model: a name, a folder, or openai:NAME@URL.", autocompletion=completion.complete_models),
]
IndexEmbedder = Annotated[str, flag("The embedder the index was built with: a known name or a folder.")]
AcceptLicense = Annotated[
    list[str] | None,
    flag(
        "Accept the terms of this licence, so that models under it are fetched: gemma; repeatable.",
        autocompletion=completion.complete_licenses,
    ),
]
Track = Annotated[
    list[str] | None,
    flag(
        "Send metrics to a tracker: mlflow, wandb, tensorboard or trackio; repeatable.",
        autocompletion=completion.complete_trackers,
    ),
]
AllowHub = Annotated[
    bool,
    flag(
        "Allow the model hub to be asked: for the config.json of an unknown model, no weights.", "--allow-hub"
    ),
]
Json = Annotated[bool, flag("Print as JSON.", "--json")]
ResultJson = Annotated[bool, flag("Print it as JSON.", "--json")]
