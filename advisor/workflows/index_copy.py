"""The work behind ``tunewise index copy``: copy an index to a URL, show progress, and print how the copy was verified."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from advisor.display.progress import watch_progress
from advisor.output import emit_result
from advisor.workflows.index_build import index_path
from rag.backends.copying import copy_index
from rag.errors import UsageProblem
from rag.text.words import count_noun

_TITLES = {"copy.read": "reading", "copy.written": "writing", "copy.verified": "verifying"}


def copy_to_url(index: str, to: str, overwrite: bool, as_json: bool) -> None:
    """Copy an index and print what was compared; a copy that differs is an error that says what differs.

    Args:
        index: folder of an index or of a run, or URL.
        to: URL of the copy.
        overwrite: replace an index that is there.
        as_json: print the report as JSON.

    Raises:
        UsageProblem: the target is no URL.
    """
    if "://" not in to:
        raise UsageProblem(
            f"--to {to} is no URL",
            "a folder is built from the documents: tunewise index build INDEX --documents PATH",
        )
    source, target = index_path(index), str(index_path(to))
    with watch_progress(as_json) as watcher:
        stage = _Stage(watcher)
        try:
            report = copy_index(source, target, stage, overwrite=overwrite)
        except KeyboardInterrupt:
            print(f"\ninterrupted while {stage.title}: {stage.consequence}", file=sys.stderr)
            raise
    if as_json:
        emit_result(report.to_json())
        return
    print(
        f"copied {count_noun(report.documents, 'document')}, {count_noun(report.chunks, 'passage')} of "
        f"{report.dimension} dimensions, generation {report.generation}, {report.seconds:.1f} s: {report.target}"
    )
    vectors = "equal" if report.vectors == "equal" else "equal as far as halfvec rounds them"
    print(
        f"compared with {report.source}: all documents and passages equal, all vectors {vectors}; the answers to "
        f"{count_noun(report.queries, 'question')} by words are the same, by vector {_share(report.recall)}"
    )


def _share(recall: float) -> str:
    return "too" if recall == 1 else f"{recall:.1%} of the exact ones"


class _Stage:
    """Passes events on to the display, and starts a step of it when a stage begins."""

    def __init__(self, watcher: Callable[[dict[str, Any]], None]) -> None:
        self.title = "opening"
        self._watcher = watcher
        self._number = 0

    @property
    def consequence(self) -> str:
        """What an interruption leaves."""
        if self.title == _TITLES["copy.verified"]:
            return "the copy is there, but was not verified: copy again with --overwrite"
        return "the target is as it was before"

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one event."""
        title = _TITLES[event["event"]]
        if title != self.title:
            self.title, self._number = title, self._number + 1
            self._watcher(
                {"event": "step.start", "number": self._number, "total": len(_TITLES), "step": title}
            )
        self._watcher(event)
