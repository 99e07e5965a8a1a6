"""A trial killed anywhere ends as the one that nobody touched: the same answers and scores, and nothing asked twice.

A real process is killed by SIGKILL at seeded points of the trial (every arm's answers, few-shot's choice, two seeds,
forgetting) and goes on with `tunewise run --resume`; some kills leave a torn last line, as a power cut does.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runners.data.examples import Example
from runners.models import resolve
from runners.plan.schema import parse_plan, write_plan
from runners.run_folder import read_journal

KILLS, DEEP_KILLS, SEED = 20, 200, 20261125
WATCHED = {
    "trial/answers.jsonl": 11,
    "trial/made_from.json": 3,
    "trial/tried.jsonl": 7,
    "trial/forgetting.jsonl": 30,
    "events.jsonl": 40,
    "report": 3,
}
"""A session is killed before one of the first so many operations on one of these files. What a kill in between leaves on
the disk is what one before the next operation leaves, so no clock chooses where."""
TORN = 0.3
"""Share of the kills that leave a torn last line."""
SEEDS, TEST, DEV = (0, 1), 40, 12
TRIED, LOOKED_AT = 34, 3 * (12 + 4)
"""Dev answers that choose few-shot's examples; texts and prompts that the base and both seeds' weights are held to."""
ARMS = {"prompting": (0,), "few-shot": (0,), "rag": (0,), "lora": SEEDS}
JOURNALS = {
    "answers.jsonl": ("arm", "seed", "id"),
    "tried.jsonl": ("made_from", "prompt", "id"),
    "forgetting.jsonl": ("made_from", "kind", "id"),
}
"""The trial's journals, and what tells a question of each from every other."""
PLAN = {
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
class Bench:
    """A plan whose trial is killed again and again, and the run of it that nobody touched."""

    warm: Any
    folder: Path

    def session(self, out: str, *more: str, **kill: Any) -> int:
        """Begin or go on with a run in a process of its own; return its exit code."""
        args = ["run", "plan.yaml", "--out", str(self.folder / out), "--resume", *more]
        self.warm.start(args=args, cwd=str(self.folder), log=str(self.folder / "log"), **kill)
        code = int(self.warm.wait())
        assert code in (0, 5, -signal.SIGKILL), (self.folder / "log").read_text("utf-8")
        return code

    def journals(self, out: str) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of the trial's journals."""
        return {name: read_journal(self.folder / out / "trial" / name) for name in JOURNALS}

    def made(self, out: str) -> Any:
        """Return what a finished trial must have in common with every other: all but how long it took."""
        report = json.loads((self.folder / out / "report.json").read_text("utf-8"))
        return untimed(
            {
                "journals": {
                    name: sorted(rows, key=lambda row, name=name: key(name, row))
                    for name, rows in self.journals(out).items()
                },
                "scores": json.loads((self.folder / out / "trial" / "scores.json").read_text("utf-8")),
                "prompts": json.loads((self.folder / out / "trial" / "prompts.json").read_text("utf-8")),
                **{name: report[name] for name in ("verdict", "paired", "guards")},
                "arms": [arm["scores"] for arm in report["arms"]],
            }
        )

    def asked(self, out: str) -> dict[str, int]:
        """Return how many questions each finished arm says that its last session asked."""
        done = [e for e in read_journal(self.folder / out / "events.jsonl") if e["event"] == "step.done"]
        return {e["result"]["arm"]: e["result"]["asked"] for e in done if e["step"].startswith("evaluate:")}


def key(journal: str, row: dict[str, Any]) -> str:
    """Return what tells a journal's row from every other."""
    return json.dumps([row[name] for name in JOURNALS[journal]])


def untimed(found: Any) -> Any:
    """Return it without what a clock said."""
    if isinstance(found, dict):
        return {name: untimed(value) for name, value in found.items() if name != "seconds"}
    return [untimed(value) for value in found] if isinstance(found, list) else found


@pytest.fixture(scope="module")
def bench(
    warm: Any,
    tiny: resolve.Model,
    little_bert: Callable[..., Path],
    piers: Path,
    pier_examples: Sequence[Example],
    tmp_path_factory: pytest.TempPathFactory,
) -> Bench:
    """The plan's folder, with a run in it that nobody touched and one that is about to begin its trial."""
    folder = tmp_path_factory.mktemp("trial")
    teach(tiny.folder, folder / "model", pier_examples)
    embedder(folder / "embedder", little_bert, piers)
    rows = [{"messages": list(e.messages), "meta": dict(e.meta)} for e in pier_examples]
    asked = [
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
    bench = Bench(warm, folder)
    for step in ("index", "train:lora"):
        assert bench.session("begun", "--only", step) == 0
    shutil.copytree(folder / "begun", folder / "whole")
    assert bench.session("whole") in (0, 5)
    return bench


def teach(base: Path, folder: Path, examples: Sequence[Example]) -> None:
    """Write a tiny model that answers in words of the examples, none too surely."""
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
    net.to(torch.bfloat16).save_pretrained(folder)


def embedder(folder: Path, little_bert: Callable[..., Path], piers: Path) -> None:
    """Write an embedder that knows the words of the documents."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, trainers
    from tokenizers.models import WordLevel

    tokenizer = Tokenizer(WordLevel(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    texts = [path.read_text("utf-8") for path in sorted(piers.glob("*.md"))]
    tokenizer.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=["[PAD]", "[UNK]"]))
    folder.mkdir()
    little_bert(folder, tokenizer)


def tear(run: Path, chance: random.Random) -> bool:
    """Leave of the line that was written last what a power cut may leave of it; say whether there was one.

    Where its step is done or its choice made, the line was whole before that could be written.
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
    newest.write_bytes(whole[: len(whole) - chance.randint(1, line - 1)])
    return True


def place(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Say what a killed trial was at, from its journals."""
    for arm, seeds in ARMS.items():
        for seed in seeds:
            done = sum((row["arm"], row["seed"]) == (arm, seed) for row in rows["answers.jsonl"])
            if arm == "few-shot" and not done and len(rows["tried.jsonl"]) < TRIED:
                return "in the choice of examples"
            if done < TEST:
                return f"{'in' if done else 'before'} {arm} {seed}"
    return "in forgetting" if len(rows["forgetting.jsonl"]) < LOOKED_AT else "after the last answer"


def kill_again_and_again(bench: Bench, kills: int, seed: int) -> Counter[str]:
    """Kill trials so many times in all, comparing each one that comes to its end with the untouched one.

    Return where the kills fell, and how many left a torn line.
    """
    chance, places = random.Random(seed), Counter[str]()
    expected, number, done = bench.made("whole"), 0, 0
    while done < kills:
        number += 1
        out, code = f"seed{seed}-run{number}", -signal.SIGKILL
        shutil.copytree(bench.folder / "begun", bench.folder / out)
        known: dict[str, dict[str, str]] = {name: {} for name in JOURNALS}
        while code == -signal.SIGKILL:
            file, most = chance.choices(list(WATCHED.items()), (8, 1, 2, 3, 4, 1))[0]
            kill = {"die_at": chance.randint(1, most), "under": str(bench.folder / out / file)}
            before = bench.asked(out)
            code = bench.session(out, **kill if done < kills else {})
            for arm, asked in bench.asked(out).items():
                answered = sum(json.loads(name)[0] == arm for name in known["answers.jsonl"])
                assert arm in before or asked == TEST * len(ARMS[arm]) - answered, f"{arm} asked {asked}"
            rows = bench.journals(out)
            told = {name: {key(name, row): json.dumps(row) for row in rows[name]} for name in JOURNALS}
            for name in JOURNALS:
                assert len(told[name]) == len(rows[name]), f"{name}: something was answered twice"
                assert known[name].items() <= told[name].items(), f"{name}: an answer was lost or asked again"
            if code == -signal.SIGKILL:
                done += 1
                places[place(rows)] += 1
                if chance.random() < TORN and tear(bench.folder / out, chance):
                    places["torn"] += 1
                    rows = bench.journals(out)
                known = {name: {key(name, row): json.dumps(row) for row in rows[name]} for name in JOURNALS}
        assert bench.made(out) == expected, f"seed {seed}, run {number}"
        shutil.rmtree(bench.folder / out)
    print(f"\n{kills} kills, seed {seed}, {number} runs: {dict(places)}")
    return places


def test_a_trial_killed_anywhere_ends_as_the_untouched_one(bench: Bench) -> None:
    places = kill_again_and_again(bench, KILLS, SEED)
    assert places.total() - places["torn"] == KILLS
    assert places["torn"] > 0
    assert len(places) > 7, places


@pytest.mark.slow
def test_two_hundred_kills(bench: Bench) -> None:
    assert len(kill_again_and_again(bench, DEEP_KILLS, SEED + 1)) > 8


def test_the_untouched_trial_is_one_that_says_something(bench: Bench) -> None:
    rows = bench.journals("whole")
    asked = {(arm, seed, f"test{n}") for arm, seeds in ARMS.items() for seed in seeds for n in range(TEST)}
    assert {(row["arm"], row["seed"], row["id"]) for row in rows["answers.jsonl"]} == asked
    assert len({row["answer"] for row in rows["answers.jsonl"]}) > TEST
    assert [len(rows[name]) for name in JOURNALS] == [len(asked), TRIED, LOOKED_AT]
    assert len({json.dumps(scores) for scores in bench.made("whole")["arms"]}) == len(ARMS)
