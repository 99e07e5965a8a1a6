"""The user's own settings: a TOML file that environment variables and flags override.

:func:`apply_settings` puts the file's values into the environment of this process, :func:`current_settings`
says where each value comes from, :func:`with_settings_answers` adds the answers of its ``[answers]`` table.

pydantic-settings was tried and does not serve here. It reads the environment into an object, while runners and rag, which
do not import the advisor, read the environment itself; the merged object does not say which source a value came from; a file
that is named and missing is ignored, a TOML error does not name its file, a wrong value of ``api_keys`` is printed, and
lists must be JSON in a variable. It would also add .13 s to the start of every verb (benchmarks/LOG.md).
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advisor.output import FORMATS
from advisor.questionnaire.answers import Answers, names_a_path
from rag.backends.consent import parse_index_hosts
from rag.errors import BadInput, UsageProblem
from runners.models.endpoint import parse_key_hosts
from runners.models.licenses import license_names
from runners.resources.device import DEVICE_ENV, DEVICE_TABLE, DTYPE_BYTES, DTYPE_ENV, MEMORY_ENV
from runners.tracking.records import tracker_names

ENV = "TUNEWISE_CONFIG"
FILE = "config.toml"
ANSWERS_TABLE = "answers"
MAX_SETTINGS_BYTES = 1_000_000
_APPLIED: dict[str, str] = {}
"""What this process put into its environment from the file, so that it is not mistaken for the user's own
variable.
"""


@dataclass(frozen=True, slots=True)
class SettingKey:
    """One setting: its name in the file, the overriding environment variable, its type and meaning."""

    name: str
    env: str
    kind: str
    """path, flag, format, hosts (a table of host and environment variable), host names, device, dtype, gib, licences or
    trackers."""
    text: str


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting in force: its value and its source."""

    key: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Settings:
    """The content of the file: values as environment variables would hold them, and the answers."""

    path: Path | None
    values: Mapping[str, str]
    answers: Mapping[str, Any]


SETTING_KEYS: tuple[SettingKey, ...] = (
    SettingKey("cache", "TUNEWISE_CACHE", "path", "folder of models"),
    SettingKey("allow_hub", "TUNEWISE_ALLOW_HUB", "flag", "whether the model hub may be asked"),
    SettingKey(
        "accept_license",
        "TUNEWISE_ACCEPT_LICENSE",
        "licences",
        "licences whose terms you accept, so that models under them are fetched: gemma",
    ),
    SettingKey("profiles", "TUNEWISE_PROFILES", "path", "folder of saved profiles"),
    SettingKey("history", "TUNEWISE_HISTORY", "path", "the file of the history; empty for none"),
    SettingKey(
        "calibration",
        "TUNEWISE_CALIBRATION",
        "path",
        "the file of this machine's measured speed; empty measures and stores none",
    ),
    SettingKey("facts", "TUNEWISE_FACTS", "path", "your own models, GPUs and prices; empty for none"),
    SettingKey(
        "api_keys",
        "TUNEWISE_API_KEYS",
        "hosts",
        "the environment variable with the key of each host of a hosted model, as a table; never a key itself",
    ),
    SettingKey(
        "index_hosts",
        "TUNEWISE_INDEX_HOSTS",
        "host names",
        "hosts of databases, and s3:// buckets, that a plan or a folder may name for an index; others are not connected to",
    ),
    SettingKey(
        "track",
        "TUNEWISE_TRACK",
        "trackers",
        "where metrics of a training are sent: mlflow, wandb, tensorboard, trackio; empty sends none",
    ),
    SettingKey("format", "TUNEWISE_FORMAT", "format", "how results are printed: human or json"),
    SettingKey("quiet", "TUNEWISE_QUIET", "flag", "whether progress and notes are left out"),
    SettingKey("device", DEVICE_ENV, "device", f"what models run on: auto, {', '.join(DEVICE_TABLE)}"),
    SettingKey("dtype", DTYPE_ENV, "dtype", f"what models compute in: auto, {', '.join(DTYPE_BYTES)}"),
    SettingKey("memory_gib", MEMORY_ENV, "gib", "most GiB of memory to use, of the GPU or of RAM"),
)
"""All settings. The file may also hold a table ``[answers]``: answers of the questionnaire by id."""


def with_settings_answers(answers: Answers) -> Answers:
    """Return answers with those of the settings file: weaker than a person's, stronger than measured ones.

    Relative paths are resolved from the file's folder.

    Raises:
        BadInput: naming the file, for an unknown id or an invalid value.
    """
    settings = read_settings()
    if settings.path is None or not settings.answers:
        return answers
    values = dict(settings.answers)
    for key in ("documents", "examples", "questions", "prompt"):
        if isinstance(values.get(key), str) and names_a_path(str(settings.path.parent / values[key])):
            values[key] = str(settings.path.parent / values[key])
    try:
        return answers.put("config", values, f"from {settings.path}")
    except BadInput as problem:
        raise BadInput(f"{settings.path}: {problem.message}", problem.hint) from None


def settings_file() -> Path | None:
    """Return the path of the file: TUNEWISE_CONFIG (empty: none), else in the configuration folder."""
    named = os.environ.get(ENV)
    if named is not None:
        return Path(named).expanduser() if named else None
    from platformdirs import user_config_path

    return user_config_path("tunewise", appauthor=False) / FILE


def read_settings(path: Path | None = None) -> Settings:
    """Read the file; without one there are no settings.

    Raises:
        BadInput: for a broken file, an unknown key or an invalid value.
    """
    path = path or settings_file()
    if path is None or not path.is_file():
        if path is not None and os.environ.get(ENV):
            raise BadInput(f"{ENV} names {path}, and there is no such file", "correct it, or unset it")
        return Settings(None, {}, {})
    try:
        if path.stat().st_size > MAX_SETTINGS_BYTES:
            raise BadInput(f"{path} is larger than {MAX_SETTINGS_BYTES:,} bytes: that is no settings file")
        loaded = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}", f"or set {ENV}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 text (byte {error.start})", "save it as UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadInput(f"{path} is not TOML: {error}", "fix that line") from None
    answers = loaded.pop(ANSWERS_TABLE, {})
    if not isinstance(answers, dict):
        raise BadInput(
            f"{path}: {ANSWERS_TABLE} must be a table",
            f"write [{ANSWERS_TABLE}] and one answer a line below it",
        )
    return Settings(path, {key: _value(path, key, value) for key, value in loaded.items()}, answers)


def apply_settings() -> Settings:
    """Put the file's settings into the environment of this process where that does not set them itself."""
    for env in [env for env, value in _APPLIED.items() if os.environ.get(env) == value]:
        del os.environ[env]
    _APPLIED.clear()
    settings = read_settings()
    for key in SETTING_KEYS:
        if key.name in settings.values and key.env not in os.environ:
            os.environ[key.env] = _APPLIED[key.env] = settings.values[key.name]
    return settings


def current_settings() -> list[Setting]:
    """Return every setting with its value and its source: the environment, the file, or built-in."""
    return [Setting(key.name, os.environ.get(key.env, ""), _source(key)) for key in SETTING_KEYS]


def _source(key: SettingKey) -> str:
    """Return where a setting's value comes from."""
    value = os.environ.get(key.env)
    if value is None:
        return "built-in"
    return str(settings_file()) if _APPLIED.get(key.env) == value else key.env


def _value(path: Path, name: str, value: Any) -> str:
    """Return a value of the file as its environment variable would hold it; BadInput for an invalid one."""
    key = next((key for key in SETTING_KEYS if key.name == name), None)
    if key is None:
        names = [*(key.name for key in SETTING_KEYS), ANSWERS_TABLE]
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}? " if close else ""
        raise BadInput(f"{path}: unknown setting {name}", f"{hint}known: {', '.join(names)}")
    if key.kind == "flag" and isinstance(value, bool):
        return "1" if value else "0"
    if key.kind == "format" and value in FORMATS:
        return str(value)
    if key.kind == "hosts" and isinstance(value, dict) and all(isinstance(v, str) for v in value.values()):
        return _key_hosts(path, value)
    choices = {"device": ("auto", *DEVICE_TABLE), "dtype": ("auto", *DTYPE_BYTES)}
    if value in choices.get(key.kind, ()):
        return str(value)
    if key.kind == "gib" and isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
        return f"{value:g}"
    if key.kind == "path" and isinstance(value, str):
        return str((path.parent / Path(value).expanduser()).resolve()) if value else ""
    if key.kind == "licences" and (listed := _names(value)) is not None:
        try:
            return ",".join(license_names(listed))
        except BadInput as problem:
            raise BadInput(f"{path}: {name}: {problem.message}", problem.hint) from None
    if key.kind == "host names" and (listed := _names(value)) is not None:
        try:
            return ",".join(parse_index_hosts(listed))
        except BadInput as problem:
            raise BadInput(f"{path}: {problem.message}", problem.hint) from None
    if key.kind == "trackers" and (listed := _names(value)) is not None:
        try:
            return ",".join(tracker_names(listed))
        except UsageProblem as problem:
            raise BadInput(f"{path}: {name}: {problem.message}", problem.hint) from None
    wanted = {"flag": "true or false", "format": f"one of {', '.join(FORMATS)}", "path": "a path in quotes"}
    wanted |= {kind: f"one of {', '.join(names)}" for kind, names in choices.items()}
    wanted["gib"] = "a number above 0"
    wanted["hosts"] = 'a table, e.g. api_keys = {"api.example.com" = "EXAMPLE_API_KEY"}'
    wanted["licences"] = wanted["trackers"] = wanted["host names"] = "a name in quotes, or a list of names"
    # The value of api_keys is not shown, because someone may have written a key.
    shown = "not such a table" if key.kind == "hosts" else repr(value)
    raise BadInput(f"{path}: {name} is {shown}", f"it should be {wanted[key.kind]}")


def _key_hosts(path: Path, variables: Mapping[str, str]) -> str:
    """Return a table of hosts and environment variables as ``HOST=VARIABLE,...``; BadInput for an invalid one."""
    if any(mark in name for pair in variables.items() for name in pair for mark in ",="):
        raise BadInput(
            f"{path}: api_keys contains a comma or an equals sign", "a host names a variable, nothing else"
        )
    pairs = ",".join(f"{host}={variable}" for host, variable in variables.items())
    try:
        parse_key_hosts(pairs)
    except BadInput as problem:
        raise BadInput(f"{path}: {problem.message}", problem.hint) from None
    return pairs


def _names(value: Any) -> list[str] | None:
    """Return a name or a list of names as a list; None for anything else."""
    names = [value] if isinstance(value, str) else value
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None
