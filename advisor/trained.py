"""Which adapters were trained on documents that have been removed: an index forgets, weights do not."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml


def still_knowing(index: Path, removed: Collection[str]) -> list[str]:
    """Return one line per adapter beside an index that may know removed documents, or may not be known to.

    Adapters lie in the run folder that holds the index. Their examples name the document behind a row as
    ``meta.doc_id``; an arm of retrieval-aware rows has also read passages of any document of the index.
    """
    run = index.resolve().parent
    arms = sorted(p.name for p in (run / "adapters").glob("*") if p.is_dir()) if removed else []
    if not arms:
        return []
    plan = _plan(run / "plan.yaml")
    steps = [s for s in plan.get("steps") or [] if isinstance(s, dict) and s.get("kind") == "train"]
    reads = {str(step.get("arm")) for step in steps if step.get("rows") == "retrieval"}
    rows, every = _documents(run, plan)
    return [_line(arm, arm.rpartition("-s")[0] in reads, rows, every, removed) for arm in arms]


def _line(arm: str, reads: bool, rows: Collection[str], every: bool, removed: Collection[str]) -> str:
    named = sorted(set(rows) & set(removed))
    if named:
        shown = ", ".join(named[:3]) + (", ..." if len(named) > 3 else "")
        return f"the adapter {arm} was trained on removed documents ({shown}): train it again without them"
    if reads:
        return f"the adapter {arm} was trained with passages of this index, maybe of removed documents: train it again"
    if not every:
        few = "not for every row" if rows else "for no row"
        return (
            f"whether the adapter {arm} was trained on removed documents cannot be known: {few} is one named"
        )
    return f"the adapter {arm} was trained on rows of other documents only"


def _plan(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _documents(run: Path, plan: dict[str, Any]) -> tuple[set[str], bool]:
    """Return the documents that the examples name, and whether every row names one."""
    data = plan.get("data")
    name = data.get("examples") if isinstance(data, dict) else None
    try:
        rows = list(_rows(run / str(name))) if name else []
    except (OSError, ValueError):
        return set(), False
    found = [row["meta"].get("doc_id") if isinstance(row.get("meta"), dict) else None for row in rows]
    named = {doc for doc in found if isinstance(doc, str)}
    return named, bool(rows) and all(isinstance(doc, str) for doc in found)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and isinstance(row := json.loads(line), dict):
            yield row
