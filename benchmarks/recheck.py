"""How well `tunewise recheck` finds planted regressions, and how often it raises an alarm on harmless changes.

Whole rechecks by the command line's own code on finished runs: real documents and questions, real indexes, journals, reports
and exit codes. So that hundreds of them take minutes, the answering model is a reader on the loopback interface that speaks
the OpenAI API (:class:`ReaderServer`): it answers with a question's gold when the passages it was sent hold the gold and its
skill for this question suffices, so that whatever is planted has to reach it through the prompt. One question in eight is
fragile: its answer also depends on every character of the prompt. The embedder is a BERT of a few thousand parameters made
from a config, so most of the search is BM25.

Half of the sets and kinds were used while the decision was written (`--half seen`); the other half is what is reported
(`--half unseen`).

    python -m benchmarks.recheck --data SHARED/data --half unseen --out FILE.json
    python -m benchmarks.recheck --power RUN...      # graded losses drawn from recorded answers, against the stated power
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import random
import re
import shutil
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]
FRAGILE = 8
"""One question in so many is fragile."""
SKILL = 0.85
"""Chance that a question is within the reader's skill when the passages hold its gold."""
QUESTIONS = 90
SYSTEM = "Answer from the passages, in one short sentence. Say nothing else."
SEEN = ("xquad_en", "brand_colours")
UNSEEN = ("xquad_es", "endoflife_dates", "hybrid_concierge")
SEEN_KINDS = ("wrong facts", "fewer passages", "another model", "worse search")
UNSEEN_KINDS = (
    "documents removed",
    "documents cut",
    "prompt broken",
    "short passages",
    "answers cut",
    "older model",
)
HARMLESS = (
    "re-ordered",
    "re-wrapped",
    "renamed",
    "merged",
    "equal prices",
    "other seed",
    "asked again",
    "nothing",
)


class ReaderServer(ThreadingHTTPServer):
    """An OpenAI-compatible model that reads: it answers with the gold that it finds in the passages of its prompt."""

    daemon_threads = True

    def __init__(self, gold: Mapping[str, Sequence[str]]) -> None:
        """Listen on a free port of the loopback interface.

        Args:
            gold: the gold answers by the question's text.
        """
        super().__init__(("127.0.0.1", 0), _Reader)
        self.gold = dict(gold)
        self.asked = 0
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        """The address that a model's name ends with."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    def answer(self, model: str, messages: Rows) -> str:
        """Return the reader's words. A model's name may end with its skill: reader-60."""
        turn = str(messages[-1]["content"])
        passages, _, question = turn.rpartition("\n\nQuestion: ")
        question = question or turn
        match = re.search(r"-(\d+)$", model)
        skill = int(match[1]) / 100 if match else SKILL
        system = str(messages[0]["content"]) if messages[0]["role"] == "system" else ""
        obeyed = re.search(r"answer from the passages", system, re.IGNORECASE)
        if not obeyed:
            skill *= 0.55
        draw = f"{question}" + (f"{model} {messages}" if _share(question + "fragile") < 1 / FRAGILE else "")
        plain = " ".join(passages.split())
        held = next((gold for gold in self.gold.get(question, ()) if " ".join(gold.split()) in plain), None)
        if held is None or _share(draw) >= skill:
            return "The passages tell of something else."
        return held


class _Reader(BaseHTTPRequestHandler):
    server: ReaderServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """List the models."""
        self._reply({"data": [{"id": "reader", "object": "model"}]})

    def do_POST(self) -> None:
        """Answer a chat completion; words beyond max_tokens are cut."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked += 1
        words = self.server.answer(body["model"], body["messages"]).split(" ")
        most = int(body.get("max_tokens") or body.get("max_completion_tokens") or 64)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": " ".join(words[:most])},
            "finish_reason": "length" if len(words) > most else "stop",
        }
        asked = sum(len(str(message["content"]).split()) for message in body["messages"])
        usage = {"prompt_tokens": asked, "completion_tokens": min(most, len(words))}
        self._reply({"choices": [choice], "usage": usage})

    def _reply(self, body: Any) -> None:
        raw = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        with suppress(BrokenPipeError):  # the client was interrupted
            self.wfile.write(raw)


def _share(text: str) -> float:
    """Return a number between 0 and 1 that is always the same for a text."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:12], 16) / 16**12


def small_embedder(folder: Path, texts: Sequence[str]) -> Path:
    """Write a BERT of a few thousand parameters with the commonest words of some texts; return its folder."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import BertConfig, BertModel

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=3000, special_tokens=["[PAD]", "[UNK]"], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=256,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "modules.json").write_text("[]", "utf-8")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}', "utf-8")
    return folder


@dataclass
class Base:
    """A finished run of one set, with what variants are made from."""

    name: str
    run: Path
    plan: dict[str, Any]
    documents: Rows
    server: ReaderServer
    gold_documents: set[str] = field(default_factory=set)


def make_run(name: str, documents: Rows, questions: Rows, work: Path, dev_share: float = 0.1) -> Base:
    """Make a run of a set with the reader, index and report, by the command line's own code."""
    from advisor.report.report import write_report
    from runners.plan.schema import parse_plan
    from runners.run_folder import open_run_folder
    from runners.runs.dataset import read_data
    from runners.trial.execute import run_plan

    folder = work / name
    folder.mkdir(parents=True)
    write_rows(folder / "documents.jsonl", documents)
    write_rows(folder / "questions.jsonl", questions)
    server = ReaderServer(
        {text: row["answers"] for row in questions for text in (row["question"], *row.get("wordings", ()))}
    )
    embedder = small_embedder(folder / "embedder", [row["text"] for row in documents])
    plan = {
        "schema": 1,
        "name": name,
        "choice": "rag",
        "model": {"name": f"openai:reader@{server.url}", "at_once": 1},
        "embedder": {"name": str(embedder)},
        "data": {
            "documents": str(folder / "documents.jsonl"),
            "questions": str(folder / "questions.jsonl"),
            "dev_share": dev_share,
        },
        "prompts": {"system": SYSTEM},
        "steps": [
            {"kind": "index", "k": 3, "lexical_weight": 0.9, "context_tokens": 1200},
            {"kind": "evaluate", "arm": "prompting"},
            {"kind": "evaluate", "arm": "rag", "retrieval": True},
        ],
        "weights": {"fact_recall": 1.0, "token_f1": 1.0},
        "max_new_tokens": 48,
        "forgetting": {"prompts": 0},
    }
    parsed = parse_plan(plan)
    run_plan(parsed, folder / "run")
    # A refusal that is fitted on a few dev questions would hide most of what is planted.
    write_report(open_run_folder(folder / "run"), parsed, read_data(parsed).split.test)
    gold = {str(row.get("doc_id")) for row in questions}
    return Base(name, folder / "run", plan, documents, server, gold)


def load_set(data: Path, name: str) -> tuple[Rows, Rows]:
    """Return documents and answerable questions with short gold of a set, a fixed draw of each."""
    documents = read_rows(data / name / "documents.jsonl")
    questions = [
        row
        for row in read_rows(data / name / "questions.jsonl")
        if row.get("answers") and row.get("doc_id") and row.get("answerable", True)
    ]
    questions = random.Random(f"{name} questions").sample(questions, min(QUESTIONS, len(questions)))
    needed = {row["doc_id"] for row in questions}
    others = [row for row in documents if row["id"] not in needed]
    drawn = random.Random(name).sample(others, min(len(others), 150))
    keep = {row["id"] for row in drawn} | needed
    return [row for row in documents if row["id"] in keep], questions


def read_rows(path: Path) -> Rows:
    """Return the rows of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def write_rows(path: Path, rows: Rows) -> Path:
    """Write rows as JSON lines; return the path."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def planted(base: Base, kind: str, share: float, seed: int, work: Path) -> list[str]:
    """Return the flags of a recheck with a regression of some size; files are written into the work folder."""
    draw = random.Random(f"{base.name} {kind} {seed}")
    gold = [row for row in base.documents if row["id"] in base.gold_documents]
    hit = {row["id"] for row in draw.sample(gold, round(share * len(gold)))}
    documents = work / "documents.jsonl"
    if kind == "documents removed":
        rows = [row for row in base.documents if row["id"] not in hit]
        return ["--documents", str(write_rows(documents, rows)), "--count-lost-gold"]
    if kind == "wrong facts":
        rows = [
            {**row, "text": _wrong(row["text"], base)} if row["id"] in hit else row for row in base.documents
        ]
        return ["--documents", str(write_rows(documents, rows)), "--count-lost-gold"]
    if kind == "documents cut":
        rows = [
            {**row, "text": row["text"][: len(row["text"]) // 8]} if row["id"] in hit else row
            for row in base.documents
        ]
        return ["--documents", str(write_rows(documents, rows)), "--count-lost-gold"]
    if kind == "prompt broken":
        return ["--prompt", draw.choice(("Be brief.", "You are a pirate, matey.", "Write a poem about it."))]
    if kind in ("another model", "older model"):
        return ["--model", f"openai:reader-{round(100 * SKILL * (1 - share))}@{base.server.url}"]
    plan = json.loads(json.dumps(base.plan))
    index = plan["steps"][0]
    if kind == "fewer passages":
        index["k"] = 1
    elif kind == "short passages":
        index["context_tokens"] = round(64 + 300 * (1 - share))
    elif kind == "worse search":
        index["lexical_weight"] = round(0.6 * (1 - share), 2)
    elif kind == "answers cut":
        plan["max_new_tokens"] = 1
    file = work / "plan.json.yaml"
    file.write_text(json.dumps(plan), "utf-8")
    return ["--plan", str(file)]


def _wrong(text: str, base: Base) -> str:
    """Return a text in which every gold answer of the set's questions is replaced."""
    for answers in base.server.gold.values():
        for answer in answers:
            text = text.replace(answer, "something else entirely")
    return text


def harmless(base: Base, kind: str, seed: int, work: Path) -> list[str]:
    """Return the flags of a recheck with a change that touches nothing of meaning."""
    draw = random.Random(f"{base.name} {kind} {seed}")
    rows = [dict(row) for row in base.documents]
    documents = work / "documents.jsonl"
    if kind == "re-ordered":
        draw.shuffle(rows)
        return ["--documents", str(write_rows(documents, rows))]
    if kind == "re-wrapped":
        width = draw.randint(40, 120)
        rows = [{**row, "text": "\n".join(textwrap.wrap(row["text"], width))} for row in rows]
        return ["--documents", str(write_rows(documents, rows))]
    if kind == "renamed":
        chosen = set(draw.sample([row["id"] for row in rows], len(rows) // 3))
        rows = [{**row, "id": f"moved/{row['id']}"} if row["id"] in chosen else row for row in rows]
        return ["--documents", str(write_rows(documents, rows))]
    if kind == "merged":
        draw.shuffle(rows)
        merged = [
            {**one, "text": f"{one['text']}\n\n{two['text']}"}
            for one, two in zip(rows[:20:2], rows[1:20:2], strict=True)
        ]
        return ["--documents", str(write_rows(documents, [*merged, *rows[20:]]))]
    if kind == "equal prices":
        file = work / "facts.yaml"
        file.write_text("prices: []\n", "utf-8")
        return ["--prices", str(file)]
    if kind == "other seed":
        plan = {**base.plan, "seed": draw.randint(1, 10_000)}
        file = work / "plan.yaml"
        file.write_text(json.dumps(plan), "utf-8")
        return ["--plan", str(file)]
    if kind == "asked again":
        # As on another machine: the reader's fragile questions are drawn anew.
        return ["--model", f"openai:{draw.randint(0, 10**6)}-reader@{base.server.url}", "--ask-all"]
    return []


def recheck_once(base: Base, flags: Sequence[str], work: Path) -> dict[str, Any]:
    """Recheck in this process as the command line does; return its result and exit code, and leave no folder."""
    from advisor import cli, output

    out, errors = work / "out", io.StringIO()
    printed = io.StringIO()
    code: Any = 0
    with redirect_stdout(printed), redirect_stderr(errors):
        try:
            cli.main(["recheck", str(base.run), *flags, "--out", str(out), "--json", "--quiet"])
        except SystemExit as end:
            code = end.code or 0
        finally:
            output.configure_output()
    shutil.rmtree(out, ignore_errors=True)
    if not printed.getvalue():
        raise RuntimeError(f"{base.name} {flags}: exit {code}: {errors.getvalue()}")
    return {**json.loads(printed.getvalue()), "exit": code}


def _row(base: Base, kind: str, result: Mapping[str, Any], share: float | None = None) -> dict[str, Any]:
    arm = next(arm for arm in result["arms"] if arm["arm"] == "rag")
    power = next(row for row in result["power"] if row["arm"] == "rag")
    return {
        "set": base.name,
        "kind": kind,
        "size": share,
        "exit": result["exit"],
        "outcome": result["outcome"],
        "asked": arm["asked_again"],
        "right": arm["right"],
        "lost": arm["right"]["before"] - arm["right"]["now"],
        "found_from": power["answers"],
        "needs_new_gold": result["questions"]["needs_new_gold"],
    }


def carry_out(
    data: Path, half: str, planted_count: int, harmless_count: int, out: Path, sets: Sequence[str] = ()
) -> None:
    """Make the runs of a half, recheck them with every change, and write one row for each."""
    names = sets or (SEEN if half == "seen" else UNSEEN)
    kinds = SEEN_KINDS if half == "seen" else UNSEEN_KINDS
    rows: Rows = []
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        bases = [make_run(name, *load_set(data, name), Path(folder)) for name in names]

        def each(
            count: int,
            of: Sequence[str],
            flags: Callable[[Base, str, int, Path], tuple[list[str], float | None]],
        ) -> None:
            for number in range(count):
                base, kind = bases[number % len(bases)], of[number // len(bases) % len(of)]
                work = Path(folder) / "work"
                work.mkdir()
                given, share = flags(base, kind, number, work)
                rows.append(_row(base, kind, recheck_once(base, given, work), share))
                shutil.rmtree(work)
                out.write_text(
                    json.dumps({"half": half, "seconds": time.time() - started, "rows": rows}), "utf-8"
                )

        shares = (0.15, 0.25, 0.4, 0.6, 0.9)
        each(
            planted_count,
            kinds,
            lambda b, k, n, w: (planted(b, k, shares[n % len(shares)], n, w), shares[n % len(shares)]),
        )
        each(harmless_count, HARMLESS, lambda b, k, n, w: (harmless(b, k, n, w), None))
    summarise(rows)


def summarise(rows: Rows) -> None:
    """Print what was found and what was a false alarm, by kind, and the share found against the stated power."""
    changes = [row for row in rows if row["size"] is not None]
    large = [row for row in changes if row["found_from"] and row["lost"] >= row["found_from"]]
    small = [row for row in changes if row not in large]
    print(f"planted: {len(changes)}, alarm in {_found(changes)}")
    print(f"  loss as large as the stated one: alarm in {_found(large)} of {len(large)} (stated: 80 %)")
    print(f"  smaller loss, or none: alarm in {_found(small)} of {len(small)}")
    same = [row for row in rows if row["size"] is None]
    print(f"harmless: {len(same)}, alarm in {_found(same)}; asked again {sum(row['asked'] for row in same)}")
    for kind in dict.fromkeys(row["kind"] for row in rows):
        of = [row for row in rows if row["kind"] == kind]
        lost = sorted(row["lost"] for row in of)
        print(
            f"  {kind}: {len(of)}, alarm {_found(of)}, right answers lost {lost}, asked {sorted(row['asked'] for row in of)}"
        )


def _found(rows: Rows) -> int:
    return sum(row["exit"] == 5 for row in rows)


def check_power(runs: Sequence[Path], draws: int = 100) -> None:
    """Draw losses of the stated size from recorded answers, and print how many are found."""
    from dataclasses import replace

    import numpy as np

    from advisor.report.data import read_scores
    from advisor.verdict.regression import LEVEL, RIGHT, paired_changes, smallest_found_loss

    for run in runs:
        for arm in read_scores(run):
            if sum(arm.of(RIGHT)) < 8:
                continue
            stated = smallest_found_loss(arm, ())
            if stated is None:
                continue
            rng = np.random.default_rng(1)
            alarms = dict.fromkeys(("half", "stated", "twice"), 0)
            for size, factor in (("half", 0.5), ("stated", 1.0), ("twice", 2.0)):
                chance = min(1.0, factor * stated.answers / stated.right)
                for _ in range(draws):
                    lost = rng.random(len(arm.scores)) < chance
                    scores = tuple(
                        {**row, RIGHT: 0.0} if gone and row.get(RIGHT) else row
                        for row, gone in zip(arm.scores, lost, strict=True)
                    )
                    combined = tuple(0.0 if g else c for c, g in zip(arm.combined, lost, strict=True))
                    changes = paired_changes([(arm, replace(arm, scores=scores, combined=combined))])
                    alarms[size] += any(change.sure_loss(0.0) for change in changes)
            shares = {size: count / draws for size, count in alarms.items()}
            text = f"{stated.answers} of {stated.right} right, {len(arm.scores)} questions"
            print(f"{run.parent.name} {arm.arm}: {text}, level {LEVEL}: {shares}", flush=True)


def main() -> None:
    """Run one of the parts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--half", choices=("seen", "unseen"), default="unseen")
    parser.add_argument("--sets", nargs="*", default=(), help="these sets in place of the half's")
    parser.add_argument("--planted", type=int, default=100)
    parser.add_argument("--harmless", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("recheck-benchmark.json"))
    parser.add_argument("--power", type=Path, nargs="*")
    parser.add_argument("--show", type=Path, help="print the summary of a file that was written before")
    given = parser.parse_args()
    if given.show:
        summarise(json.loads(given.show.read_text("utf-8"))["rows"])
    elif given.power:
        check_power(given.power)
    else:
        carry_out(given.data, given.half, given.planted, given.harmless, given.out, given.sets)


if __name__ == "__main__":
    main()
