"""Tokens a second of a running server: one client against several, in turns, each question another.

python benchmarks/serving.py URL --questions FILE [--model NAME] [--clients 8] [--seconds 30] [--rounds 3]
    [--crowd-only] [--pid N]

With the server's process id, tokens are also counted per second of its processor time, which holds on a busy machine too,
and its memory and open descriptors are read before and after each window.

For a long run (`--crowd-only --seconds 120 --rounds 5`) it also counts what went wrong: refusals by status, and answers
that differ from what the same question got first.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil


def load(url: str, model: str | None, questions: list[str], clients: int, seconds: float) -> dict[str, Any]:
    """Ask from many threads until the time is over; return rates, times to first words and to the end, and counts."""
    until, started = time.monotonic() + seconds, time.monotonic()
    lock, counts, place = threading.Lock(), Counter[str](), iter(range(1 << 30))
    firsts: list[float] = []
    ends: list[float] = []
    tokens = 0
    seen: dict[str, str] = {}

    def client() -> None:
        nonlocal tokens
        with httpx.Client(base_url=url, timeout=300) as http:
            while time.monotonic() < until:
                with lock:
                    question = questions[next(place) % len(questions)]
                body = {
                    "model": model,
                    "stream": True,
                    "stream_options": {"include_usage": True},
                    "messages": [{"role": "user", "content": question}],
                }
                begun, first, text, used = time.monotonic(), 0.0, "", 0
                with http.stream("POST", "/v1/chat/completions", json=body) as answer:
                    for line in answer.iter_lines():
                        if not line.startswith("data: {"):
                            continue
                        event = json.loads(line[6:])
                        for choice in event.get("choices", ()):
                            text += choice["delta"].get("content") or ""
                            first = first or (time.monotonic() - begun if text else 0.0)
                        used = (event.get("usage") or {}).get("completion_tokens", used)
                with lock:
                    counts[str(answer.status_code)] += 1
                    counts["changed"] += seen.setdefault(question, text) != text
                    tokens += used
                    firsts.append(first)
                    ends.append(time.monotonic() - begun)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - started
    return {
        "clients": clients,
        "seconds": round(took, 1),
        "answers": len(ends),
        "answers_a_second": round(len(ends) / took, 2),
        "tokens_a_second": round(tokens / took, 1),
        "first_words_s": round(median(firsts), 2),
        "whole_s": round(median(ends), 2),
        **counts,
    }


def main() -> None:
    """Measure in turns and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--model")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--crowd-only", action="store_true")
    parser.add_argument("--pid", type=int)
    given = parser.parse_args()
    questions = [json.loads(line)["question"] for line in given.questions.read_text("utf-8").splitlines()]
    load(given.url, given.model, questions, 1, 5)
    for _ in range(given.rounds):
        for clients in (given.clients,) if given.crowd_only else (1, given.clients):
            spent, held = cpu_seconds(given.pid), holds(given.pid)
            found = load(given.url, given.model, questions, clients, given.seconds)
            if given.pid:
                made = found["tokens_a_second"] * found["seconds"]
                found["tokens_a_cpu_second"] = round(made / (cpu_seconds(given.pid) - spent), 1)
                found["mib_and_descriptors"] = [held, holds(given.pid)]
            print(json.dumps(found), flush=True)


def cpu_seconds(pid: int | None) -> float:
    """Processor time of a process so far."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def holds(pid: int | None) -> tuple[int, int]:
    """Resident memory of a process in MiB, and how many descriptors it has open."""
    process = psutil.Process(pid)
    return process.memory_info().rss >> 20, process.num_fds()


if __name__ == "__main__":
    main()
