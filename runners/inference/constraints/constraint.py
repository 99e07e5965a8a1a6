"""What an answer may be while it is generated: a label, JSON of a schema, or text of a pattern.

:class:`OutputConstraint` only describes it, and imports nothing heavy; :mod:`runners.inference.constraints.sampler` holds a
local model to it, token by token. A constraint concerns the answer alone, never reasoning before it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

ConstraintKind = Literal["labels", "json_schema", "regex"]


@dataclass(frozen=True, slots=True)
class OutputConstraint:
    """The answers that may be generated; hashable, so that what is compiled of it can be kept."""

    kind: ConstraintKind
    value: tuple[str, ...] | str
    """The labels; the JSON text of a JSON Schema; or a pattern of the whole answer in the syntax of Rust's regex crate,
    without anchors, look-around and back references."""
    also: tuple[str, ...] = ()
    """Whole answers that are allowed beside those: refusals."""
    tail: str = ""
    """Of a pattern whose end is fixed: the text that is begun when the tokens of an answer run out."""

    @classmethod
    def of_labels(cls, labels: Sequence[str], also: Sequence[str] = ()) -> OutputConstraint:
        """Return the constraint to one of these labels."""
        return cls("labels", tuple(labels), tuple(also))

    @classmethod
    def of_schema(cls, schema: Mapping[str, Any], also: Sequence[str] = ()) -> OutputConstraint:
        """Return the constraint to JSON of a schema; the order of its properties is kept."""
        return cls("json_schema", json.dumps(schema, ensure_ascii=False), tuple(also))

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema; ValueError for a constraint of another kind."""
        if self.kind != "json_schema" or not isinstance(self.value, str):
            raise ValueError(f"a constraint of kind {self.kind} has no schema")
        schema: dict[str, Any] = json.loads(self.value)
        return schema
