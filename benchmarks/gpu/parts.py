"""The parts of the acceptance run: each measures one thing in a process of its own and returns rows of a table."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu import models
from runners.data.examples import Example
from runners.data.formats import Message
from runners.models.resolve import Model

Row = dict[str, Any]
"""What is measured, of which family, by whom, the number with its unit, and what it is compared with."""
SEED = 14


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a part runs, and how much it does."""

    work: Path
    """Folder of models and runs, kept between parts."""
    device: str
    """cuda, or cpu to check this script with tiny models."""
    results: Path
    """Folder of what was measured on this card and commit."""

    @property
    def tiny(self) -> bool:
        """Whether the models and the amounts are small."""
        return self.device == "cpu"

    def amount(self, real: int, tiny: int) -> int:
        """Return one of two amounts."""
        return tiny if self.tiny else real

    def model(self, family: str) -> Model:
        """Return the model of a family."""
        return models.model_of(family, self.work / f"{family}{'-tiny' if self.tiny else ''}", self.tiny)


def train_part(method: str) -> Callable[[Setting], list[Row]]:
    """Return the part that trains both families by a method: this project, the plain Trainer, TRL where installed."""

    def measure(setting: Setting) -> list[Row]:
        rows: list[Row] = []
        for family in models.FAMILIES:
            own = {"lora": "tunewise", "qlora": "qlora", "full": "full"}[method]
            others = {"lora": ["trainer", "trl"], "qlora": [], "full": ["trainer-full"]}[method]
            for name in (own, *others):
                if name == "trl" and importlib.util.find_spec("trl") is None:
                    rows.append(
                        table_row(family, f"train {method}", "trl", None, "tokens/s", "TRL is not installed")
                    )
                    continue
                result = _contend_in_child(setting, f"train-{method}", family, name)
                if "failed" in result:
                    rows.append(
                        table_row(family, f"train {method}", name, None, "tokens/s", result["failed"])
                    )
                    continue
                note = f"validation loss {result['valid_loss']:.4f}"
                if speed := result.get("expected_tokens_per_s"):
                    note += f"; estimated {speed:,.0f} tokens/s, {result['tokens_per_s'] / speed:.2f} of it measured"
                rows.append(
                    table_row(family, f"train {method}", name, result["tokens_per_s"], "tokens/s", note)
                )
                memory = result.get("device_gib") or result["peak_gib"]
                expected = result.get("expected_gib")
                note = (
                    f"estimated {expected:.2f} GiB, {memory / expected:.2f} of it measured"
                    if expected
                    else ""
                )
                rows.append(table_row(family, f"train {method}", name, memory, "GiB", note))
        return rows

    return measure


def training_task(setting: Setting, family: str) -> Any:
    """Return the training task of a family: chats of random words of this repository's documentation."""
    from benchmarks.contenders import BATCH, Task
    from runners.tokenization.chat_template import ChatTokenizer

    steps = setting.amount(20, 2)
    base = setting.model(family)
    drawn = _words()
    generator = random.Random(SEED)

    def example(number: int) -> Example:
        # Rows of unequal length: 40 to 300 words asked, 20 to 120 answered.
        asked, answered = generator.randint(40, 300), generator.randint(20, 120)
        if setting.tiny:
            asked, answered = asked // 10, answered // 10
        messages: tuple[Message, ...] = (
            {"role": "user", "content": " ".join(generator.choices(drawn, k=asked))},
            {"role": "assistant", "content": " ".join(generator.choices(drawn, k=answered))},
        )
        return Example(messages, {}, number)

    rows = tuple(example(number) for number in range(steps * BATCH + 16))
    return Task(base, ChatTokenizer(base.folder), rows[: steps * BATCH], rows[steps * BATCH :], steps)


def decode_part(setting: Setting) -> list[Row]:
    """Decode greedily: batched and one by one, in turns with transformers' generate on the same prompts."""
    import torch

    from runners.inference.local import LocalGenerator

    rows: list[Row] = []
    count, tokens = setting.amount(32, 4), setting.amount(96, 8)
    for family in models.FAMILIES:
        base = setting.model(family)
        generator = random.Random(SEED)
        chats: list[list[Message]] = [
            [{"role": "user", "content": " ".join(generator.choices(_words(), k=generator.randint(20, 200)))}]
            for _ in range(count)
        ]
        answers: dict[str, list[str]] = {}
        seconds: dict[str, list[float]] = {}
        for _ in range(setting.amount(3, 1)):
            for name in ("auto", "plain"):  # in turns, so that other work falls on both
                own = LocalGenerator(base, kernels=name)
                own.generate(chats[:2], 2)
                for way in ("batched", "one by one"):
                    some = chats if way == "batched" else chats[: max(2, count // 8)]
                    _synchronize(torch)
                    started = time.perf_counter()
                    if way == "batched":
                        done = own.generate(some, tokens)
                    else:
                        done = [own.stream(chat, tokens).finish() for chat in some]
                    _synchronize(torch)
                    took = time.perf_counter() - started
                    key = f"{way}, {name}"
                    produced = sum(completion.completion_tokens for completion in done)
                    seconds.setdefault(key, []).append(produced / took)
                    answers[key] = [completion.text for completion in done]
                del own
        for key, speeds in seconds.items():
            plain = answers[key.replace("auto", "plain")]
            same = sum(a == b for a, b in zip(answers[key], plain, strict=True))
            note = f"{same} of {len(plain)} answers are the plain path's"
            rows.append(table_row(family, "decode", key, statistics.median(speeds), "tokens/s", note))
    return rows


def embed_part(setting: Setting) -> list[Row]:
    """Embed texts of unequal length, in turns with sentence-transformers on the same folder.

    All are within the folder's length: longer ones are embedded in parts here, and cut by the library.
    """
    import numpy as np
    import torch
    from sentence_transformers import SentenceTransformer

    from rag.embedding.embedder import Embedder

    folder = models.embedder_folder(setting.work / f"embedder{'-tiny' if setting.tiny else ''}", setting.tiny)
    generator = random.Random(SEED)
    texts = [
        " ".join(generator.choices(_words(), k=generator.randint(3, 60)))
        for _ in range(setting.amount(20_000, 40))
    ]
    own = Embedder(folder)
    library = SentenceTransformer(str(folder), device=setting.device)
    ways: dict[str, Callable[[], Any]] = {
        "tunewise": lambda: own.encode(texts),
        "sentence-transformers": lambda: library.encode(
            texts, show_progress_bar=False, normalize_embeddings=True
        ),
    }
    speeds: dict[str, list[float]] = {}
    vectors: dict[str, Any] = {}
    for _ in range(setting.amount(3, 1)):
        for name, encode in ways.items():
            started = time.perf_counter()
            vectors[name] = np.asarray(encode())
            _synchronize(torch)
            speeds.setdefault(name, []).append(len(texts) / (time.perf_counter() - started))
    apart = float(np.abs(vectors["tunewise"] - vectors["sentence-transformers"]).max())
    return [
        table_row(
            "bert", "embed", name, statistics.median(values), "texts/s", f"largest difference {apart:.1e}"
        )
        for name, values in speeds.items()
    ]


def serve_part(setting: Setting) -> list[Row]:
    """Serve a run of the prompting arm over HTTP and load it with one client and with eight."""
    import httpx

    from benchmarks.serving import load

    rows: list[Row] = []
    for family in models.FAMILIES:
        run = _prompting_run(setting, family)
        port = _free_port()
        command = [sys.executable, "-m", "advisor", "serve", str(run), "--port", str(port)]
        log = (setting.work / f"serve-{family}.log").open("wb")
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            until = time.monotonic() + 180
            while True:
                try:
                    if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                        break
                except httpx.HTTPError:
                    pass
                if server.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"the server did not start; see {log.name}")
                time.sleep(0.5)
            questions = [" ".join(random.Random(n).choices(_words(), k=30)) for n in range(64)]
            load(url, "prompting", questions, 1, setting.amount(5, 2))
            for clients in (1, 8):
                result = load(url, "prompting", questions, clients, setting.amount(30, 4))
                note = f"{result['answers']} answers, first words after {result['first_words_s']} s"
                rows.append(
                    table_row(
                        family, "serve", f"{clients} clients", result["tokens_a_second"], "tokens/s", note
                    )
                )
        finally:
            server.terminate()
            server.wait(60)
            log.close()
    return rows


def tests_part(setting: Setting) -> list[Row]:
    """Run the tests that need a GPU: ``pytest --gpu tests/gpu``."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n0", "tests/gpu"]
    command += [] if setting.tiny else ["--gpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-300:]
    return [table_row("all", "tests", "pytest --gpu", float(done.returncode), "exit status", last)]


def child_contender(setting: Setting, family: str, name: str) -> dict[str, Any]:
    """Train as one contender in this process; return its speed, loss and memory."""
    import torch

    from benchmarks import contenders

    task = training_task(setting, family)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    result: dict[str, Any] = dict(contenders.contend(name, task))
    if torch.cuda.is_available():
        result["device_gib"] = torch.cuda.max_memory_allocated() / 2**30
    if "expected_gib" in result:
        method = "lora" if name == "tunewise" else name
        result["expected_tokens_per_s"] = expected_tokens_per_s(task, method)
    return result


def expected_tokens_per_s(task: Any, method: str) -> float:
    """Return the estimated training speed from the matrix speed of this machine, measured now."""
    from advisor.costs.training_time import measured_device, tokens_per_second
    from runners.models.fingerprint import read_json
    from runners.resources.calibration import calibrate
    from runners.resources.model_shape import read_shape

    measured = calibrate()
    device = measured_device(measured.cuda or measured.cpu, measured.day.isoformat())
    shape = read_shape(read_json(task.base.folder / "config.json"))
    return tokens_per_second(shape, method, task.tokens / len(task.train), device).likely


def _contend_in_child(setting: Setting, part: str, family: str, name: str) -> dict[str, Any]:
    """Run a contender in a process of its own, so that its peak memory is its own; keep its result for a resumed run."""
    out = setting.results / f"{part}-{family}-{name}.json"
    if not out.is_file():
        command = [
            sys.executable,
            "-m",
            "benchmarks.gpu",
            "--work",
            str(setting.work),
            "--device",
            setting.device,
        ]
        command += ["--contender", f"{family}:{name}", "--out", str(out)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            return {"failed": " ".join(done.stderr.split())[-300:]}
    result: dict[str, Any] = json.loads(out.read_text("utf-8"))
    return result


def _prompting_run(setting: Setting, family: str) -> Path:
    """Return a finished run of the prompting arm on a family's model."""
    import runners
    from runners.plan.schema import parse_plan
    from runners.run_folder import is_run

    run = setting.work / f"run-{family}-{setting.device}"
    if not is_run(run) or not (run / "manifest.json").is_file():
        questions = setting.work / "questions.jsonl"
        rows = [
            {"id": f"q{n}", "question": f"What is {n} plus {n}?", "answers": [str(2 * n)]} for n in range(8)
        ]
        questions.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        body = {
            "name": f"gpu-{family}",
            "choice": "prompting",
            "model": {"name": str(setting.model(family).folder)},
            "data": {"questions": str(questions)},
            "weights": {"token_f1": 1},
            "steps": [{"kind": "evaluate", "arm": "prompting"}],
        }
        runners.run(parse_plan(body), run, overwrite=run.exists())
    return run


def table_row(family: str, what: str, by: str, value: float | None, unit: str, note: str = "") -> Row:
    """Return a row of the table; ``value`` None where there is no measurement, with the reason in ``note``."""
    return {"family": family, "what": what, "by": by, "value": value, "unit": unit, "note": note}


def _words() -> list[str]:
    """Return the words of the documentation, from which prompts are drawn."""
    root = Path(__file__).resolve().parents[2]
    return (root / "docs" / "tutorial.md").read_text("utf-8").split()


def _free_port() -> int:
    """Return a port of the loopback interface that is free now."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _synchronize(torch: Any) -> None:
    """Wait until the GPU has done what was sent to it, so that a time holds it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


PARTS: dict[str, Callable[[Setting], list[Row]]] = {
    "tests": tests_part,
    "train-lora": train_part("lora"),
    "train-full": train_part("full"),
    "train-qlora": train_part("qlora"),
    "decode": decode_part,
    "embed": embed_part,
    "serve": serve_part,
}
"""Every part by name, in the order they run in."""
