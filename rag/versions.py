"""Schema numbers of every file format: a number this version does not know is refused, and what to do is named.

A format's number goes up when older versions could not read what is written. Until one does, every format has number 1;
the files kept in ``tests/versions`` show that what earlier commits wrote still opens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rag.errors import BadInput

SCHEMA = 1
"""The number that is written into every file, and the highest that is read."""
UPDATE = "update tunewise: pip install --upgrade tunewise"
_HIGHEST = 1000
"""A higher number is damage, not a version."""
_BUILD_INDEX = "build the index again: tunewise index build INDEX --documents DOCUMENTS"
_REMAKE = {
    "plan": "make it again: tunewise plan",
    "report": "write it again: tunewise run RUN --resume",
    "scores": "score it again: tunewise run RUN --resume",
    "run": "run it again: tunewise run PLAN",
    "tunewise-index-generation": _BUILD_INDEX,
    "text store": _BUILD_INDEX,
    "adapter": "train it again",
    "refusal": "fit it again: tunewise run RUN --resume",
    "tunewise-bundle": "make it again: tunewise export RUN --to bundle",
    "model": "obtain it again: tunewise models pull NAME",
    "calibration": "measure again: tunewise doctor --calibrate",
}
"""How a damaged file of each format, or kind of manifest, is made again."""


def check_number(number: object, name: str, file: object) -> None:
    """Raise BadInput when a schema number is not a number, or newer than this version reads.

    ``name`` is the format, or the kind of a manifest; ``file`` is what the message names.
    """
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= _HIGHEST:
        remake = _REMAKE.get(name, "make it again with this version")
        raise BadInput(f"{file} is damaged: its schema is {number!r}, not a number", remake)
    if number > SCHEMA:
        raise BadInput(
            f"{file} was written by a newer tunewise: {name} of schema {number}, this version reads up to {SCHEMA}",
            UPDATE,
        )


def check_schema(loaded: Mapping[str, Any], name: str, file: object) -> dict[str, Any]:
    """Return a loaded mapping after checking its schema number; one without a number was written by a person."""
    body = dict(loaded)
    check_number(body.get("schema", SCHEMA), name, file)
    return body
