"""The text of a plan file: YAML without the keys that are at their default, and with reasons as comments.

:func:`plan_text` writes a plan so that a person can read it: keys at their default are implied, a setting's reason stands
behind it as a comment (:mod:`runners.plan.plan_source` reads it back), an answer or an evaluate step takes one line.
Reading the text gives an equal plan.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel

HEADER = (
    "# A tunewise plan: edit it, then `tunewise run` it. Keys that are not here have their default, and the comment\n"
    "# behind a setting is its recorded reason. All keys: tunewise plan --schema\n"
)
LINE_LENGTH = 110
"""Longest line of a mapping or a list that is written in one line; longer ones get a line for each entry."""
MOST_ITEM_LINES = 10
"""Items of a list that get a line each; more of them, labels for instance, fill the lines."""
WRAP_COLUMNS = 100
"""Column at which long texts are wrapped."""
_TEXT = "tag:yaml.org,2002:str"
_OTHER_BREAKS = frozenset("\x85\u2028\u2029")
_RESOLVER = yaml.resolver.Resolver()
_ALWAYS = ("schema_version", "kind")
"""Fields that are written at their default too: they say what the rest is."""


class _BlockDumper(yaml.SafeDumper):
    """Writes texts of several lines as they are (``|``) where YAML keeps them so, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _FlowDumper(_BlockDumper):
    """Writes everything in one line: texts of several lines in double quotes."""


def _block_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    lines = text.split("\n")
    literal = len(lines) > 1 and all(line.isprintable() and line and line == line.strip() for line in lines)
    # YAML reads U+0085 and its kin as line breaks and folds them outside double quotes, where they are escaped.
    style = "|" if literal else '"' if _OTHER_BREAKS.intersection(text) else None
    return dumper.represent_scalar(_TEXT, text, style=style)


def _flow_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar(_TEXT, text, style=style)


_BlockDumper.add_representer(str, _block_text)
_FlowDumper.add_representer(str, _flow_text)


def plan_text(plan: BaseModel) -> str:
    """Return the YAML text of a plan (:class:`runners.plan.schema.Plan`), without its prediction.

    What the advice says before anything else (``said_first`` of the prediction) is a comment at the top.
    """
    values = values_without_defaults(plan)
    predicted = values.pop("predicted", None) or {}
    full = plan.model_dump(mode="json", by_alias=True)
    if next(iter(full.get("models", {}).values()), None) == full["model"]:
        del values["model"]  # implied by the first of the models
    weight_comments = _move_reasons(values.get("weights", {}), full["weights"], values, "weight_reasons")
    texts = [str(finding["text"]) for finding in predicted.get("said_first", ())]
    parts = [
        HEADER,
        *(f"# {line}\n" for text in texts for line in textwrap.wrap(f"First: {text}", LINE_LENGTH)),
    ]
    for key, value in values.items():
        if key == "steps":
            parts.append("steps:\n" if value else "steps: []\n")
            parts += [_step(step, whole) for step, whole in zip(value, full["steps"], strict=True)]
        elif key == "weights":
            parts += ["weights:\n", _settings(value, weight_comments, "  ")]
        elif key == "refusal":
            comments = _move_reasons(value, full[key], value, "reasons")
            parts += ["refusal:\n", _settings(value, comments, "  ")]
        elif key == "answers":
            parts.append(
                "answers:\n"
                + "".join(f"  {_key(name)}: {_one_line(answer)}\n" for name, answer in value.items())
            )
        else:
            parts.append(_entry(key, value))
    return "".join(parts)


def values_without_defaults(model: BaseModel) -> dict[str, Any]:
    """Return a model's values as JSON values, without the fields that are at their default."""
    values: dict[str, Any] = {}
    dumped = model.model_dump(mode="json", by_alias=True)
    for name, field in type(model).model_fields.items():
        key, value = field.alias or name, getattr(model, name)
        at_default = not field.is_required() and value == field.get_default(call_default_factory=True)
        if key in dumped and (name in _ALWAYS or not at_default):
            values[key] = _without_defaults(value, dumped[key])
    return values


def _without_defaults(value: Any, dumped: Any) -> Any:
    """Return a field's value: models in it, alone or in a list or mapping, without what is at its default."""
    if isinstance(value, BaseModel):
        return values_without_defaults(value)
    if isinstance(value, tuple) and any(isinstance(item, BaseModel) for item in value):
        return [_without_defaults(item, plain) for item, plain in zip(value, dumped, strict=True)]
    if isinstance(value, Mapping) and any(isinstance(item, BaseModel) for item in value.values()):
        return {key: _without_defaults(item, dumped[key]) for key, item in value.items()}
    return dumped


def _move_reasons(
    settings: dict[str, Any], full: Mapping[str, Any], holder: dict[str, Any], name: str
) -> dict[str, str]:
    """Take the reasons that can be comments out of ``holder[name]``, and return them by setting.

    A setting with a reason is written at its default too. Reasons without such a setting, and those of several lines, stay.

    Args:
        settings: the settings that are written; those with a reason are added.
        full: all settings with their values.
        holder: the mapping that holds the reasons.
        name: their key in it.
    """
    reasons = holder.get(name, {})
    comments = {
        key: why
        for key, why in reasons.items()
        if key in full and key not in ("kind", "arm", name) and why.isprintable() and why.strip() == why != ""
    }
    settings |= {key: full[key] for key in comments if key not in settings}
    if rest := {key: why for key, why in reasons.items() if key not in comments}:
        holder[name] = rest
    else:
        holder.pop(name, None)
    return comments


def _step(step: dict[str, Any], full: Mapping[str, Any]) -> str:
    """Return a step: one line where it fits, a line for each setting of a training."""
    if step["kind"] != "train":
        line = f"- {_one_line(step)}\n"
        return line if len(line) <= LINE_LENGTH else _as_item(_settings(step, {}, "  "))
    comments = _move_reasons(step, full, step, "reasons")
    in_order = {key: step[key] for key in full if key in step}
    return _as_item(_settings(in_order, comments, "  "))


def _as_item(block: str) -> str:
    """Return an indented block as an item of a list."""
    return f"- {block[2:]}"


def _settings(values: Mapping[str, Any], comments: Mapping[str, str], indent: str) -> str:
    """Return a line for each value, with its comment behind it."""
    return "".join(
        f"{indent}{_key(key)}: {_one_line(value)}"
        + (f"  # {comments[key]}" if key in comments else "")
        + "\n"
        for key, value in values.items()
    )


def _entry(key: str, value: Any, indent: str = "") -> str:
    """Return a key with its value: in one line where it fits, else in a block."""
    if isinstance(value, dict | list):
        line = f"{indent}{_key(key)}: {_one_line(value)}\n"
        if (len(line) <= LINE_LENGTH and key not in ("data", "prompts", "checks")) or not value:
            return line
        if isinstance(value, dict):
            return f"{indent}{_key(key)}:\n" + "".join(
                _entry(name, item, indent + "  ") for name, item in value.items()
            )
        if len(value) > MOST_ITEM_LINES and not any(isinstance(item, dict | list) for item in value):
            return textwrap.indent(f"{_key(key)}: {_filled(value, len(indent))}", indent)
        return f"{indent}{_key(key)}:\n" + "".join(_item(item, indent) for item in value)
    return textwrap.indent(f"{_key(key)}: {_block_value(value, len(indent))}", indent)


def _item(value: Any, indent: str) -> str:
    """Return an item of a list in a block: a mapping with a line for each key, anything else as one value."""
    if isinstance(value, dict) and value:
        block = "".join(_entry(name, item, indent + "  ") for name, item in value.items())
        return f"{indent}- {block[len(indent) + 2 :]}"
    if isinstance(value, dict | list):
        return f"{indent}- {_one_line(value)}\n"
    return textwrap.indent(f"- {_block_value(value, len(indent))}", indent)


def _block_value(value: Any, indent: int) -> str:
    """Return a scalar as the value of a key in a block, wrapped at the usual column; it ends with a line break."""
    text = yaml.dump({"k": value}, Dumper=_BlockDumper, allow_unicode=True, width=WRAP_COLUMNS - indent)
    return str(text).removeprefix("k: ")


def _filled(values: list[Any], indent: int) -> str:
    """Return a list of scalars in filled lines, as the value of a key in a block; it ends with a line break."""
    lines = ["["]
    for item in values:
        text = f"{_one_line(item)}, "
        if len(lines[-1]) + len(text) > WRAP_COLUMNS - indent:
            lines.append("  ")
        lines[-1] += text
    return "\n".join(line.rstrip() for line in lines).removesuffix(",") + "]\n"


def _one_line(value: Any) -> str:
    """Return a value in one line."""
    if isinstance(value, dict | list):
        return _dump(value)
    return _dump([value])[1:-1]


def _key(key: str) -> str:
    """Return a mapping's key; one that YAML would read as anything but this text is in double quotes."""
    plain = re.fullmatch(r"[A-Za-z_][\w.-]*", key, re.ASCII) and _RESOLVER.resolve(
        yaml.ScalarNode, key, (True, False)
    )
    style = None if plain == _TEXT else '"'
    return key if style is None else _dump(key, style)


def _dump(value: Any, style: str | None = None) -> str:
    """Return a value as YAML in one line."""
    return str(
        yaml.dump(
            value,
            Dumper=_FlowDumper,
            default_flow_style=True,
            default_style=style,
            allow_unicode=True,
            width=math.inf,
            sort_keys=False,
        )
    ).rstrip("\n")
