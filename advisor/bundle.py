"""One zip for a bug report: what this machine is, and of a run its shape and numbers; nothing anybody wrote is in it."""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advisor.facts import models
from advisor.questions import BY_ID
from advisor.redact import Redactor
from rag.durable import write_bytes
from rag.errors import BadInput, UsageProblem
from runners.plan import EMBEDDER, Plan
from runners.rundir import EVENTS, open_run, read_lines, read_run_plan

NAMED = ("event", "step", "method", "arm", "device", "dtype")
"""Keys of events whose texts are kept where they are one plain word."""
TOLD = ("gpu", "python", "system", "processor")
"""Keys of events whose texts are kept; of every other key only numbers are."""
INSIDE = ("result", "trained", "packages", "measured")
"""Keys of events whose mappings are looked into."""
_WORD = re.compile(r"[a-z0-9][a-z0-9._:+-]{0,40}")
DATE = (2000, 1, 1, 0, 0, 0)
"""The date of the files inside: equal content makes an equal zip."""
NOTE = """What is in here, for a bug report:

doctor.json   what `tunewise doctor --json` prints: machine, packages, settings and where they come from
{run}
Left out: documents, examples, questions, prompts, goals, answers, names of files. Replaced where they stood in the
rest: secrets, addresses, paths, the names of user and machine ({count} places). Look it through before you send it.
"""
RUN = """run.json      how the run's plan is built, without anything that was written into it
events.jsonl  what happened, step by step, as numbers
"""


def write(out: Path, run: Path | None, examined: Mapping[str, Any]) -> int:
    """Write the zip, atomically; return how many private things were replaced in it.

    ``run`` is the run that the report is about, ``examined`` what :func:`advisor.examination.examine` returned.
    BadInput when the run is none, or ``out`` is not to become a file; UsageProblem when another file stands there.
    """
    if out.is_dir():
        raise BadInput(f"{out} is a folder", "name the file: tunewise doctor --bundle report.zip")
    if out.exists() and not _is_bundle(out):
        raise UsageProblem(
            f"{out} exists and is no bundle of doctor's", "name another: tunewise doctor --bundle report.zip"
        )
    redactor = Redactor()
    doctor = dict(examined)
    doctor["model"] = _model(str(doctor["model"]))
    # How free space was found names a folder of the user's.
    doctor["machine"] = {**doctor["machine"], "disk_gib": {"value": doctor["machine"]["disk_gib"]["value"]}}
    own = doctor["configuration"]
    doctor["configuration"] = {**own, "values": [{**row, "value": _set(row)} for row in own["values"]]}
    files = {"doctor.json": _json(redactor.value(doctor))}
    if run is not None:
        open_run(run)
        files["run.json"] = _json(redactor.value(_run(run)))
        events = [redactor.value(_event(event)) for event in read_lines(run / EVENTS)]
        files["events.jsonl"] = "".join(json.dumps(event) + "\n" for event in events)
    files["README.txt"] = NOTE.format(run=RUN if run else "", count=redactor.count)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, DATE), text.encode("utf-8"), zipfile.ZIP_DEFLATED)
    write_bytes(out, packed.getvalue())
    return redactor.count


def _is_bundle(path: Path) -> bool:
    """Whether a file is a zip that :func:`write` made: one to be replaced by a newer one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read("README.txt").startswith(NOTE.splitlines()[0].encode())
    except (OSError, ValueError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return False


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _run(run: Path) -> dict[str, Any]:
    """Return the parts of a run by size and the shape of its plan, or why the plan cannot be read."""
    parts = {path.name: _size(path) for path in sorted(run.iterdir()) if path.name in _PARTS}
    try:
        return {"parts": parts, "plan": shape(read_run_plan(run))}
    except BadInput as problem:
        return {"parts": parts, "problem": type(problem).__name__}


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    return sum(each.lstat().st_size for each in (path, *path.rglob("*")) if not each.is_dir())


_PARTS = (
    "plan.yaml",
    "events.jsonl",
    "index",
    "adapters",
    "model",
    "trial",
    "report.json",
    "report.html",
    "manifest.json",
)


def shape(plan: Plan) -> dict[str, Any]:
    """Return how a plan is built: steps, numbers, choices; what somebody wrote or named is left out."""
    told = plan.model_dump(mode="json", by_alias=True)
    kept = ("schema", "choice", "steps", "weights", "gate", "seed", "max_new_tokens")
    data = {
        key: value if isinstance(value, int | float) or key == "near_repeats" else value is not None
        for key, value in told["data"].items()
    }
    answers = {
        key: {"value": answer["value"], "source": answer["source"]}
        for key, answer in told["answers"].items()
        if not _is_words(key)
    }
    steps = [
        {key: _plain(value) for key, value in step.items() if key != "reasons"} for step in told["steps"]
    ]
    own = {
        "steps": steps, "data": data, "answers": answers, "checks": [check["kind"] for check in told["checks"]],
        "model": _model(told["model"]["name"]), "embedder": _model(told["embedder"]["name"]),
    }  # fmt: skip
    return {key: told[key] for key in kept if key not in own} | own


def _is_words(key: str) -> bool:
    """Whether an answer is a person's words or places, rather than a number or a choice."""
    return key not in BY_ID or BY_ID[key].kind in ("text", "path") or key == "model"


def _set(row: Mapping[str, Any]) -> Any:
    """Return a setting's value; of an answer in words, that it is there."""
    name, dot, key = str(row["key"]).partition(".")
    return "<its own>" if name == "answers" and dot and _is_words(key) else row["value"]


def _plain(value: Any) -> Any:
    """Return a step's number or choice; of anything a person could have written, that it is there."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping) or (isinstance(value, str) and not _WORD.fullmatch(value)):
        return "<its own>"
    return value


def _model(name: str) -> str:
    """Return a model's name where everybody knows it."""
    if name.startswith("openai:"):
        return "<an endpoint>"
    return name if models.find(name) or name == EMBEDDER else "<its own>"


def _event(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event's numbers, and the texts that are tunewise's own; of lists how long they are."""
    kept: dict[str, Any] = {}
    for key, value in event.items():
        if not _WORD.fullmatch(key.replace("_", "-")):
            continue
        if isinstance(value, int | float | None):
            kept[key] = value
        elif isinstance(value, str) and key in NAMED:
            kept[key] = _plain(value)
        elif isinstance(value, str) and key in TOLD:
            kept[key] = value
        elif isinstance(value, list):
            kept[key] = f"{len(value)} of them"
        elif isinstance(value, Mapping) and key in INSIDE:
            kept[key] = value if key == "packages" else _event(value)
    return kept
