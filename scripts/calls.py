"""The reference of the Python calls, from the packages' own docstrings and signatures."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

PACKAGES = ("advisor", "runners", "rag")


def calls_page() -> list[str]:
    """Every public name of the three packages: signature, docstring, and the methods of classes."""
    lines = [
        "# The Python calls",
        "",
        "The verbs are made of these calls. What is an error message on the command line, a call raises as `BadInput`,",
        "`CannotRun` or `UsageProblem` of `rag.errors`, with the hint as `.hint`. Names are imported when first used.",
    ]
    for name in PACKAGES:
        module = importlib.import_module(name)
        first, _, rest = inspect.cleandoc(module.__doc__ or "").partition(">>>")
        example = "\n".join(f">>>{rest}".splitlines())
        lines += [
            "",
            f"## {name}",
            "",
            *_prose(first.strip()),
            "",
            "```python",
            *example.rstrip().splitlines(),
            "```",
        ]
        for public in sorted(module.__all__):
            lines += _entry(f"{name}.{public}", getattr(module, public))
    return lines


def _entry(name: str, what: Any) -> Iterator[str]:
    yield from ("", f"### {name}", "")
    if not inspect.isclass(what):
        yield from ("```python", f"{name.rpartition('.')[2]}{_signature(what)}", "```", "")
        yield from _prose(inspect.getdoc(what) or "")
        return
    if dataclasses.is_dataclass(what):
        yield from ("```python", f"{what.__name__}{_signature(what)}", "```", "")
    yield from _prose(inspect.getdoc(what) or "")
    own = [base for base in reversed(what.__mro__) if base.__module__.split(".")[0] in PACKAGES]
    members = {method: value for base in own for method, value in vars(base).items()}
    for method, value in sorted(members.items()):
        inner = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if method.startswith("_") or not (inspect.isfunction(inner) or isinstance(inner, property)):
            continue
        said = " ".join((inspect.getdoc(inner) or "").split("\n\n")[0].split())
        form = "" if isinstance(inner, property) else _signature(inner)
        yield from ("", f"- `.{method}{form}`  ", f"  {_plain(said)}")


def _signature(what: Any) -> str:
    """A signature on one line, without ``self`` and quotation marks."""
    found = inspect.signature(what)
    kept = [p for name, p in found.parameters.items() if name not in ("self", "cls")]
    text = re.sub(r"'([\w.\[\], |]+)'", r"\1", str(found.replace(parameters=kept)))
    return re.sub(r"<[^<>]*>", "...", text).removesuffix(" -> None")


def _prose(text: str) -> list[str]:
    return docstring_markdown(text).splitlines()


def docstring_markdown(text: str) -> str:
    """Return a docstring as Markdown: roles and double quotes become code, sections such as Args become lists."""
    lines: list[str] = []
    in_section = False
    for line in _plain(text).splitlines():
        if re.fullmatch(r"(Args|Attributes|Raises|Returns|Yields):", line):
            in_section = True
            lines += [line, ""]
        elif in_section and (item := re.match(r"    (\w+): (.*)", line)):
            lines.append(f"- `{item[1]}`: {item[2]}")
        elif in_section and line.startswith("    "):
            lines.append(("  " if lines[-1].startswith(("- ", "  ")) else "") + line.strip())
        else:
            in_section = in_section and not line
            lines.append(line)
    return "\n".join(lines)


def _plain(text: str) -> str:
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    return text.replace("``", "`")
