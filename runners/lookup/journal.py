"""The journal of look-ups: every reply of a model with the calls that it asks for, and every result.

A question that is asked again is looked up from its beginning, but a request that the journal holds is not sent again: its
reply is taken from there. Requests are the same where the model, the tools and all turns are, results included, so that
changed documents lead to new requests from the first result on that differs.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rag.files import append_line
from runners.inference.types import Completion, ToolCall
from runners.run_folder import read_journal

LOOKUPS = "lookups.jsonl"
"""In the trial's folder."""


class LookupJournal:
    """The journal of one trial, read when it is opened; safe to share between threads."""

    def __init__(self, file: Path | None, earlier: Sequence[Path] = ()) -> None:
        """Read what is known.

        Args:
            file: where new rows go; None keeps none.
            earlier: other journals whose replies may be taken, of a run that is measured again.
        """
        self.file = file
        self._lock = threading.Lock()
        self._replies: dict[str, Mapping[str, Any]] = {}
        self._seconds: dict[str, float] = {}
        self._with_tools = set[str]()
        for path in (*earlier, *([file] if file else [])):
            for row in read_journal(path):
                self._remember(row)

    def reply(self, request: str) -> Completion | None:
        """Return the recorded reply to a request, by its digest; None where there is none."""
        row = self._replies.get(request)
        if row is None:
            return None
        return Completion(
            row["text"],
            row["prompt_tokens"],
            row["completion_tokens"],
            row["seconds"],
            row["finish"],
            row.get("tokens_estimated", False),
            row.get("reasoning_tokens", 0),
            row.get("reasoning_cut", False),
            calls=tuple(ToolCall(**call) for call in row["calls"]),
        )

    def add_reply(self, request: str, about: Mapping[str, Any], reply: Completion) -> None:
        """Record a reply, on the disk before it is used."""
        row = {
            "kind": "reply",
            "request": request,
            **about,
            "text": reply.text,
            "calls": [{"id": c.id, "name": c.name, "arguments": c.arguments} for c in reply.calls],
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "tokens_estimated": reply.estimated,
            "reasoning_tokens": reply.reasoning_tokens,
            "reasoning_cut": reply.reasoning_cut,
            "seconds": round(reply.seconds, 4),
            "finish": reply.finish,
        }
        self._add(row)

    def add_results(self, request: str, seconds: float, results: Sequence[Mapping[str, Any]]) -> float:
        """Record the results of a reply's calls, once; return the seconds that they took when they were made first."""
        if request not in self._seconds:
            row = {
                "kind": "results",
                "request": request,
                "seconds": round(seconds, 4),
                "results": list(results),
            }
            self._add(row)
        return self._seconds.get(request, seconds)

    def takes_tools(self, model: str) -> bool:
        """Return whether a model was asked before, and takes tools."""
        return model in self._with_tools

    def add_tools(self, model: str) -> None:
        """Record that a model takes tools."""
        self._add({"kind": "tools", "model": model})

    def _add(self, row: Mapping[str, Any]) -> None:
        with self._lock:
            if self.file is not None:
                append_line(self.file, row)
            self._remember(row)

    def _remember(self, row: Mapping[str, Any]) -> None:
        kind = row.get("kind")
        if kind == "reply":
            self._replies[row["request"]] = row
        elif kind == "results":
            self._seconds[row["request"]] = float(row["seconds"])
        elif kind == "tools":
            self._with_tools.add(row["model"])
