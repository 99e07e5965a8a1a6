"""A zip for a bug report: the machine, and a run's structure and numbers; nothing that a person wrote is in it.

:func:`write_bug_report` writes it. :class:`Redactor` removes from texts what is private: secrets, addresses, paths, and
the names of user and machine.
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

from advisor.questionnaire.questions import QUESTION_BY_ID
from rag.errors import BadInput, UsageProblem
from rag.files import write_bytes
from runners.catalog import models
from runners.data.personal_data import PERSONAL_DATA_KINDS
from runners.models.registry import find_known_model
from runners.plan.arm_names import split_arm
from runners.plan.schema import Plan
from runners.run_folder import EVENTS, open_run_folder, read_journal, read_run_plan

PRIVATE_NAMES = re.compile(
    r"key|token|secret|pass|pwd|credential|auth|cookie|session|proxy|index|dsn", re.IGNORECASE
)
"""Names of environment variables whose values are private."""
SYSTEM_FOLDERS = ("/proc", "/sys", "/dev")
"""Folders that every machine has; their names tell how something was detected, so they are kept."""
_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s\"'<>)\]]+", re.IGNORECASE)
_PATH = re.compile(
    r"(?<![\w.~/])~?/(?:[^\s/\"'<>:;,()\[\]{}|]+/?)+|\b[A-Za-z]:[\\/][^\s\"'<>|]*|\\\\[^\s\"'<>|]+"
)
_STATED_SECRET = re.compile(
    r"(?i)\b(authorization|bearer|basic|(?:api|access|secret|private)[_-]?key|tokens?|secrets?|passwords?|passwd|pwd)\b"
    r"(\"?\s*[:=]\s*\"?(?:bearer\s+|basic\s+)?|\s+)(?=\S*[\d\W])([^\s\"',;}]{6,})"
)
_USER_VARIABLES = ("USER", "LOGNAME", "USERNAME", "SUDO_USER")
_NAME = re.compile(r"[A-Za-z][\w.-]{0,40}")
_MIN_SECRET_LENGTH = 6


KEPT_KEYS = ("event", "step", "method", "arm", "device", "dtype")
"""Keys of events whose text is kept if it is one plain word."""
KEPT_ENVIRONMENT_KEYS = ("gpu", "python", "system", "processor")
"""Keys of events whose text is kept; of all other keys only numbers are kept."""
KEPT_NESTED_KEYS = ("result", "trained", "packages", "measured")
"""Keys of events whose mappings are included."""
_WORD = re.compile(r"[a-z0-9][a-z0-9._:+-]{0,40}(@([0-9]+|teacher))?")
ZIP_DATE = (2000, 1, 1, 0, 0, 0)
"""Date of the files in the zip, so that equal content makes an equal zip."""
BUNDLE_README = """What is in here, for a bug report:

doctor.json   what `tunewise doctor --json` prints: machine, packages, settings and where they come from
{run}
Not included: documents, examples, questions, prompts, goals, answers, names of files. Replaced in the
rest: secrets, addresses, paths, the names of user and machine ({count} places). Look it through before you send it.
"""
RUN_README = """run.json      how the run's plan is built, without anything that was written into it
events.jsonl  what happened, step by step, as numbers
"""


_PARTS = (
    "plan.yaml",
    "plan.forecast.json",
    "events.jsonl",
    "index",
    "adapters",
    "model",
    "trial",
    "report.json",
    "report.html",
    "manifest.json",
)


class Redactor:
    """Replaces what is private in texts by its kind, using the environment of this machine."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """Collect what is private here: values of private variables, own folders, the names of user and machine.

        Args:
            environ: environment variables; those of this process by default.
        """
        environ = os.environ if environ is None else environ
        secrets = [
            value
            for name, value in environ.items()
            if PRIVATE_NAMES.search(name) and len(value) >= _MIN_SECRET_LENGTH
        ]
        homes = [environ.get(name, "") for name in ("HOME", "USERPROFILE")]
        folders = {str(Path.home()), str(Path.cwd()), tempfile.gettempdir(), *homes} - {"", "/"}
        self._literal = {re.escape(value): "<secret>" for value in secrets}
        # Up to the next punctuation mark, because names of folders can contain spaces.
        self._literal |= {rf"{re.escape(folder)}(?:[\\/][^\n\"'<>:;,()]*)?": "<path>" for folder in folders}
        user_names = {environ.get(name, "") for name in _USER_VARIABLES} | {Path.home().name, _user()}
        self._words = {name: "<user>" for name in user_names if len(name) > 1} | {
            node: "<machine>" for node in (platform.node(), platform.node().split(".")[0]) if len(node) > 1
        }
        self.count = 0
        """Number of replacements so far."""

    def text(self, text: str) -> str:
        """Return a text without what is private; longer private values are replaced first."""
        if "\n" not in text and Path(text).is_absolute() and not text.startswith(SYSTEM_FOLDERS):
            text, self.count = "<path>", self.count + 1
        for pattern in sorted(self._literal, key=len, reverse=True):
            text = self._counted(re.compile(pattern, re.IGNORECASE), self._literal[pattern], text)
        for kind in PERSONAL_DATA_KINDS:
            if kind.secret or kind.name in ("e-mail address", "IP address", "payment card"):
                text = self._counted(kind.shape, f"<{kind.name}>", text)
        text = self._counted(_STATED_SECRET, r"\1\2<secret>", text)
        text = self._counted(_ADDRESS, "<address>", text)
        text = _PATH.sub(self._path, text)
        for name in sorted(self._words, key=len, reverse=True):
            whole_word = re.compile(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", re.IGNORECASE)
            text = self._counted(whole_word, self._words[name], text)
        return text

    def value(self, content: Any) -> Any:
        """Return JSON values with every text redacted, and every key that is not a plain name."""
        if isinstance(content, str):
            return self.text(content)
        if isinstance(content, Mapping):
            return {self._key(str(key)): self._entry(str(key), inner) for key, inner in content.items()}
        if isinstance(content, list | tuple):
            return [self.value(inner) for inner in content]
        return content

    def _key(self, key: str) -> str:
        return key if _NAME.fullmatch(key) else self.text(key)

    def _entry(self, key: str, inner: Any) -> Any:
        if isinstance(inner, str) and inner and key.isupper() and PRIVATE_NAMES.search(key):
            self.count += 1
            return "<secret>"
        return self.value(inner)

    def _counted(self, pattern: re.Pattern[str], replacement: str, text: str) -> str:
        replaced, number = pattern.subn(replacement, text)
        self.count += number
        return replaced

    def _path(self, match: re.Match[str]) -> str:
        if match[0].startswith(SYSTEM_FOLDERS):
            return match[0]
        self.count += 1
        return "<path>"


def write_bug_report(out: Path, run: Path | None, examined: Mapping[str, Any]) -> int:
    """Write the zip atomically; return the number of private things that were replaced in it.

    Args:
        out: the zip to write.
        run: the run that the report is about, or None.
        examined: the result of :func:`advisor.workflows.doctor.examine_machine`.

    Raises:
        BadInput: when ``run`` is not a run folder, or ``out`` is a folder.
        UsageProblem: when another file is at ``out``.
    """
    if out.is_dir():
        raise BadInput(f"{out} is a folder", "name the file: tunewise doctor --bundle report.zip")
    if out.exists() and not _is_bundle(out):
        raise UsageProblem(
            f"{out} exists and is no bundle of doctor's", "name another: tunewise doctor --bundle report.zip"
        )
    redactor = Redactor()
    doctor = dict(examined)
    doctor["model"] = _public_model_name(str(doctor["model"]))
    # The note on how free space was found names a folder of the user.
    doctor["machine"] = {**doctor["machine"], "disk_gib": {"value": doctor["machine"]["disk_gib"]["value"]}}
    configuration = doctor["configuration"]
    doctor["configuration"] = {
        **configuration,
        "values": [{**row, "value": _setting_value(row)} for row in configuration["values"]],
    }
    files = {"doctor.json": _json(redactor.value(doctor))}
    if run is not None:
        open_run_folder(run)
        files["run.json"] = _json(redactor.value(_run_outline(run)))
        events = [redactor.value(_event_outline(event)) for event in read_journal(run / EVENTS)]
        files["events.jsonl"] = "".join(json.dumps(event) + "\n" for event in events)
    files["README.txt"] = BUNDLE_README.format(run=RUN_README if run else "", count=redactor.count)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), text.encode("utf-8"), zipfile.ZIP_DEFLATED)
    write_bytes(out, buffer.getvalue())
    return redactor.count


def plan_outline(plan: Plan) -> dict[str, Any]:
    """Return the structure of a plan: steps, numbers and choices, without anything a person wrote or named."""
    content = plan.model_dump(mode="json", by_alias=True)
    kept_keys = ("schema", "choice", "steps", "weights", "gate", "seed", "max_new_tokens")
    data = {
        key: value if isinstance(value, int | float) or key == "near_repeats" else value is not None
        for key, value in content["data"].items()
    }
    answers = {
        key: {"value": answer["value"], "source": answer["source"]}
        for key, answer in content["answers"].items()
        if not _is_free_text(key)
    }
    aliases = list(plan.models)

    def numbered(value: Any) -> Any:
        """Return an arm's name with the number of its model in place of the alias, which a person wrote."""
        method, alias = split_arm(value) if isinstance(value, str) else ("", "")
        return f"{method}@{aliases.index(alias) + 1}" if alias in aliases else value

    steps = [
        {key: _plain(numbered(value)) for key, value in step.items() if key != "reasons"}
        for step in content["steps"]
    ]
    outline = {
        "steps": steps,
        "data": data,
        "answers": answers,
        "checks": [check["kind"] for check in content["checks"]],
        "model": _public_model_name(plan.model.name),
        "embedder": _public_model_name(content["embedder"]["name"]),
    }
    if aliases:
        models = [_public_model_name(model.name) for model in plan.models.values()]
        outline |= {"choice": numbered(plan.choice), "models": models}
    return {key: content[key] for key in kept_keys if key not in outline} | outline


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container the user id may have no name
        return ""


def _is_bundle(path: Path) -> bool:
    """Return whether a file is a zip of :func:`write_bug_report`, which a newer one may replace."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read("README.txt").startswith(BUNDLE_README.splitlines()[0].encode())
    except (OSError, ValueError, KeyError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error):
        return False


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _run_outline(run: Path) -> dict[str, Any]:
    """Return the sizes of a run's parts and the outline of its plan, or why the plan cannot be read."""
    parts = {path.name: _size(path) for path in sorted(run.iterdir()) if path.name in _PARTS}
    try:
        return {"parts": parts, "plan": plan_outline(read_run_plan(run))}
    except BadInput as problem:
        return {"parts": parts, "problem": type(problem).__name__}


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    return sum(item.lstat().st_size for item in (path, *path.rglob("*")) if not item.is_dir())


def _is_free_text(key: str) -> bool:
    """Return whether an answer is free text or a path, rather than a number or a choice."""
    return (
        key not in QUESTION_BY_ID
        or QUESTION_BY_ID[key].kind in ("text", "path", "columns", "models")
        or key == "model"
    )


def _setting_value(row: Mapping[str, Any]) -> Any:
    """Return the value of a setting; for an answer in free text only a placeholder."""
    name, dot, key = str(row["key"]).partition(".")
    return "<its own>" if name == "answers" and dot and _is_free_text(key) else row["value"]


def _plain(value: Any) -> Any:
    """Return a number or choice of a step; a placeholder for anything a person could have written."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping) or (isinstance(value, str) and not _WORD.fullmatch(value)):
        return "<its own>"
    return value


def _public_model_name(name: str) -> str:
    """Return the name of a model if it is public, else a placeholder."""
    if name.startswith("openai:"):
        return "<an endpoint>"
    return name if models.find_model(name) or find_known_model(name) else "<its own>"


def _event_outline(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of an event and the texts that tunewise wrote itself; of lists their length."""
    outline: dict[str, Any] = {}
    for key, value in event.items():
        if not _WORD.fullmatch(key.replace("_", "-")):
            continue
        if isinstance(value, int | float | None):
            outline[key] = value
        elif isinstance(value, str) and key in KEPT_KEYS:
            outline[key] = _plain(value)
        elif isinstance(value, str) and key in KEPT_ENVIRONMENT_KEYS:
            outline[key] = value
        elif isinstance(value, list):
            outline[key] = f"{len(value)} of them"
        elif isinstance(value, Mapping) and key in KEPT_NESTED_KEYS:
            outline[key] = value if key == "packages" else _event_outline(value)
    return outline
