"""`tunewise serve` as a process: what it refuses, where it listens, how it stops."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import advisor
from advisor import cli
from tests.support.limits import HANG_S

PACKAGES = Path(advisor.__file__).resolve().parent.parent


class Process:
    """`tunewise serve` in a child process that listens; the code `before` runs in it first."""

    child: subprocess.Popen[str]

    def __init__(self, *arguments: object, before: str = "") -> None:
        code = f"{before}\nfrom advisor import cli\ncli.main()"
        line = [sys.executable, "-P", "-c", code, "serve", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(PACKAGES), "OMP_NUM_THREADS": "1"}
        self.child = subprocess.Popen(
            line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.log: list[str] = []
        assert self.child.stderr is not None
        for text in self.child.stderr:
            self.log.append(text)
            if match := re.search(r"on (http://\S+)", text):
                self.url = match[1]
                break
        else:
            pytest.fail("".join(self.log))

    def end(self, number: int) -> tuple[int, str]:
        """Send a signal; return the exit code and all output."""
        self.child.send_signal(number)
        out, err = self.child.communicate(timeout=HANG_S)
        return self.child.returncode, "".join(self.log) + err + out


@pytest.fixture(scope="module")
def process(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A server with a token file that it creates."""
    token = tmp_path_factory.mktemp("key") / "token"
    started = Process(run, "--port", "0", "--token", token)
    started.token = token.read_text().strip()  # type: ignore[attr-defined]
    yield started
    started.child.kill()
    started.child.communicate()


def test_sigterm_finishes_a_running_answer(process: Any) -> None:
    assert process.url.startswith("http://127.0.0.1:")
    assert any(line == "loading embedder, the index, model with lora-s0\n" for line in process.log)
    headers = {"Authorization": f"Bearer {process.token}"}
    assert httpx.get(f"{process.url}/health", timeout=HANG_S).status_code == 401
    body = {"model": "model", "prompt": "The", "max_tokens": 400, "stream": True, "temperature": 2, "seed": 5}
    ended: dict[str, Any] = {}
    with httpx.stream(
        "POST", f"{process.url}/v1/completions", json=body, headers=headers, timeout=HANG_S
    ) as answer:
        lines = answer.iter_lines()
        next(lines)
        stopping = threading.Thread(target=lambda: ended.update(end=process.end(signal.SIGTERM)))
        stopping.start()
        rest = [line for line in lines if line]
    stopping.join(HANG_S)
    assert rest[-1] == "data: [DONE]"
    assert '"finish_reason": "length"' in rest[-2] or '"finish_reason": "stop"' in rest[-2]
    code, output = ended["end"]
    assert code == 0
    assert "stopped" in output
    assert "Traceback" not in output
    assert process.token not in output
    assert "fresh token" in output
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{process.url}/health")


def test_server_survives_a_closed_stderr(run: Path) -> None:
    process = Process(run, "--port", "0")
    try:
        assert process.child.stderr is not None
        process.child.stderr.close()
        with httpx.Client(base_url=process.url, timeout=HANG_S) as http:
            assert http.post("/v1/embeddings", json={"input": "hi", "dimensions": 5}).status_code == 400
            turns = [{"role": "user", "content": "Hello?"}]
            assert http.post("/v1/chat/completions", json={"messages": turns}).status_code == 200
            assert http.get("/health").status_code == 200
        process.child.send_signal(signal.SIGTERM)
        assert process.child.wait(HANG_S) == 0
    finally:
        process.child.kill()
        process.child.wait()
        assert process.child.stdout is not None
        process.child.stdout.close()


ENDLESS = """
from runners.inference.local import LocalGenerator

def endless(*arguments, **named):
    import torch
    matrix = torch.ones(1000, 1000)
    print("prefill", flush=True)
    while True:
        matrix @ matrix

LocalGenerator._tokens_of = LocalGenerator.decode_batch = endless
"""
"""A prefill that says that it has begun, and does not end."""


def test_sigterm_during_prefill_exits_cleanly(run: Path) -> None:
    process = Process(run, "--port", "0", before=ENDLESS)
    try:
        with pytest.raises(httpx.ReadTimeout):  # after which the client leaves
            httpx.post(f"{process.url}/v1/completions", json={"model": "model", "prompt": "The"}, timeout=2)
        code, output = process.end(signal.SIGTERM)
        assert (code, "stopped" in output) == (0, True)
        assert "terminate called" not in output
    finally:
        process.child.kill()
        process.child.wait()


def run_refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Run `serve` in this process; return its exit code and stderr."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["serve", *map(str, arguments)])
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return int(stop.value.code or 0), message


def test_refusals_come_before_any_model_is_loaded(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], served: Any
) -> None:
    assert run_refused(capsys, run, "--host", "0.0.0.0")[0] == 2
    code, message = run_refused(capsys, tmp_path / "none")
    assert (code, "does not exist" in message) == (3, True)
    loose = tmp_path / "token"
    loose.write_text("a-token-that-is-long-enough")
    loose.chmod(0o644)
    code, message = run_refused(capsys, run, "--token", loose)
    assert (code, "chmod 600" in message) == (3, True)
    assert "a-token-that" not in message
    code, message = run_refused(capsys, run, "--port", served.url.rpartition(":")[2])
    assert (code, "--port 0" in message) == (4, True)


def test_missing_extra_is_named(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    code, message = run_refused(capsys, run)
    assert code == 4
    assert "fastapi" in message
    assert 'pip install "tunewise[serve]"' in message


def test_help_imports_no_server_packages() -> None:
    code = (
        "import sys\nfrom advisor import cli\n"
        "try:\n    cli.main(['serve', '--help'])\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('fastapi', 'uvicorn', 'torch', 'starlette', 'prometheus_client') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGES, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "--token" in done.stdout
