"""The work behind ``tunewise models verify``: read models on this machine again and compare every file."""

from __future__ import annotations

import time
from typing import Any

from advisor.output import emit_result, note
from runners.models import resolve


def verify_models(name: str, as_json: bool) -> None:
    """Verify one model, or every known model in the cache, and print what was read.

    Args:
        name: a known name, a folder or a hub id; "" for every known model in the cache.
        as_json: whether to print JSON.

    Raises:
        BadInput: a model is incomplete or damaged.
        CannotRun: the model is not on this machine.
    """
    names = [name] if name else [row["name"] for row in resolve.list_models() if row["state"] == "cached"]
    rows: list[dict[str, Any]] = []
    for each in names:
        started = time.perf_counter()
        model = resolve.verify_model(each)
        sizes = [path.stat().st_size for path in model.folder.rglob("*") if path.is_file()]
        rows.append(
            {
                "name": model.name,
                "fingerprint": model.fingerprint,
                "source": model.source,
                "folder": str(model.folder),
                "files": len(sizes),
                "bytes": sum(sizes),
                "seconds": round(time.perf_counter() - started, 2),
            }
        )
    if as_json:
        emit_result({"schema": 1, "models": rows})
        return
    if not rows:
        note("no known model is in the cache; get one with: tunewise models pull NAME")
    for row in rows:
        size = f"{row['files']} files, {row['bytes'] / 1e6:,.0f} MB"
        print(f"{row['name']}  {row['fingerprint'][:12]}  {size} read in {row['seconds']:.1f} s, undamaged")
