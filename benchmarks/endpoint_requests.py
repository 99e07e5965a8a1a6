"""What a request to an endpoint costs this process: two versions of the code, in turns, against a server on this machine.

python benchmarks/endpoint_requests.py --old FOLDER [--requests 500] [--rounds 10]

FOLDER is a checkout of another commit (`git archive COMMIT advisor runners rag | tar -x -C FOLDER`). Each version runs in a
process of its own and sends the same requests in blocks that alternate, so that a busy machine slows both. Printed are the
processor and the wall time of one request in this process, as medians over the blocks, and the median of the ratios of two
blocks side by side; and the processor time and memory of the first request of a new process, imports and all, as the least
of five.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ANSWER = {
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "It is open until nine. " * 20},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 900, "completion_tokens": 120},
}
EVENTS = [
    *({"choices": [{"index": 0, "delta": {"content": f" word{n}"}}]} for n in range(120)),
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"choices": [], "usage": ANSWER["usage"]},
]
CHAT = [
    {"role": "system", "content": "Answer from the passages. " * 10},
    {"role": "user", "content": "The ferry leaves at nine. " * 150 + "When does it leave?"},
]

WORKER = """
import json, os, sys, time
url, chat = sys.argv[1], json.loads(sys.argv[2])
from runners.inference.http_client import RequestLimits
from runners.inference.remote import RemoteGenerator
generator = RemoteGenerator(url, "tern-2", RequestLimits(at_once=1), key="sk-none")
generator.generate([chat], 5)
import psutil
first = {"cpu": time.process_time(), "mib": psutil.Process().memory_info().rss / 2**20}
print(json.dumps(first), flush=True)
for line in sys.stdin:
    kind, count = line.split()
    cpu, wall = time.process_time(), time.perf_counter()
    if kind == "stream":
        for _ in range(int(count)):
            generator.stream(chat, 5).finish()
    else:
        generator.generate([chat] * int(count), 5)
    each = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    print(json.dumps({name: 1000 * seconds / int(count) for name, seconds in each.items()}), flush=True)
"""


def serve(listener: socket.socket) -> None:
    """Answer every request with the same answer or stream; connections are kept."""
    whole = json.dumps(ANSWER).encode()
    stream = (
        b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in EVENTS) + b"data: [DONE]\n\n"
    )

    def connection(client: socket.socket) -> None:
        data = b""
        with client:
            while True:
                while b"\r\n\r\n" not in data:
                    part = client.recv(1 << 16)
                    if not part:
                        return
                    data += part
                head, _, body = data.partition(b"\r\n\r\n")
                fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
                while len(body) < int(fields[b"content-length"]):
                    body += client.recv(1 << 16)
                answer = stream if b'"stream":true' in body.replace(b" ", b"") else whole
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)
                data = b""

    while True:
        client, _ = listener.accept()
        threading.Thread(target=connection, args=(client,), daemon=True).start()


def start(folder: Path, url: str) -> tuple[subprocess.Popen[str], dict[str, float]]:
    """Start a version of the code; return its process and what its first request cost."""
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, url, json.dumps(CHAT)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout is not None
    return worker, json.loads(worker.stdout.readline())


def ask(worker: subprocess.Popen[str], kind: str, count: int) -> dict[str, float]:
    """Return the milliseconds of one request of a block."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(f"{kind} {count}\n")
    worker.stdin.flush()
    result: dict[str, float] = json.loads(worker.stdout.readline())
    return result


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--old", type=Path, required=True)
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", 0))
    if (server := os.fork()) == 0:
        serve(listener)
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        compare({"old": options.old.resolve(), "new": ROOT}, url, options.requests, options.rounds)
    finally:
        os.kill(server, 15)


def compare(folders: dict[str, Path], url: str, requests: int, rounds: int) -> None:
    """Print the cost of the first request and of each further one, of both versions."""
    firsts: dict[str, list[dict[str, float]]] = {name: [] for name in folders}
    for _ in range(5):
        for name, folder in folders.items():
            worker, first = start(folder, url)
            worker.communicate("")
            firsts[name].append(first)
    for name, costs in firsts.items():
        least = {key: min(cost[key] for cost in costs) for key in ("cpu", "mib")}
        print(f"first request, {name}: {least['cpu']:.2f} s of processor time, {least['mib']:.0f} MiB")
    workers = {name: start(folder, url)[0] for name, folder in folders.items()}
    for kind in ("object", "stream"):
        count = max(1, requests // rounds)
        for worker in workers.values():
            ask(worker, kind, 20)
        blocks: list[dict[str, Any]] = []
        for number in range(rounds):
            order = sorted(workers, reverse=bool(number % 2))
            blocks.append({name: ask(workers[name], kind, count) for name in order})
        for what in ("cpu", "wall"):
            old, new = (statistics.median(block[name][what] for block in blocks) for name in ("old", "new"))
            ratio = statistics.median(block["new"][what] / block["old"][what] for block in blocks)
            print(
                f"{kind}, {what}: old {old:.2f} ms, new {new:.2f} ms, ratio {ratio:.2f} ({rounds} x {count})"
            )
    for worker in workers.values():
        worker.communicate("")


if __name__ == "__main__":
    main()
