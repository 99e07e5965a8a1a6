"""Tokens a second of a running server: one client against several, in turns, each question another.

python benchmarks/serving.py URL --questions FILE [--model NAME] [--clients 8] [--seconds 30] [--rounds 3]
    [--crowd-only] [--pid N [N ...]] [--max-tokens N]

With the server's process id, tokens are also counted per second of its processor time, which holds on a busy machine too,
and its memory and open descriptors are read before and after each window.

It gives the median and the 95th percentile of the seconds to the first words and to the whole answer. For a long run
(`--crowd-only --clients 16 --seconds 600 --rounds 1`) it also counts what went wrong: refusals by status, streams that ended
with an error, lost connections, and answers that differ from what the same question got first. With a server of a backend
behind it, `--pid` takes the processes of both.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil


def load(
    url: str,
    model: str | None,
    questions: list[str],
    clients: int,
    seconds: float,
    max_tokens: int | None = None,
) -> dict[str, Any]:
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
                    **({"max_tokens": max_tokens} if max_tokens else {}),
                }
                begun, first, text, used, error, status = time.monotonic(), 0.0, "", 0, "", ""
                try:
                    with http.stream("POST", "/v1/chat/completions", json=body) as answer:
                        status = str(answer.status_code)
                        for line in answer.iter_lines():
                            if not line.startswith("data: {"):
                                continue
                            event = json.loads(line[6:])
                            error = error or ("stream_error" if event.get("error") else "")
                            for choice in event.get("choices", ()):
                                text += choice["delta"].get("content") or ""
                                first = first or (time.monotonic() - begun if text else 0.0)
                            used = (event.get("usage") or {}).get("completion_tokens", used)
                except httpx.HTTPError as problem:
                    error = type(problem).__name__
                with lock:
                    counts[error or status] += 1
                    tokens += used
                    if not error and status == "200":
                        counts["changed"] += seen.setdefault(question, text) != text
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
        "first_words_s": percentile(firsts, 0.5),
        "first_words_p95_s": percentile(firsts, 0.95),
        "whole_s": percentile(ends, 0.5),
        "whole_p95_s": percentile(ends, 0.95),
        **counts,
    }


def percentile(values: list[float], share: float) -> float | None:
    """The percentile by rank; None where every request failed."""
    return round(sorted(values)[min(len(values) - 1, int(share * len(values)))], 2) if values else None


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
    parser.add_argument("--pid", type=int, nargs="+")
    parser.add_argument("--max-tokens", type=int)
    given = parser.parse_args()
    questions = [json.loads(line)["question"] for line in given.questions.read_text("utf-8").splitlines()]
    load(given.url, given.model, questions, 1, 5, given.max_tokens)
    for _ in range(given.rounds):
        for clients in (given.clients,) if given.crowd_only else (1, given.clients):
            spent, held = cpu_seconds(given.pid), holds(given.pid)
            found = load(given.url, given.model, questions, clients, given.seconds, given.max_tokens)
            if given.pid:
                made = found["tokens_a_second"] * found["seconds"]
                found["tokens_a_cpu_second"] = round(made / (cpu_seconds(given.pid) - spent), 1)
                found["mib_and_descriptors"] = [held, holds(given.pid)]
            print(json.dumps(found), flush=True)


def _processes(pids: list[int] | None) -> list[psutil.Process]:
    """These processes; this one when none are given."""
    return [psutil.Process(pid) for pid in pids] if pids else [psutil.Process()]


def cpu_seconds(pids: list[int] | None) -> float:
    """Processor time of processes so far."""
    times = [process.cpu_times() for process in _processes(pids)]
    return float(sum(time.user + time.system for time in times))


def holds(pids: list[int] | None) -> tuple[int, int]:
    """Resident memory of processes in MiB, and how many descriptors they have open."""
    processes = _processes(pids)
    return sum(p.memory_info().rss for p in processes) >> 20, sum(p.num_fds() for p in processes)


if __name__ == "__main__":
    main()
