"""Records of flags: the command line, the help and the work of a verb read the same fields.

The fields of such a record are annotated as the parameters of a function for Typer are. A field that holds another record
stands for the flags of that record.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_type_hints

import typer


def flag(text: str | None, *names: str, **options: Any) -> Any:
    """Return a flag with its help, for ``Annotated``; without names it is called as its field."""
    return typer.Option(*names, help=text, **options)


def takes_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Return the function of a verb with one parameter for each flag of its record ``flags``, as Typer reads them."""
    hints = get_type_hints(command)
    others = [name for name in hints if name not in ("flags", "return")]
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(name, keyword, annotation=hints[name]) for name in others]
    parameters += _parameters(hints["flags"])

    @functools.wraps(command)
    def verb(**given: Any) -> None:
        command(flags=_record(hints["flags"], given), **{name: given[name] for name in others})

    verb.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    verb.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return verb


def _parameters(kind: Any) -> Iterator[inspect.Parameter]:
    """Yield a parameter for each flag of a record, in the order of its fields."""
    hints = get_type_hints(kind, include_extras=True)
    for each in fields(kind):
        hint = hints[each.name]
        if is_dataclass(hint):
            yield from _parameters(hint)
            continue
        default = inspect.Parameter.empty if each.default is MISSING else each.default
        yield inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)


def _record(kind: Any, given: Mapping[str, Any]) -> Any:
    """Return the record of the values that Typer read."""
    hints = get_type_hints(kind)
    values = {
        each.name: _record(hints[each.name], given) if is_dataclass(hints[each.name]) else given[each.name]
        for each in fields(kind)
    }
    return kind(**values)


def given_flags(flags: Any, *names: str) -> dict[str, Any]:
    """Return the flags of a record that have another value than their default, as they are written, with the values.

    Args:
        flags: the record.
        names: its fields to look at, in the order of the result; all of them by default.
    """
    hints = get_type_hints(type(flags), include_extras=True)
    known = {each.name: each.default for each in fields(flags) if not is_dataclass(hints[each.name])}
    values = {name: getattr(flags, name) for name in names or known}
    changed = [name for name, value in values.items() if value not in (known[name], [], ())]
    return {_written(hints[name], name, values[name]): values[name] for name in changed}


def flag_words(flags: Any, *names: str) -> list[object]:
    """Return the flags of :func:`given_flags` as words of a command line; a list is repeated."""
    words: list[object] = []
    for name, value in given_flags(flags, *names).items():
        for each in value if isinstance(value, list | tuple) else [value]:
            words += [name] if isinstance(each, bool) else [name, each]
    return words


def _written(hint: Any, name: str, value: object) -> str:
    """Return a flag as it is written: by the name that it declares, else by that of its field; off by its second name."""
    declared = getattr(hint.__metadata__[0], "default", None)  # where Annotated holds the first name
    plain = f"--{name.replace('_', '-')}"
    on, _, off = declared.partition("/") if isinstance(declared, str) else (plain, "/", f"--no-{plain[2:]}")
    return off if value is False else on
