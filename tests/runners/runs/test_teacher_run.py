"""A run whose plan names a teacher: it is asked the same questions once, and the student's report and card name it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from advisor.report.report import judge
from runners.models.resolve import Model
from runners.plan.schema import read_plan
from runners.runs.opened import OpenRun
from runners.trial.execute import RunRequest, carry_out

ROWS = 12


def test_student_is_held_against_its_teacher(tiny: Model, server: Any, tmp_path: Path) -> None:
    server.answer = lambda body: "Aye."
    by = {"name": "tern-2", "host": f"127.0.0.1:{server.server_port}", "license": "yes"}
    made = [
        {
            "messages": [
                {"role": "user", "content": f"Is berth {n} free?"},
                {"role": "assistant", "content": "Aye."},
            ],
            "meta": {"made": True, "teacher": by},
        }
        for n in range(ROWS)
    ]
    asked = [{"question": f"Is pier {n} open?", "reference": "Aye.", "answers": ["Aye"]} for n in range(8)]
    for name, rows in (("made", made), ("questions", asked)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text, "utf-8")
    (tmp_path / "plan.yaml").write_text(
        f"""
name: taught
choice: lora
model: {{name: {tiny.folder}}}
teacher: openai:tern-2@{server.url}
data: {{examples: made.jsonl, questions: questions.jsonl}}
steps:
- {{kind: train, arm: lora, epochs: 1, rank: 4, alpha: 8, batch_tokens: 400}}
- {{kind: evaluate, arm: lora, weights: lora}}
weights: {{token_f1: 1}}
max_new_tokens: 4
forgetting: {{prompts: 0}}
""",
        "utf-8",
    )
    plan = read_plan(tmp_path / "plan.yaml")
    run = carry_out(RunRequest(plan=plan, out=tmp_path / "run"))
    report = judge(run).content
    questions = len(run.questions) + len(OpenRun.open(tmp_path / "run").split.dev)
    assert len(server.seen) == questions > len(run.questions) > 0
    assert report.teacher is not None
    assert (report.teacher.arm, report.teacher.license) == ("prompting@teacher", "yes")
    assert [(student.arm, student.rows) for student in report.teacher.students] == [("lora", ROWS)]
    assert report.verdict.use != "prompting@teacher"
    assert any("12 of 12 examples were written by tern-2" in warning for warning in report.warnings)
    card = (tmp_path / "run" / "adapters" / "lora-s0" / "README.md").read_text("utf-8")
    assert "Does the teacher's licence allow training on its answers?" in card
    carry_out(RunRequest(plan=plan, out=tmp_path / "run", resume=True))
    assert len(server.seen) == questions, "nothing is asked twice"
