"""Records of flags: a record is written as words of a command line, and those words are read as the same record."""

from __future__ import annotations

import inspect
import shlex
from dataclasses import fields, is_dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from advisor.cli import GROUPS, VERBS
from advisor.flags.curve import CurveRequest
from advisor.flags.estimate import EstimateRequest
from advisor.flags.examples import MakeFlags
from advisor.flags.index import BuildFlags, TuneFlags
from advisor.flags.launch import LaunchFlags
from advisor.flags.plan import PlanRequest, ProbeRequest
from advisor.flags.recheck import RecheckFlags
from advisor.flags.records import flag_words, given_flags, takes_flags
from advisor.flags.run import RunFlags
from advisor.flags.train import TrainRequest

RECORDS: list[type[Any]] = [
    *(CurveRequest, EstimateRequest, MakeFlags, BuildFlags, TuneFlags, PlanRequest, ProbeRequest),
    *(RecheckFlags, RunFlags, TrainRequest),
]


def hint_of(kind: type[Any], name: str) -> Any:
    """Return the type of a field without None and without the flag that describes it."""
    hint = get_type_hints(kind)[name]
    others = [part for part in get_args(hint) if part is not type(None)]
    return others[0] if others and get_origin(hint) is not list else hint


def other_value(kind: type[Any], name: str, default: Any) -> Any:
    """Return a value that is not the default."""
    hint = hint_of(kind, name)
    if hint is bool:
        return not default
    if get_origin(hint) is list:
        return ["a=b", "c d"]
    info = get_type_hints(kind, include_extras=True)[name].__metadata__[0]
    values = {int: (info.min or 0) + 5, float: 0.25, str: "two words", Path: Path("some folder/file")}
    return values[hint]


def filled(kind: type[Any]) -> Any:
    """Return a record in which every flag has another value than its default."""
    hints = get_type_hints(kind)
    return kind(
        **{
            each.name: filled(hints[each.name])
            if is_dataclass(hints[each.name])
            else other_value(kind, each.name, each.default)
            for each in fields(kind)
        }
    )


def arguments_of(record: Any) -> list[str]:
    """Return the names of the fields that are arguments without a flag."""
    hints = get_type_hints(type(record), include_extras=True)
    infos = {name: getattr(hint, "__metadata__", (None,))[0] for name, hint in hints.items()}
    return [name for name, info in infos.items() if isinstance(info, typer.models.ArgumentInfo)]


def words_of(record: Any) -> list[str]:
    """Return a record as a command line."""
    arguments = arguments_of(record)
    nested = [each.name for each in fields(record) if is_dataclass(getattr(record, each.name))]
    words: list[object] = [getattr(record, name) for name in arguments if getattr(record, name) is not None]
    words += flag_words(record, *(e.name for e in fields(record) if e.name not in (*arguments, *nested)))
    for name in nested:
        words += flag_words(getattr(record, name))
    return [str(word) for word in words]


def read_back(kind: type[Any], words: list[str]) -> Any:
    """Return the record that a verb with these flags gets."""
    received: list[Any] = []

    def command(flags: Any) -> None:
        received.append(flags)

    command.__annotations__["flags"] = kind
    app = typer.Typer()
    app.command()(takes_flags(command))
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return received[0]


@pytest.mark.parametrize("kind", RECORDS)
def test_words_of_a_record_are_read_as_the_same_record(kind: type[Any]) -> None:
    record = filled(kind)
    assert len(fields(kind)) > 9
    assert read_back(kind, words_of(record)) == record


@pytest.mark.parametrize("kind", RECORDS)
def test_flags_that_were_not_given_have_the_defaults_of_the_record(kind: type[Any]) -> None:
    required = {
        each.name: other_value(kind, each.name, None)
        for each in fields(kind)
        if inspect.signature(kind).parameters[each.name].default is inspect.Parameter.empty
    }
    record = kind(**required)
    assert read_back(kind, words_of(record)) == record
    assert not [
        name
        for name in given_flags(record)
        if name[2:].replace("-", "_") not in (*required, "launch", "cluster")
    ]


def test_words_have_the_asked_order_and_repeat_lists() -> None:
    flags = RunFlags(plan=Path("p"), seeds=2, quick=True, backend=["openai:a@http://h", "local"])
    words = flag_words(flags, "backend", "seeds", "quick", "kernels")
    assert words == ["--backend", "openai:a@http://h", "--backend", "local", "--seeds", 2, "--quick"]
    assert given_flags(LaunchFlags(launcher="slurm", print_only=True)) == {
        "--launcher": "slurm",
        "--print": True,
    }
    assert flag_words(MakeFlags(out=Path("o"), rows_as="questions"), "rows_as") == ["--as", "questions"]


def test_resume_lines_are_read_by_their_verbs() -> None:
    made = MakeFlags(
        documents=Path("d"), out=Path("o.jsonl"), teacher="t", k=3, strict=True, local_only=True, yes=True
    )
    verb, sub, *words = shlex.split(made.resume_line())[1:]
    assert (verb, sub) == ("examples", "make")
    assert read_back(MakeFlags, words) == replace(made, resume=True)
    curve = CurveRequest(target=Path("runs/a"), sizes="9,36", seeds=1, worth=0.05, out=Path("c"))
    assert read_back(CurveRequest, shlex.split(curve.resume_line)[2:]) == replace(curve, resume=True)


def test_verbs_with_many_flags_take_a_record() -> None:
    """So that a flag is listed once: in the record that its verb passes on."""
    commands = [import_module(f"advisor.commands.{verb.replace('-', '_')}").command for verb in VERBS]
    for noun in GROUPS:
        commands += [
            info.callback for info in import_module(f"advisor.commands.{noun}").group.registered_commands
        ]
    long = [
        command.__module__
        for command in commands
        if len(inspect.signature(inspect.unwrap(command)).parameters) > 20
    ]
    assert len(commands) > 30
    assert not long
