"""Content of docs/python.md: the reference of the Python API, from the packages' docstrings and signatures."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

PACKAGES = ("tunewise", "advisor", "runners", "rag")


def calls_page() -> list[str]:
    """Return the page: every public name with signature and docstring, those of ``import tunewise`` first."""
    lines = [
        "# The Python calls",
        "",
        "`import tunewise` is all that a program needs: the verbs of the command line are made of its calls. What is an",
        "error message on the command line, a call raises as `tunewise.BadInput`, `CannotRun` or `UsageProblem` (all three",
        "are a `tunewise.Problem`), with the next step as `.hint`. Names are imported when they are first used; `dir()` and",
        "editors see them all. mypy reads the types of packages only (PEP 561) and calls the module `tunewise` untyped;",
        "where that matters, import the same names from `advisor`, `runners` and `rag`, which are typed.",
        "",
        "A folder `rag/`, a file `runners.py` or another module of yours with the name of one of tunewise's packages hides",
        "that package where it comes first on Python's search path. `import tunewise` then raises `ImportError` with both",
        "places and what to do; the command `tunewise` and `python -m tunewise` do not look in the working directory.",
        "",
        "The packages behind it can be used by themselves, and their parts that few programs need are below: `advisor`",
        "decides, `runners` executes, `rag` retrieves.",
    ]
    described: dict[int, str] = {}
    for name in PACKAGES:
        module = importlib.import_module(name)
        first, _, rest = inspect.cleandoc(module.__doc__ or "").partition(">>>")
        code, _, after = f">>>{rest}".partition("\n\n")
        example = "\n".join(code.splitlines())
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
        lines += ["", *_prose(after)] if after else []
        members = {each: getattr(module, each) for each in module.__all__}
        public = dict(sorted(members.items(), key=lambda pair: (inspect.isclass(pair[1]), pair[0])))
        if known := [f"`{each}`" for each, member in public.items() if id(member) in described]:
            lines += ["", f"As in `tunewise`, above: {', '.join(known)}."]
        for each, member in public.items():
            if id(member) not in described:
                lines += _entry(f"{name}.{each}", member)
                described[id(member)] = name
    return lines


def _entry(name: str, member: Any) -> Iterator[str]:
    yield from ("", f"### {name}", "")
    if not inspect.isclass(member):
        yield from ("```python", f"{name.rpartition('.')[2]}{_signature(member)}", "```", "")
        yield from _prose(inspect.getdoc(member) or "")
        return
    if dataclasses.is_dataclass(member):
        yield from ("```python", f"{member.__name__}{_signature(member)}", "```", "")
    yield from _prose(inspect.getdoc(member) or "")
    own_classes = [base for base in reversed(member.__mro__) if base.__module__.split(".")[0] in PACKAGES]
    members = {method: value for base in own_classes for method, value in vars(base).items()}
    for method, value in sorted(members.items()):
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if method.startswith("_") or not (inspect.isfunction(function) or isinstance(function, property)):
            continue
        summary = " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())
        signature = "" if isinstance(function, property) else _signature(function)
        yield from ("", f"- `.{method}{signature}`  ", f"  {_plain(summary)}")


def _signature(member: Any) -> str:
    """Return a signature on one line, without ``self`` and quotation marks."""
    signature = inspect.signature(member)
    parameters = [
        parameter for name, parameter in signature.parameters.items() if name not in ("self", "cls")
    ]
    text = re.sub(r"'([\w.\[\], |]+)'", r"\1", str(signature.replace(parameters=parameters)))
    return re.sub(r"<[^<>]*>", "...", text).removesuffix(" -> None")


def _prose(text: str) -> list[str]:
    """Return a docstring as lines of Markdown."""
    return docstring_markdown(text).splitlines()


def docstring_markdown(text: str) -> str:
    """Return a docstring as Markdown: roles and double quotes become code, sections such as Args become lists."""
    lines: list[str] = []
    in_section = False
    for line in _plain(text).splitlines():
        if re.fullmatch(r"(Args|Attributes|Raises|Returns|Yields):", line):
            in_section = True
            lines += [line, ""]
        elif in_section and (item := re.match(r"    ([*\w]+): (.*)", line)):
            lines.append(f"- `{item[1]}`: {item[2]}")
        elif in_section and line.startswith("    "):
            lines.append(("  " if lines[-1].startswith(("- ", "  ")) else "") + line.strip())
        else:
            in_section = in_section and not line
            lines.append(line)
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Return a docstring's text with its reStructuredText roles and quotes as Markdown code."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text)
    return text.replace("``", "`")
