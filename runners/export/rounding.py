"""In which number type weights are written: the base's own, unless rounding to it changes an answer. Light."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rag.errors import CannotRun
from runners.export.replay import Compared

AUTO = "auto"


def settle(
    wished: str, own: str, then: Sequence[str], write: Callable[[str], Compared]
) -> tuple[str, Compared, list[str]]:
    """Write in the type wished for, or in the first that keeps the answers; return it, what was compared, and notes.

    With "auto" the base's ``own`` type comes first, then those of ``then``. A type that was asked for by name is kept
    whatever it changes, which is noted. Raises CannotRun when not even the last type gives what was measured.
    """
    notes: list[str] = []
    types = list(dict.fromkeys([own, *then])) if wished == AUTO else [wished]
    for dtype in types:
        found = write(dtype)
        if found.holds(dtype):
            return dtype, found, [*notes, *([f"The weights are in {dtype}."] if notes else [])]
        notes.append(_changed(dtype, found))
    if wished == AUTO:
        raise CannotRun(
            f"what was written is not what was measured: {notes[-1]}", "hand on the adapter: --to peft"
        )
    return dtype, found, [*notes, "--dtype float32 loses nothing."]


def _changed(dtype: str, found: Compared) -> str:
    return (
        f"In {dtype}, {found.prompts - found.same} of {found.prompts} prompts get other tokens than from base and weights "
        f"apart, and the logits differ by {found.relative:.2g} standard deviations."
    )
