"""The untuned model's replies to questions of the examples, beside the house's own: what house style is learnt from."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rag.durable import canonical_json, sha256_text, write_json, writing_into
from runners import house
from runners.bench import RunContext, identity
from runners.data import Example, Question
from runners.plan import EvaluateStep
from runners.rundir import read_lines
from runners.trial import ANSWERS, keep_current, run_arm

FOLDER, FOUND = "house", "house.json"
_ARM = EvaluateStep(arm="untuned")


def learn_house(bench: RunContext) -> house.House | None:
    """Ask the plan's model what the house has answered, and learn to tell the two; None where the plan does not ask.

    The questions are of training rows, as the zero-shot arm would be asked; answers are kept, so that nothing is
    asked twice. What was learnt, and how long asking took, is told and kept for the report.
    """
    plan = bench.plan
    if not plan.house_style:
        return None
    rows = pick(bench.examples, plan.seed)
    questions = [as_question(row) for row in rows]
    folder, started = bench.run.path / FOLDER, time.monotonic()
    made_from = {
        "base": identity(bench.base), "prompts": plan.prompts.model_dump(mode="json"),
        "max_new_tokens": plan.max_new_tokens, "rows": [(q.id, q.question) for q in questions],
    }  # fmt: skip
    with writing_into(bench.run.path):
        bench.run.unseal()
        keep_current(folder, _ARM.arm, sha256_text(canonical_json(made_from)))
        bench.tell({"event": "house.start", "title": f"house style, from {len(questions)} examples"})
        generator = bench.generator(None, _ARM)
        asked = run_arm(plan, _ARM, plan.seed, questions, generator, None, (), folder / ANSWERS, bench.tell)
        said = {row["id"]: row["answer"] for row in read_lines(folder / ANSWERS)}
        found = house.learn([row.reply for row in rows], [said[q.id] for q in questions])
        seconds = round(time.monotonic() - started, 1)
        write_json(folder / FOUND, {**found.to_json(), "seconds": seconds})
    bench.tell({"event": "house.learnt", "asked": asked, "seconds": seconds, "reason": found.text})
    return found


def recall_house(bench: RunContext) -> house.House | None:
    """Learn house style from the replies that a finished run kept; None where it kept none."""
    said = {row["id"]: row["answer"] for row in read_lines(bench.run.path / FOLDER / ANSWERS)}
    pairs = [
        (row.reply, said[name])
        for row in pick(bench.examples, bench.plan.seed)
        if (name := as_question(row).id) in said
    ]
    if not bench.plan.house_style or not pairs:
        return None
    return house.learn([ours for ours, _ in pairs], [theirs for _, theirs in pairs])


def pick(examples: Sequence[Example], seed: int) -> tuple[Example, ...]:
    """Up to :data:`runners.house.MOST` examples with a question, the same ones for a seed."""
    asked = [row for row in examples if row.question.strip() and row.reply.strip()]
    order = sorted(asked, key=lambda row: sha256_text(f"house\0{seed}\0{row.question}\0{row.reply}"))
    return tuple(order[: house.MOST])


def as_question(row: Example) -> Question:
    """The example as a question: its last user turn, after its own instructions and earlier turns."""
    turns = [turn for turn in row.messages if turn["role"] != "system"]
    last = max(n for n, turn in enumerate(turns) if turn["role"] == "user")
    name = sha256_text(repr(row.messages))[:16]
    return Question(name, row.question, system=row.system or None, history=tuple(turns[:last]))
