"""A killed trial ends like an uninterrupted one: the same answers and scores, and nothing asked twice.

A real process is killed by SIGKILL at seeded points of the trial (every arm's answers, few-shot's choice, two seeds,
forgetting) and resumed with `tunewise run --resume`; some kills leave a truncated last line, as a power cut does.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runners.data.examples import Example
from runners.models import resolve
from runners.plan.schema import parse_plan, write_plan
from runners.run_folder import read_journal

KILLS, DEEP_KILLS, SEED = 6, 200, 20261125
WATCHED = {
    "trial/answers.jsonl": 11,
    "trial/made_from.json": 3,
    "trial/tried.jsonl": 7,
    "trial/forgetting.jsonl": 30,
    "events.jsonl": 40,
    "report": 3,
}
"""By file, how many of its first operations a session may be killed before. A kill between two operations leaves the same
on the disk as one before the next operation, so no clock decides where."""
TORN = 0.5
"""Share of the kills that leave a truncated last line."""
SEEDS, TEST, DEV = (0, 1), 40, 12
TRIED = 47
"""Dev answers: 12 for the choice of few-shot's examples (nothing that the tiny model says scores anything, so the final
questions are not asked), the others for the limits of the three arms without weights."""
FORGETTING_ROWS = 3 * (12 + 4)
"""Rows of forgetting: texts and prompts, for the base and both seeds' weights."""
ARMS = {"prompting": (0,), "few-shot": (0,), "rag": (0,), "lora": SEEDS}
JOURNALS = {
    "answers.jsonl": ("arm", "seed", "id"),
    "tried.jsonl": ("made_from", "prompt", "id"),
    "forgetting.jsonl": ("made_from", "kind", "id"),
}
"""The trial's journals, with the keys that identify a row of each."""
PLAN: dict[str, Any] = {
    "name": "piers",
    "choice": "lora",
    "weights": {"style": 1, "token_f1": 1},
    "max_new_tokens": 24,
    "checks": [{"kind": "regex", "value": "I.*\\?$", "text": "offers help"}],
    "gate": {"must_beat": ["prompting"]},
    "forgetting": {"prompts": 4, "max_new_tokens": 6},
    "data": {"examples": "examples.jsonl", "questions": "dev.jsonl", "test_questions": "test.jsonl"},
    "steps": [
        {"kind": "index", "k": 1},
        {"kind": "train", "arm": "lora", "epochs": 1, "rank": 2, "seeds": SEEDS, "batch_tokens": 512},
        {"kind": "evaluate", "arm": "prompting"},
        {"kind": "evaluate", "arm": "few-shot", "shots": 2, "bank": "chosen", "budget": 40},
        {"kind": "evaluate", "arm": "rag", "retrieval": True},
        {"kind": "evaluate", "arm": "lora", "weights": "lora"},
    ],
}


@dataclass
class TrialRuns:
    """A plan whose trial is killed again and again, and an uninterrupted run of it for comparison."""

    warm: Any
    folder: Path

    def session(self, out: str, *more: str, **kill: Any) -> int:
        """Start or resume a run in a process of its own; return its exit code."""
        args = ["run", "plan.yaml", "--out", str(self.folder / out), "--resume", *more]
        self.warm.start(args=args, cwd=str(self.folder), log=str(self.folder / "log"), **kill)
        code = int(self.warm.wait())
        assert code in (0, 5, -signal.SIGKILL), (self.folder / "log").read_text("utf-8")
        return code

    def journals(self, out: str) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of the trial's journals."""
        return {name: read_journal(self.folder / out / "trial" / name) for name in JOURNALS}

    def result(self, out: str) -> Any:
        """Return what every finished trial must have in common: everything but the times."""
        report = json.loads((self.folder / out / "report.json").read_text("utf-8"))
        return without_times(
            {
                "journals": {
                    name: sorted(rows, key=partial(key, name)) for name, rows in self.journals(out).items()
                },
                "scores": json.loads((self.folder / out / "trial" / "scores.json").read_text("utf-8")),
                "prompts": json.loads((self.folder / out / "trial" / "prompts.json").read_text("utf-8")),
                **{name: report[name] for name in ("verdict", "paired", "guards")},
                "arms": [arm["scores"] for arm in report["arms"]],
            }
        )

    def asked(self, out: str) -> dict[str, int]:
        """Return how many questions the last session of each finished arm asked."""
        done = [e for e in read_journal(self.folder / out / "events.jsonl") if e["event"] == "step.done"]
        return {e["result"]["arm"]: e["result"]["asked"] for e in done if e["step"].startswith("evaluate:")}


def key(journal: str, row: dict[str, Any]) -> str:
    """Return the key that identifies a journal's row."""
    return json.dumps([row[name] for name in JOURNALS[journal]])


def without_times(value: Any) -> Any:
    """Return a JSON value without the key "seconds"."""
    if isinstance(value, dict):
        return {name: without_times(value) for name, value in value.items() if name != "seconds"}
    return [without_times(value) for value in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def runs(
    warm: Any,
    tiny: resolve.Model,
    little_bert: Callable[..., Path],
    piers: Path,
    pier_examples: Sequence[Example],
    tmp_path_factory: pytest.TempPathFactory,
) -> TrialRuns:
    """The plan's folder, with an uninterrupted run and one that is about to begin its trial."""
    folder = tmp_path_factory.mktemp("trial")
    write_model(tiny.folder, folder / "model", pier_examples)
    write_embedder(folder / "embedder", little_bert, piers)
    rows: list[dict[str, Any]] = [{"messages": list(e.messages), "meta": dict(e.meta)} for e in pier_examples]
    asked: list[dict[str, Any]] = [
        {
            "id": f"{half}{n}",
            "question": f"How many {'small ' * (n % 4)}berths has the {half} Pier {n}?",
            "answers": [f"{n + 20} berths"],
        }
        for half, count in (("dev", DEV), ("test", TEST))
        for n in range(count)
    ]
    halves = {half: [row for row in asked if row["id"].startswith(half)] for half in ("dev", "test")}
    for name, body in {"examples": rows, **halves}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in body), "utf-8")
    data = {**PLAN["data"], "documents": str(piers)}
    named = {"model": {"name": str(folder / "model")}, "embedder": {"name": str(folder / "embedder")}}
    write_plan(parse_plan({**PLAN, **named, "data": data}), folder / "plan.yaml")
    runs = TrialRuns(warm, folder)
    for step in ("index", "train:lora"):
        assert runs.session("begun", "--only", step) == 0
    shutil.copytree(folder / "begun", folder / "whole")
    assert runs.session("whole") in (0, 5)
    return runs


def write_model(base: Path, folder: Path, examples: Sequence[Example]) -> None:
    """Write a tiny model that answers in words of the examples, with varied answers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shutil.copytree(base, folder)
    net = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-2)
    texts = [tokenizer.apply_chat_template(list(e.messages), tokenize=False) for e in examples]
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    width = max(map(len, ids))
    batch = torch.tensor([row + [0] * (width - len(row)) for row in ids])
    labels = batch.masked_fill(batch == 0, -100)
    for _ in range(120):
        net(input_ids=batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    net.bfloat16().save_pretrained(folder)


def write_embedder(folder: Path, little_bert: Callable[..., Path], piers: Path) -> None:
    """Write an embedder that knows the words of the documents."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, trainers
    from tokenizers.models import WordLevel

    tokenizer = Tokenizer(WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    texts = [path.read_text("utf-8") for path in sorted(piers.glob("*.md"))]
    tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=["[PAD]", "[UNK]"]))
    folder.mkdir()
    little_bert(folder, tokenizer)


def truncate_last_line(run: Path, rng: random.Random) -> bool:
    """Truncate the line that was written last, as a power cut may do; return whether there was one.

    A line is left whole when its step is done or its choice made, since it was whole before that could be written.
    """
    journals = [path for name in JOURNALS if (path := run / "trial" / name).exists()]
    newest = max(journals, key=lambda path: path.stat().st_mtime_ns, default=run)
    done = {e["step"] for e in read_journal(run / "events.jsonl") if e["event"] == "step.done"}
    settled = {
        "answers.jsonl": lambda: f"evaluate:{read_journal(newest)[-1]['arm']}" in done,
        "tried.jsonl": (run / "trial" / "prompts.json").exists,
        "forgetting.jsonl": lambda: "forgetting" in done,
    }
    if newest.name not in settled or settled[newest.name]():
        return False
    whole = newest.read_bytes()
    line = len(whole.splitlines(keepends=True)[-1])
    newest.write_bytes(whole[: len(whole) - rng.randint(1, line - 1)])
    return True


def phase_of(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Return the phase in which a trial was killed, from its journals."""
    for arm, seeds in ARMS.items():
        for seed in seeds:
            done = sum((row["arm"], row["seed"]) == (arm, seed) for row in rows["answers.jsonl"])
            if arm == "few-shot" and not done and len(rows["tried.jsonl"]) < TRIED:
                return "in the choice of examples"
            if done < TEST:
                return f"{'in' if done else 'before'} {arm} {seed}"
    return "in forgetting" if len(rows["forgetting.jsonl"]) < FORGETTING_ROWS else "after the last answer"


def kill_again_and_again(runs: TrialRuns, kills: int, seed: int) -> Counter[str]:
    """Kill trials ``kills`` times in all, and compare each one that finishes with the uninterrupted one.

    Return the phases in which they were killed, and how many times a line was truncated.
    """
    rng, phases = random.Random(seed), Counter[str]()
    expected, number, done = runs.result("whole"), 0, 0
    while done < kills:
        number += 1
        out, code = f"seed{seed}-run{number}", -signal.SIGKILL
        shutil.copytree(runs.folder / "begun", runs.folder / out)
        known: dict[str, dict[str, str]] = {name: {} for name in JOURNALS}
        while code == -signal.SIGKILL:
            file, highest = rng.choices(list(WATCHED.items()), (8, 1, 2, 3, 4, 1))[0]
            kill = {"die_at": rng.randint(1, highest), "under": str(runs.folder / out / file)}
            before = runs.asked(out)
            code = runs.session(out, **kill if done < kills else {})
            for arm, asked in runs.asked(out).items():
                answered = sum(json.loads(name)[0] == arm for name in known["answers.jsonl"])
                assert arm in before or asked == TEST * len(ARMS[arm]) - answered, f"{arm} asked {asked}"
            rows = runs.journals(out)
            seen = {name: {key(name, row): json.dumps(row) for row in rows[name]} for name in JOURNALS}
            for name in JOURNALS:
                assert len(seen[name]) == len(rows[name]), f"{name}: something was answered twice"
                assert known[name].items() <= seen[name].items(), f"{name}: an answer was lost or asked again"
            if code == -signal.SIGKILL:
                done += 1
                phases[phase_of(rows)] += 1
                if rng.random() < TORN and truncate_last_line(runs.folder / out, rng):
                    phases["torn"] += 1
                    rows = runs.journals(out)
                known = {name: {key(name, row): json.dumps(row) for row in rows[name]} for name in JOURNALS}
        assert runs.result(out) == expected, f"seed {seed}, run {number}"
        shutil.rmtree(runs.folder / out)
    print(f"\n{kills} kills, seed {seed}, {number} runs: {dict(phases)}")
    return phases


def test_killed_trial_ends_like_uninterrupted_trial(runs: TrialRuns) -> None:
    phases = kill_again_and_again(runs, KILLS, SEED)
    assert phases.total() - phases["torn"] == KILLS
    assert phases["torn"] > 0
    assert len(phases) > KILLS // 2, phases


@pytest.mark.slow
def test_two_hundred_kills_end_like_uninterrupted_trial(runs: TrialRuns) -> None:
    assert len(kill_again_and_again(runs, DEEP_KILLS, SEED + 1)) > 8


def test_reference_trial_has_varied_answers_and_scores(runs: TrialRuns) -> None:
    rows = runs.journals("whole")
    asked = {(arm, seed, f"test{n}") for arm, seeds in ARMS.items() for seed in seeds for n in range(TEST)}
    assert {(row["arm"], row["seed"], row["id"]) for row in rows["answers.jsonl"]} == asked
    assert len({row["answer"] for row in rows["answers.jsonl"]}) > TEST
    assert [len(rows[name]) for name in JOURNALS] == [len(asked), TRIED, FORGETTING_ROWS]
    assert len({json.dumps(scores) for scores in runs.result("whole")["arms"]}) == len(ARMS)
