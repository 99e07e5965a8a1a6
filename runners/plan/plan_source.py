"""The text of a plan file read with its lines: what its values are, where each stands, and what is wrong where.

:func:`read_source` reads YAML with the line of every key, takes the comments behind settings as their reasons, and refuses
keys that are given twice. :func:`explain_problems` turns pydantic's errors about the values into messages that name the
line and the step.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from rag.errors import BadInput
from rag.text.bounded_yaml import BoundedLoader

MOST_PROBLEMS = 5
"""Problems of a plan that are listed; the others are counted."""
SCHEMA_HINT = "see: tunewise plan --schema"
Location = tuple[str | int, ...]
"""Keys and list positions from the top of a plan to a value."""
_COMMENT = re.compile(r"[ \t]+#[ \t]*([^\r\n]*)")
_NAMED_KEY = re.compile(r"[a-z_]+(?:\[\d+\])?(?:\.[a-z_]+)*")


@dataclass(frozen=True, slots=True)
class PlanSource:
    """A mapping that was read, and the node of each of its values where it was read from text."""

    values: dict[str, Any]
    root: yaml.MappingNode | None = None

    def line(self, location: Location) -> int | None:
        """Return the line, from 1, of the last key or list item of a location that the text has; None without a text."""
        node: yaml.Node | None = self.root
        line = None
        for part in location:
            if isinstance(node, yaml.MappingNode):
                for key, value in node.value:
                    if key.value == str(part):
                        line, node = key.start_mark.line + 1, value
                        break
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line + 1
        return line

    def present(self, location: Location) -> Location:
        """Return the parts of a location that are keys or positions of the values; pydantic adds tags of unions."""
        value: Any = self.values
        parts: list[str | int] = []
        for part in location:
            if part in _keys_of(value):
                value = value[part]
                parts.append(part)
        return tuple(parts)

    def words(self, location: Location) -> str:
        """Return a location in words: steps: train hybrid: epochs, with a step's number where there are no lines."""
        value: Any = self.values
        words: list[str] = []
        for part in location:
            value = value[part] if part in _keys_of(value) else None
            if not isinstance(part, int):
                words.append(str(part))
                continue
            step = _step_words(value) if words == ["steps"] else ""
            if self.root is None or not step:
                words[-1] += f"[{part}]"
            words += [step] if step else []
        return ": ".join(words)


def _keys_of(value: Any) -> Collection[str | int]:
    """Return the keys of a mapping, or the positions of a list."""
    if isinstance(value, Mapping):
        return value.keys()
    return range(len(value)) if isinstance(value, list | tuple) else ()


def _step_words(step: Any) -> str:
    """Return a step's kind and arm, "" where it has no kind."""
    if not isinstance(step, Mapping) or not isinstance(step.get("kind"), str):
        return ""
    arm = step.get("arm")
    return f"{step['kind']} {arm}" if isinstance(arm, str) else str(step["kind"])


def read_source(text: str, path: object) -> PlanSource:
    """Read the text of a plan file.

    Args:
        text: the YAML text.
        path: the file, for messages.

    Raises:
        BadInput: it is no YAML, no mapping, or gives a key twice; the message names the line.
    """
    try:
        loader = BoundedLoader(text)
        root = loader.get_single_node()
        repeated = list(_repeated_keys(root)) if root is not None else []
        values = loader.construct_document(root) if root is not None else None
    except (yaml.YAMLError, ValueError) as error:
        raise BadInput(f"{path} is not YAML: {' '.join(str(error).split())[:200]}", "fix that line") from None
    if not isinstance(values, dict) or not isinstance(root, yaml.MappingNode):
        raise BadInput(f"{path} is not a plan (it should be a mapping)", "make one with: tunewise plan")
    if repeated:
        raise BadInput(_listed(path, repeated), "keep one of them")
    _add_reasons(values, root, text)
    return PlanSource(values, root)


def _repeated_keys(node: yaml.Node) -> Iterator[str]:
    """Yield a message for each key that a mapping holds twice: YAML would take the last one without a word."""
    if isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in first:
                    yield f"line {line}: {key.value}: given twice, first in line {first[key.value]}"
                first.setdefault(key.value, line)
            yield from _repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated_keys(item)


def _add_reasons(values: dict[str, Any], root: yaml.MappingNode, text: str) -> None:
    """Add the comments behind weights, refusal settings and settings of train steps to the reasons that the plan holds."""
    nodes = {key.value: node for key, node in root.value}
    _take_comments(values, "weight_reasons", nodes.get("weights"), text)
    if isinstance(refusal := values.get("refusal"), dict):
        _take_comments(refusal, "reasons", nodes.get("refusal"), text, leave_out=("reasons",))
    steps, written = values.get("steps"), nodes.get("steps")
    if isinstance(steps, list) and isinstance(written, yaml.SequenceNode):
        for step, node in zip(steps, written.value, strict=False):
            if isinstance(step, dict) and step.get("kind") == "train":
                _take_comments(step, "reasons", node, text, leave_out=("kind", "arm", "reasons"))


def _take_comments(
    holder: dict[str, Any], name: str, node: yaml.Node | None, text: str, leave_out: Sequence[str] = ()
) -> None:
    """Put the comment behind each value of a mapping into ``holder[name]``, unless that holds a reason already."""
    if not isinstance(node, yaml.MappingNode) or not isinstance(holder.get(name, {}), dict):
        return
    comments = {
        str(key.value): comment[1].strip()
        for key, value in node.value
        if key.value not in leave_out
        and getattr(value, "style", None) not in ("|", ">")
        and (isinstance(value, yaml.ScalarNode) or value.flow_style)
        and (comment := _COMMENT.match(text, value.end_mark.index))
        and comment[1].strip()
    }
    if comments:
        holder[name] = comments | holder.get(name, {})


def explain_problems(
    error: ValidationError, source: PlanSource, path: object, model: type[BaseModel]
) -> tuple[str, str]:
    """Return message and hint for pydantic's errors about a plan: line, place, what is wrong, and the closest known key.

    Args:
        error: the errors.
        source: what was validated.
        path: the file or object, for the message.
        model: the model of the whole plan.
    """
    problems: dict[str, str] = {}
    errors = error.errors(include_url=False)
    unknown = [(tuple(e["loc"][:-1]), str(e["loc"][-1])) for e in errors if e["type"] == "extra_forbidden"]
    for each in errors:
        location = tuple(each["loc"])
        if each["type"] == "missing":
            beside = [key for place, key in unknown if place == location[:-1]]
            # A known key that was misspelt is missing: the message about the unknown one says so.
            if difflib.get_close_matches(str(location[-1]), beside, n=1):
                continue
        location, text = _place_and_text(each, location, source, model)
        line = source.line(location)
        where = source.words(location)
        problems.setdefault(
            f"{line} {where}", f"{f'line {line}: ' if line else ''}{where + ': ' if where else ''}{text}"
        )
    return _listed(path, list(problems.values())), SCHEMA_HINT


def _place_and_text(
    error: Mapping[str, Any], location: Location, source: PlanSource, model: type[BaseModel]
) -> tuple[Location, str]:
    """Return where an error is, as parts of the document, and what is wrong there."""
    kind, context = error["type"], error.get("ctx", {})
    present = source.present(location)
    if kind == "extra_forbidden":
        known = _keys_at(model, location[:-1])
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        return present, f"unknown key, did you mean {close[0]}?" if close else "unknown key"
    if kind == "missing":
        return (*present, location[-1]), "missing"
    if kind == "union_tag_not_found":
        return (*present, "kind"), f"missing; it is one of {_alternatives(model, location)}"
    if kind == "union_tag_invalid":
        tags = [tag.strip(" '") for tag in str(context["expected_tags"]).split(",")]
        close = difflib.get_close_matches(str(context["tag"]), tags, n=1)
        return (*present, "kind"), f"{context['tag']!r} is none of {', '.join(tags)}" + (
            f", did you mean {close[0]}?" if close else ""
        )
    text = str(error["msg"]).removeprefix("Value error, ")
    if named := _NAMED_KEY.match(text):
        parts = tuple(
            int(part) if part.isdigit() else part for part in re.split(r"[.\[\]]+", named[0]) if part
        )
        for start in ((), present):
            # Checks of several keys at once name the one that is wrong at the beginning of their message.
            if source.present((*start, *parts[:1])) == (*start, *parts[:1]):
                return (*start, *parts), text[named.end() :].lstrip(": ")
    given = error.get("input")
    shown = f" (given {given!r})" if isinstance(given, str | int | float | bool) else ""
    return present, text + shown


def _listed(path: object, problems: Sequence[str]) -> str:
    """Return the message with one problem behind the file's name, or several in lines of their own."""
    if len(problems) == 1:
        return f"{path}: {problems[0]}"
    shown = [f"  {problem}" for problem in problems[:MOST_PROBLEMS]]
    shown += [f"  and {len(problems) - MOST_PROBLEMS} more"] if len(problems) > MOST_PROBLEMS else []
    return "\n".join([f"{path}: {len(problems)} problems", *shown])


def _keys_at(model: type[BaseModel], location: Location) -> list[str]:
    """Return the keys that the model at a location has; those of all models below it where several are possible."""
    models = [model]
    for part in location:
        inner = [
            m
            for each in models
            if part in each.model_fields
            for m in _models_in(each.model_fields[str(part)].annotation)
        ]
        tagged = [
            each
            for each in models
            if "kind" in each.model_fields and each.model_fields["kind"].default == part
        ]
        models = inner or tagged or models
    return sorted({field.alias or name for each in models for name, field in each.model_fields.items()})


def _alternatives(model: type[BaseModel], location: Location) -> str:
    """Return the kinds of step that may stand at a location."""
    steps = _models_in(model.model_fields[str(location[0])].annotation)
    return ", ".join(str(each.model_fields["kind"].default) for each in steps)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the models that an annotation names, within unions, tuples and mappings too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]
