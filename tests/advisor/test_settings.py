"""The settings file: precedence, errors, and where each value comes from."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from advisor import settings
from advisor.questionnaire.answers import Answers
from rag.errors import BadInput

Each = Callable[..., list[Any]]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Return a function that writes the settings file of the test."""
    for key in settings.SETTING_KEYS:
        monkeypatch.delenv(key.env, raising=False)
    path = tmp_path / "own" / "config.toml"
    path.parent.mkdir()
    monkeypatch.setenv(settings.ENV, str(path))

    def write(text: str) -> Path:
        path.write_text(text, "utf-8")
        return path

    yield write
    write("")
    settings.apply_settings()


def origins() -> dict[str, tuple[str, str]]:
    """Return every setting's value and source."""
    return {s.key: (s.value, s.source) for s in settings.current_settings()}


def test_environment_overrides_settings_file(
    config: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = config(
        'cache = "models"\nallow_hub = true\nquiet = false\nhistory = ""\ntrack = ["wandb", "mlflow"]\n'
    )
    monkeypatch.setenv("TUNEWISE_CACHE", "/elsewhere")
    settings.apply_settings()
    assert origins()["cache"] == ("/elsewhere", "TUNEWISE_CACHE")
    assert origins()["allow_hub"] == ("1", str(path))
    assert origins()["history"] == ("", str(path))
    assert origins()["facts"] == ("", "built-in")
    assert origins()["track"] == ("wandb,mlflow", str(path))
    monkeypatch.delenv("TUNEWISE_CACHE")
    settings.apply_settings()
    assert origins()["cache"] == (str(tmp_path / "own" / "models"), str(path))
    config("")
    settings.apply_settings()
    assert origins()["cache"] == ("", "built-in")
    assert "TUNEWISE_ALLOW_HUB" not in os.environ


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('cach = "x"', "unknown setting cach .did you mean cache?"),
        ("allow_hub = 1", "allow_hub is 1 .it should be true or false"),
        ('format = "xml"', "format is 'xml' .it should be one of human, json"),
        ("cache = 3", "a path in quotes"),
        ("track = 'comet'", "track: there is no tracker 'comet' .choose one of mlflow, wandb"),
        ("track = true", "track is True .it should be a name in quotes, or a list"),
        ("cache = ", "is not TOML"),
        ("answers = 3", "must be a table"),
        ("[answers]\nmust_site = true", "config.toml: unknown question 'must_site' .did you mean must_cite"),
        ("[answers]\nmust_cite = 'perhaps'", "config.toml: must_cite"),
    ],
)
def test_invalid_settings_are_rejected(config: Callable[[str], Path], text: str, message: str) -> None:
    config(text)
    with pytest.raises(BadInput, match=message):
        settings.with_settings_answers(Answers())


def test_named_settings_file_must_exist(
    config: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(settings.ENV, str(tmp_path / "none.toml"))
    with pytest.raises(BadInput, match="no such file"):
        settings.read_settings()
    monkeypatch.setenv(settings.ENV, "")
    assert settings.read_settings().path is None
    (tmp_path / "bytes.toml").write_bytes(b"cache = '\xff'")
    with pytest.raises(BadInput, match="not UTF-8"):
        settings.read_settings(tmp_path / "bytes.toml")


def test_settings_answers_rank_between_person_and_detected(config: Callable[[str], Path]) -> None:
    path = config("[answers]\nram_gib = 64\nmust_cite = true\ngpu_kind = 'none'\n")
    answers = Answers().put("detected", {"ram_gib": 8}).put("flag", {"must_cite": "no"})
    layered = settings.with_settings_answers(answers)
    assert (layered["ram_gib"].value, layered["ram_gib"].source) == (64, "config")
    assert layered["ram_gib"].note == f"from {path}"
    assert layered["must_cite"].source == "flag"


def test_cli_applies_settings_and_shows_their_source(tunewise_each: Each, tmp_path: Path) -> None:
    """plan shows and records the source of each answer; doctor shows that of each setting."""
    path = tmp_path / "mine.toml"
    path.write_text("format = 'json'\n[answers]\nmust_cite = true\nram_gib = 77\n", "utf-8")
    (tmp_path / "q.jsonl").write_text('{"question": "Is it open?"}\n', "utf-8")
    own = {"TUNEWISE_CONFIG": str(path)}
    planned, alone, doctor, listed = tunewise_each(
        "plan --questions q.jsonl --yes --format human", "plan", "doctor --json", "models list", **own
    )
    assert planned.code == 0, planned.err
    assert "config" in planned.out
    recorded = yaml.safe_load((tmp_path / "plan.yaml").read_text("utf-8"))["answers"]["must_cite"]
    assert (recorded["value"], recorded["source"], recorded["note"]) == (True, "config", f"from {path}")
    assert alone.code == 2, "settings alone are nothing to advise on"
    rows = {r["key"]: (r["value"], r["from"]) for r in json.loads(doctor.out)["configuration"]["values"]}
    assert rows["format"] == ("json", str(path))
    assert rows["answers.ram_gib"] == ("77", str(path))
    assert json.loads(listed.out)["schema"] == 1
    path.write_text("formt = 'json'\n", "utf-8")
    refused, doctor_report = tunewise_each("models list", "doctor", COLUMNS="300", **own)
    assert (refused.code, refused.out) == (3, "")
    assert "did you mean format?" in refused.err
    assert doctor_report.code == 0
    assert "the settings file is not in force" in doctor_report.out


def test_hosts_of_indexes_are_a_list_of_names(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        'index_hosts = ["DB.example.org", "[::1]:5433", "s3://bucket", "/run/postgresql"]\n', "utf-8"
    )
    hosts = settings.read_settings(file).values["index_hosts"]
    assert hosts == "db.example.org,[::1]:5433,s3://bucket,/run/postgresql"
    for wrong in ('["postgresql://db.example.org/d"]', '["a b"]', "{}", "[1]"):
        file.write_text(f"index_hosts = {wrong}\n", "utf-8")
        with pytest.raises(BadInput, match="index_hosts"):
            settings.read_settings(file)


def test_every_setting_is_read_somewhere(root: Path) -> None:
    """Each variable is read by some module besides the table of settings."""
    packages = (root / "advisor", root / "runners", root / "rag")
    texts = [path.read_text("utf-8") for package in packages for path in package.rglob("*.py")]
    for key in settings.SETTING_KEYS:
        assert sum(f'"{key.env}"' in text for text in texts) >= 2, key.env
