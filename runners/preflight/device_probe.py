"""Tries the device before a run trusts it: arithmetic, 4-bit layers, one real step. Heavy: imports torch.

Run as ``python -m runners.preflight.device_probe`` by :mod:`runners.preflight.probe_process`, it reads what to try as JSON from stdin and
writes a line of JSON per finding; a crash or a kill ends this process and not the one that asks.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from rag.types import OnEvent
from runners.models import hub

hub.block_hub()

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from runners.inference.weights import default_device, dtype_for, free_gib  # noqa: E402
from runners.models.resolve import Model  # noqa: E402
from runners.plan.train_config import TrainConfig  # noqa: E402
from runners.resources import usage  # noqa: E402
from runners.resources.machine import GIB  # noqa: E402
from runners.tokenization.chat_template import ChatTokenizer, EncodedRow  # noqa: E402


def probe_arithmetic() -> dict[str, Any]:
    """Multiply, forward and back, in the dtype of the run and in fp32, and return how far they are apart."""
    dtype, how = dtype_for()
    where = default_device()
    torch.manual_seed(0)
    a, b = torch.randn(48, 192, device=where), torch.randn(192, 64, device=where)
    found = _products(a.to(dtype), b.to(dtype))
    expected = _products(a.to(dtype).float(), b.to(dtype).float())
    error = max(_apart(x, y) for x, y in zip(found, expected, strict=True))
    name = torch.cuda.get_device_name() if where.type == "cuda" else "CPU"
    return {"device": name, "dtype": str(dtype).removeprefix("torch."), "how": how, "error": error}


def probe_four_bit() -> dict[str, Any]:
    """Put a small layer into nf4, forward and back, and return how far it is from the layer itself."""
    import bitsandbytes

    dtype, _ = dtype_for()
    torch.manual_seed(0)
    plain = nn.Linear(128, 64, bias=False)
    layer = bitsandbytes.nn.Linear4bit(
        128, 64, bias=False, compute_dtype=dtype, quant_type="nf4", compress_statistics=True
    )
    layer.load_state_dict(plain.state_dict())
    layer, plain = layer.to(default_device()), plain.to(default_device())
    x = torch.randn(8, 128, device=default_device()).to(dtype).requires_grad_()
    y = x.detach().float().requires_grad_()
    made, expected = layer(x), plain(y)
    made.float().square().sum().backward()
    expected.square().sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    error = max(_apart(made.detach(), expected.detach()), _apart(x.grad, y.grad))
    return {"version": bitsandbytes.__version__, "error": error}


def probe_prompt(base: Model, messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Return whether transformers, as most servers do, begins an answer with the tokens that training saw."""
    from transformers import AutoTokenizer

    chat = ChatTokenizer(base.folder)
    if not chat.own_template:
        return {"same": True}
    theirs = AutoTokenizer.from_pretrained(base.folder, local_files_only=True, trust_remote_code=False)
    asked = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    return {"same": list(asked) == chat.encode(chat.render(messages, prompt=True))}


def probe_step(
    base: Model, config: TrainConfig, rows: list[EncodedRow], recompute: bool, tell: OnEvent
) -> None:
    """Take real steps: on the longest row, then twice on the whole micro-batch, telling each one's peak.

    Twice, because the first time half of it is preparing for its shapes, and the second tells the run's speed.
    """
    from runners.training import lora
    from runners.training.loss import choose_loss
    from runners.training.optimizer import MasterOptimizer
    from runners.training.runtime import expected_gib

    torch.manual_seed(config.seed)
    held = usage.resident_gib()
    net = lora.prepare_model(base, config, recompute)
    tell({"found": "loaded", "peak_gib": peak_gib()})
    loss = choose_loss(net, rows, kernels=config.kernels)
    expected = expected_gib(base.folder, config, loss, rows, recompute)
    optimizer = MasterOptimizer(
        lora.trainable_parameters(net),
        config.learning_rate,
        config.weight_decay,
        config.max_grad_norm,
        config.optimizer,
        config.lora_plus,
    )
    net.train()
    with usage.measure_contention(torch.get_num_threads()) as others:
        for found, batch in (("row", rows[:1]), ("batch", rows), ("batch", rows)):
            started = time.perf_counter()
            total = loss(batch) / sum(len(row.learnt) for row in batch)
            total.backward()
            value = float(total.detach())
            norm = optimizer.step(1.0)
            seconds, tokens = time.perf_counter() - started, sum(len(row.ids) for row in batch)
            told = {"found": found, "loss": value, "norm": norm, "seconds": seconds, "tokens": tokens}
            told |= {
                "rows": len(batch),
                "peak_gib": peak_gib(),
                "own_gib": training_gib(held),
                "path": loss.path,
            }
            tell({**told, "expected_gib": expected if batch is rows else None})
    # A GPU's steps do not wait for the processor's cores.
    tell({"found": "crowd", "lost": 0.0 if torch.cuda.is_available() else others.lost})


def training_gib(held: float | None) -> float | None:
    """Return the most that training took beside the ``held`` GiB of before: on a GPU in tensors; None if unknown."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / GIB
    return None if held is None else max(0.0, peak_gib() - held)


def peak_gib() -> float:
    """Return the most memory this process has held: on the GPU what was reserved, else the resident set."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved() / GIB
    if (highest := usage.highest_resident_gib()) is not None:
        return highest
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return float(psutil.Process().memory_info().peak_wset) / GIB  # type: ignore[attr-defined]  # Windows has it
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / GIB if sys.platform == "darwin" else most * 1024 / GIB


def main() -> None:
    """Try what stdin asks for and write what is found; libraries' own output goes to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(found: dict[str, Any]) -> None:
        out.write(json.dumps(found) + "\n")
        out.flush()

    asked = json.loads(sys.stdin.read())
    tell({"found": "free", "gib": free_gib()})
    tell({"found": "device", **probe_arithmetic()})
    if asked["four_bit"]:
        tell({"found": "four_bit", **probe_four_bit()})
    base = Model(**{**asked["base"], "folder": Path(asked["base"]["folder"])})
    if asked["messages"]:
        tell({"found": "prompt", **probe_prompt(base, asked["messages"])})
    if asked["rows"]:
        rows = [EncodedRow(tuple(row["ids"]), tuple(row["learnt"]), row["line"]) for row in asked["rows"]]
        probe_step(base, config_from_json(asked["config"]), rows, asked["recompute"], tell)
    tell({"found": "end"})


def config_from_json(settings: dict[str, Any]) -> TrainConfig:
    """Return the settings that :meth:`TrainConfig.to_json` wrote; they were validated before.

    They are not validated again: rank and alpha of an adapter that is continued may be beyond the bounds of what may
    be asked for, as pissa's are after it doubled them.
    """
    targets, begun = settings["targets"], settings["init_adapter"]
    values = {"targets": targets if isinstance(targets, str) else tuple(targets)}
    return TrainConfig.model_construct(
        **{**settings, **values, "init_adapter": Path(begun) if begun else None}
    )


def _products(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    a, b = a.detach().requires_grad_(), b.detach().requires_grad_()
    made = a @ b
    made.float().square().mean().backward()
    assert a.grad is not None
    assert b.grad is not None
    return made.detach(), a.grad, b.grad


def _apart(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference as a share of the largest value; infinite when one is not a number."""
    found, expected = found.float(), expected.float()
    if not bool(torch.isfinite(found).all()):
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


if __name__ == "__main__":
    main()
