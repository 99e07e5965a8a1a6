"""Whether something kept was made from what there is now, by content: :func:`compare` answers it for all that reuse.

What a result depends on is recorded by parts (examples, documents, base, ...): of a step of a run in its log, of the files
that a run read in the event of its start. Runs of 0.2.0 recorded one digest for each step, and the files in their report;
what they did not record is unknown, which refuses nothing and is said.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag.backends.consent import stored_url
from rag.errors import BadInput
from rag.files import sha256_file, sha256_text
from runners.data.examples import Example
from runners.plan.schema import Plan
from runners.report.report_file import read_report
from runners.run_folder import INDEX, RunFolder, part_digests

FILES = ("examples", "replay", "questions", "test_questions", "wordings")
"""Data of a plan that is compared by the digest of a file or folder."""
MADE_FROM = "made_from.json"
"""In a folder of answers: what those of each arm were made from."""
_PART_NAMES = {
    "shots": "examples",
    "index": "documents",
    "split": "questions",
    "base": "model",
    "step": "settings",
}
"""What parts of a step's inputs are called, where not by their own name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What is different from what something was made from; unchanged where both are ()."""

    changed: tuple[str, ...] = ()
    """Parts that are known to be different."""
    unknown: tuple[str, ...] = ()
    """Parts of which it was not recorded what they were."""

    @property
    def unchanged(self) -> bool:
        """Whether everything is known to be the same."""
        return not (self.changed or self.unknown)


def compare(recorded: Mapping[str, Any], present: Mapping[str, Any]) -> Match:
    """Compare the parts of both, by name; one that either does not have, or has as None, is unknown."""
    parts = [(name, recorded.get(name), present.get(name)) for name in dict.fromkeys([*recorded, *present])]
    return Match(
        changed=tuple(name for name, old, new in parts if None not in (old, new) and old != new),
        unknown=tuple(name for name, old, new in parts if None in (old, new)),
    )


def match_step(run: RunFolder, step: str, inputs: Mapping[str, Any]) -> Match:
    """Compare what a step of a run was made from with what it would be made from now.

    Of a step that is not finished, or is not the same and of 0.2.0, it is unknown what changed.
    """
    if run.finished(step, inputs) is not None:
        return Match()
    parts = (run.recorded(step) or {}).get("parts")
    if not parts:
        return Match(unknown=("its inputs",))
    now = part_digests(inputs)
    absent = dict.fromkeys([*parts, *now], "")  # a part that is recorded only where it is not the usual one
    changed = compare(absent | parts, absent | now).changed
    names = (name.rpartition(".")[2] for name in changed)
    return Match(changed=tuple(dict.fromkeys(_PART_NAMES.get(name, name) for name in names)))


def content_digest(path: Path | None) -> str:
    """Return the digest of a file, or of the paths and contents below a folder; "" where there is neither."""
    if path is None or not path.is_dir():
        return sha256_file(path) if path and path.is_file() else ""
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return sha256_text("".join(f"{p.relative_to(path).as_posix()}\0{sha256_file(p)}\n" for p in files))


def rows_digest(rows: Sequence[Example]) -> str:
    """Return the digest of the chats of examples and their places in the file."""
    return sha256_text(repr([(row.messages, row.line) for row in rows]))


def data_files(plan: Plan, names: Iterable[str] = FILES) -> dict[str, str]:
    """Return the digests of a plan's data that is there, by its key in the plan."""
    return {name: digest for name in names if (digest := content_digest(getattr(plan.data, name)))}


def recorded_files(run: RunFolder) -> dict[str, str]:
    """Return the digests of the data that a run read, as far as they were recorded."""
    for event in reversed(run.events()):
        if event.get("event") == "run.start" and "files" in event:
            return dict(event["files"])
    with suppress(BadInput):  # a damaged report is said where it is read
        if report := read_report(run.path):
            return {name: file["sha256"] for name, file in report.data.files.items()}
    return {}


def match_files(run: RunFolder, plan: Plan, names: Iterable[str] = FILES) -> Match:
    """Compare data files of a plan that are there with those that its run read; the parts are keys of the plan."""
    present, recorded = data_files(plan, names), recorded_files(run)
    return compare({name: recorded.get(name) for name in present}, present)


def match_shown(run: RunFolder, plan: Plan, arm: str, rows: Sequence[Example]) -> Match:
    """Compare the examples that an arm shows, as they are read from their file, with those of its trial."""
    parts = (run.recorded(f"evaluate:{arm}") or {}).get("parts") or {}
    if "shots" not in parts:
        return match_files(run, plan, ("examples",))
    return compare({"examples": parts["shots"]}, part_digests({"examples": rows_digest(rows)}))


def recorded_answers(folder: Path) -> dict[str, str]:
    """Return the digest of what the answers in a folder of a trial were made from, by arm."""
    path = folder / MADE_FROM
    return dict(json.loads(path.read_text("utf-8"))) if path.is_file() else {}


def measured_generation(run: RunFolder) -> int:
    """Return the generation of the index that a run was measured with; 0 where that is not recorded."""
    return int((run.recorded(INDEX) or {"result": {}})["result"].get("generation") or 0)


def index_updated(run: RunFolder) -> bool:
    """Return whether the index in a run's folder has a newer generation than the run was measured with."""
    from rag.index import newest_generation

    folder = run.path / INDEX
    return stored_url(folder) is None and 0 < measured_generation(run) < newest_generation(folder)


def file_lines(match: Match, plan: Plan, consequence: str) -> list[str]:
    """Return the lines that say which data files are not those that the run read, or of which that is not known."""
    shown = {name: getattr(plan.data, name) for name in (*match.changed, *match.unknown)}
    lines = [f"{shown[name]} is not what the run was made from: {consequence}" for name in match.changed]
    if names := [str(shown[name]) for name in match.unknown]:
        lines.append(f"whether {' and '.join(names)} is what the run was made from was not recorded")
    return lines
