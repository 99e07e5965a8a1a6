"""One zip for a bug report: what this machine is, and of a run its shape and numbers; nothing anybody wrote is in it.

Take out of a text what is nobody else's business: secrets, addresses, paths, the names of user and machine.
"""

from __future__ import annotations

import getpass
import io
import json
import os
import platform
import re
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advisor.catalog import models
from advisor.questionnaire.questions import QUESTION_BY_ID
from rag.errors import BadInput, UsageProblem
from rag.files import write_bytes
from runners.data.personal_data import PERSONAL_DATA_KINDS
from runners.plan.schema import EMBEDDER, Plan
from runners.run_folder import EVENTS, open_run_folder, read_journal, read_run_plan

PRIVATE_NAMES = re.compile(
    r"key|token|secret|pass|pwd|credential|auth|cookie|session|proxy|index|dsn", re.IGNORECASE
)
"""Names of variables whose values are not to be shown."""
SYSTEM_FOLDERS = ("/proc", "/sys", "/dev")
"""Places that every machine has; their names say how something was found."""
_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s\"'<>)\]]+", re.IGNORECASE)
_PATH = re.compile(
    r"(?<![\w.~/])~?/(?:[^\s/\"'<>:;,()\[\]{}|]+/?)+|\b[A-Za-z]:[\\/][^\s\"'<>|]*|\\\\[^\s\"'<>|]+"
)
_SAID = re.compile(
    r"(?i)\b(authorization|bearer|basic|(?:api|access|secret|private)[_-]?key|tokens?|secrets?|passwords?|passwd|pwd)\b"
    r"(\"?\s*[:=]\s*\"?(?:bearer\s+|basic\s+)?|\s+)(?=\S*[\d\W])([^\s\"',;}]{6,})"
)
_NAMES = ("USER", "LOGNAME", "USERNAME", "SUDO_USER")
_NAME = re.compile(r"[A-Za-z][\w.-]{0,40}")
_SHORTEST = 6


class Redactor:
    """Replaces what is private by what kind of thing it was; knows this machine's environment."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """Gather what must not be told: private variables' values, home and other own folders, user and machine."""
        environ = os.environ if environ is None else environ
        secrets = [
            value for name, value in environ.items() if PRIVATE_NAMES.search(name) and len(value) >= _SHORTEST
        ]
        homes = [environ.get(name, "") for name in ("HOME", "USERPROFILE")]
        places = {str(Path.home()), str(Path.cwd()), tempfile.gettempdir(), *homes} - {"", "/"}
        self._literal = {re.escape(value): "<secret>" for value in secrets}
        # With all that follows up to a mark: names of folders hold spaces.
        self._literal |= {rf"{re.escape(place)}(?:[\\/][^\n\"'<>:;,()]*)?": "<path>" for place in places}
        names = {environ.get(name, "") for name in _NAMES} | {Path.home().name, _user()}
        self._words = {name: "<user>" for name in names if len(name) > 1} | {
            node: "<machine>" for node in (platform.node(), platform.node().split(".")[0]) if len(node) > 1
        }
        self.count = 0
        """How much was taken out so far."""

    def text(self, said: str) -> str:
        """Return a text without what is private, the longest first."""
        if "\n" not in said and Path(said).is_absolute() and not said.startswith(SYSTEM_FOLDERS):
            said, self.count = "<path>", self.count + 1
        for shape in sorted(self._literal, key=len, reverse=True):
            said = self._counted(re.compile(shape, re.IGNORECASE), self._literal[shape], said)
        for kind in PERSONAL_DATA_KINDS:
            if kind.secret or kind.name in ("e-mail address", "IP address", "payment card"):
                said = self._counted(kind.shape, f"<{kind.name}>", said)
        said = self._counted(_SAID, r"\1\2<secret>", said)
        said = self._counted(_ADDRESS, "<address>", said)
        said = _PATH.sub(self._path, said)
        for word in sorted(self._words, key=len, reverse=True):
            whole = re.compile(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", re.IGNORECASE)
            said = self._counted(whole, self._words[word], said)
        return said

    def value(self, given: Any) -> Any:
        """Return JSON values with every text in them redacted, and every key that is no plain name."""
        if isinstance(given, str):
            return self.text(given)
        if isinstance(given, Mapping):
            return {self._key(str(key)): self._of(str(key), inner) for key, inner in given.items()}
        if isinstance(given, list | tuple):
            return [self.value(inner) for inner in given]
        return given

    def _key(self, key: str) -> str:
        return key if _NAME.fullmatch(key) else self.text(key)

    def _of(self, key: str, inner: Any) -> Any:
        if isinstance(inner, str) and inner and key.isupper() and PRIVATE_NAMES.search(key):
            self.count += 1
            return "<secret>"
        return self.value(inner)

    def _counted(self, shape: re.Pattern[str], stand_in: str, said: str) -> str:
        found, number = shape.subn(stand_in, said)
        self.count += number
        return found

    def _path(self, found: re.Match[str]) -> str:
        if found[0].startswith(SYSTEM_FOLDERS):
            return found[0]
        self.count += 1
        return "<path>"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may know no name for its number
        return ""


KEPT_KEYS = ("event", "step", "method", "arm", "device", "dtype")
"""Keys of events whose texts are kept where they are one plain word."""
KEPT_ENVIRONMENT_KEYS = ("gpu", "python", "system", "processor")
"""Keys of events whose texts are kept; of every other key only numbers are."""
KEPT_NESTED_KEYS = ("result", "trained", "packages", "measured")
"""Keys of events whose mappings are looked into."""
_WORD = re.compile(r"[a-z0-9][a-z0-9._:+-]{0,40}")
ZIP_DATE = (2000, 1, 1, 0, 0, 0)
"""The date of the files inside: equal content makes an equal zip."""
BUNDLE_README = """What is in here, for a bug report:

doctor.json   what `tunewise doctor --json` prints: machine, packages, settings and where they come from
{run}
Left out: documents, examples, questions, prompts, goals, answers, names of files. Replaced where they stood in the
rest: secrets, addresses, paths, the names of user and machine ({count} places). Look it through before you send it.
"""
RUN_README = """run.json      how the run's plan is built, without anything that was written into it
events.jsonl  what happened, step by step, as numbers
"""


def write_bug_report(out: Path, run: Path | None, examined: Mapping[str, Any]) -> int:
    """Write the zip, atomically; return how many private things were replaced in it.

    ``run`` is the run that the report is about, ``examined`` what :func:`advisor.workflows.doctor.examine_machine` returned.
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
        open_run_folder(run)
        files["run.json"] = _json(redactor.value(_run(run)))
        events = [redactor.value(_event(event)) for event in read_journal(run / EVENTS)]
        files["events.jsonl"] = "".join(json.dumps(event) + "\n" for event in events)
    files["README.txt"] = BUNDLE_README.format(run=RUN_README if run else "", count=redactor.count)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), text.encode("utf-8"), zipfile.ZIP_DEFLATED)
    write_bytes(out, packed.getvalue())
    return redactor.count


def _is_bundle(path: Path) -> bool:
    """Whether a file is a zip that :func:`write` made: one to be replaced by a newer one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read("README.txt").startswith(BUNDLE_README.splitlines()[0].encode())
    except (OSError, ValueError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return False


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _run(run: Path) -> dict[str, Any]:
    """Return the parts of a run by size and the shape of its plan, or why the plan cannot be read."""
    parts = {path.name: _size(path) for path in sorted(run.iterdir()) if path.name in _PARTS}
    try:
        return {"parts": parts, "plan": plan_outline(read_run_plan(run))}
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


def plan_outline(plan: Plan) -> dict[str, Any]:
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
        "steps": steps,
        "data": data,
        "answers": answers,
        "checks": [check["kind"] for check in told["checks"]],
        "model": _model(told["model"]["name"]),
        "embedder": _model(told["embedder"]["name"]),
    }
    return {key: told[key] for key in kept if key not in own} | own


def _is_words(key: str) -> bool:
    """Whether an answer is a person's words or places, rather than a number or a choice."""
    return key not in QUESTION_BY_ID or QUESTION_BY_ID[key].kind in ("text", "path") or key == "model"


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
    return name if models.find_model(name) or name == EMBEDDER else "<its own>"


def _event(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event's numbers, and the texts that are tunewise's own; of lists how long they are."""
    kept: dict[str, Any] = {}
    for key, value in event.items():
        if not _WORD.fullmatch(key.replace("_", "-")):
            continue
        if isinstance(value, int | float | None):
            kept[key] = value
        elif isinstance(value, str) and key in KEPT_KEYS:
            kept[key] = _plain(value)
        elif isinstance(value, str) and key in KEPT_ENVIRONMENT_KEYS:
            kept[key] = value
        elif isinstance(value, list):
            kept[key] = f"{len(value)} of them"
        elif isinstance(value, Mapping) and key in KEPT_NESTED_KEYS:
            kept[key] = value if key == "packages" else _event(value)
    return kept
