"""Probe of the device before a training run: arithmetic, 4-bit layers, the prompt, and real training steps.

Run as ``python -m runners.preflight.device_probe`` by :mod:`runners.preflight.probe_process`, it reads what to probe as
JSON from stdin and writes one line of JSON per finding to stdout, its kind under "found"; a crash or a kill ends this
process and not the parent. Imports torch.
"""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rag.types import OnEvent
from runners.inference.weights import default_device, dtype_for, free_gib
from runners.models.resolve import Model
from runners.plan.train_config import TrainConfig
from runners.resources import usage
from runners.resources.device import device_counters, device_kind, device_name, loss_scaler
from runners.resources.machine import GIB
from runners.tokenization.chat_template import ChatTokenizer, EncodedRow
from runners.tokenization.template_features import FIXED_DATE


def probe_arithmetic() -> dict[str, Any]:
    """Return device, dtype, and the error of a product, forward and backward, in that dtype relative to fp32."""
    dtype, how = dtype_for()
    device = default_device()
    torch.manual_seed(0)
    a, b = torch.randn(48, 192, device=device), torch.randn(192, 64, device=device)
    products = _products(a.to(dtype), b.to(dtype))
    # The same rounded inputs in fp32, so that only the arithmetic is compared.
    expected = _products(a.to(dtype).float(), b.to(dtype).float())
    error = max(_relative_error(x, y) for x, y in zip(products, expected, strict=True))
    return {
        "device": device_name().replace("cpu", "CPU"),
        "dtype": str(dtype).removeprefix("torch."),
        "how": how,
        "error": error,
    }


def probe_four_bit() -> dict[str, Any]:
    """Return the version of bitsandbytes, and the error of a small nf4 layer, forward and backward, relative to fp32."""
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
    output, expected = layer(x), plain(y)
    output.float().square().sum().backward()
    expected.square().sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    error = max(
        _relative_error(output.detach(), expected.detach()),
        _relative_error(x.grad, y.grad),
    )
    return {"version": bitsandbytes.__version__, "error": error}


def probe_prompt(base: Model, messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Return whether transformers, which most servers use, begins an answer with the tokens that training saw."""
    from transformers import AutoTokenizer

    chat = ChatTokenizer(base.folder)
    if not chat.own_template:
        return {"same": True}
    tokenizer = AutoTokenizer.from_pretrained(base.folder, local_files_only=True, trust_remote_code=False)
    prompt = tokenizer.apply_chat_template(
        chat.adapt(messages),
        add_generation_prompt=True,
        return_dict=False,
        strftime_now=date.fromisoformat(FIXED_DATE).strftime,
        **chat.features.chosen(chat.thinking),
    )
    return {"same": list(prompt) == chat.encode(chat.render(messages, prompt=True))}


def probe_step(
    base: Model, config: TrainConfig, rows: list[EncodedRow], recompute: bool, report: OnEvent
) -> None:
    """Take real training steps on the longest row, then twice on the whole micro-batch, and report each one.

    Twice, because half of the first time is preparation for its shapes; the second time gives the run's speed.

    Args:
        base: The base model.
        config: Settings of the run.
        rows: The rows of the micro-batch, the longest first.
        recompute: Whether activations are recomputed in the backward pass.
        report: Called with each finding.
    """
    from runners.training import lora
    from runners.training.loss import choose_loss
    from runners.training.optimizer import MasterOptimizer
    from runners.training.runtime import expected_gib

    torch.manual_seed(config.seed)
    resident_before = usage.resident_gib()
    net = lora.prepare_model(base, config, recompute)
    report({"found": "loaded", "peak_gib": peak_gib()})
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
    scaler = optimizer.scaler = loss_scaler(loss.causal.dtype, loss.causal.device)
    net.train()
    with usage.measure_contention(torch.get_num_threads()) as others:
        for kind, batch in (("row", rows[:1]), ("batch", rows), ("batch", rows)):
            started = time.perf_counter()
            total = loss(batch) / sum(len(row.learnt) for row in batch)
            (total if scaler is None else scaler.scale(total)).backward()
            value = float(total.detach())
            norm = optimizer.step(1.0)
            seconds = time.perf_counter() - started
            report(
                {
                    "found": kind,
                    "loss": value,
                    "norm": norm,
                    "seconds": seconds,
                    "tokens": sum(len(row.ids) for row in batch),
                    "rows": len(batch),
                    "peak_gib": peak_gib(),
                    "own_gib": training_gib(resident_before),
                    "path": loss.path,
                    "expected_gib": expected if batch is rows else None,
                }
            )
    # The steps of a GPU are not slowed down by other processes on the CPU.
    report({"found": "contention", "lost": 0.0 if device_kind() != "cpu" else others.lost})


def training_gib(resident_before: float | None) -> float | None:
    """Return the peak memory of training in GiB, None if unknown.

    On a GPU that of its tensors, else the peak of the process less ``resident_before``, its GiB before the model was
    loaded.
    """
    if counters := device_counters():
        return float(counters.max_memory_allocated()) / GIB
    return None if resident_before is None else max(0.0, peak_gib() - resident_before)


def peak_gib() -> float:
    """Return the peak memory of this process in GiB: what torch reserved on the GPU, else the resident set."""
    if counters := device_counters():
        return float(counters.max_memory_reserved()) / GIB
    if (highest := usage.highest_resident_gib()) is not None:
        return highest
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return float(psutil.Process().memory_info().peak_wset) / GIB  # type: ignore[attr-defined]  # Windows has it
    highest_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # In bytes on macOS, in KiB on Linux.
    return highest_rss / GIB if sys.platform == "darwin" else highest_rss * 1024 / GIB


def main() -> None:
    """Run the probes that the request on stdin asks for and write their findings; libraries' output goes to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def report(finding: dict[str, Any]) -> None:
        out.write(json.dumps(finding) + "\n")
        out.flush()

    request = json.loads(sys.stdin.read())
    report({"found": "free", "gib": free_gib()})
    report({"found": "device", **probe_arithmetic()})
    if request["four_bit"]:
        report({"found": "four_bit", **probe_four_bit()})
    base = Model(**{**request["base"], "folder": Path(request["base"]["folder"])})
    if request["messages"]:
        report({"found": "prompt", **probe_prompt(base, request["messages"])})
    if request["rows"]:
        rows = [EncodedRow(tuple(row["ids"]), tuple(row["learnt"]), row["line"]) for row in request["rows"]]
        probe_step(base, config_from_json(request["config"]), rows, request["recompute"], report)
    report({"found": "end"})


def config_from_json(settings: dict[str, Any]) -> TrainConfig:
    """Return the settings that :meth:`TrainConfig.to_json` wrote; they were validated before.

    They are not validated again: rank and alpha of an adapter that is continued may be beyond the bounds of the
    settings, as they are after the conversion of a PiSSA adapter has doubled them.
    """
    targets, init_adapter = settings["targets"], settings["init_adapter"]
    values = {"targets": targets if isinstance(targets, str) else tuple(targets)}
    return TrainConfig.model_construct(
        **{**settings, **values, "init_adapter": Path(init_adapter) if init_adapter else None}
    )


def _products(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    """Return the product of a and b, and the gradients of both for the mean of its squares."""
    a, b = a.detach().requires_grad_(), b.detach().requires_grad_()
    product = a @ b
    product.float().square().mean().backward()
    assert a.grad is not None
    assert b.grad is not None
    return product.detach(), a.grad, b.grad


def _relative_error(values: Tensor, expected: Tensor) -> float:
    """Return the largest difference as a share of the largest expected value; infinite for values not finite."""
    values, expected = values.float(), expected.float()
    if not bool(torch.isfinite(values).all()):
        return float("inf")
    # Clamped, so that expected values of zero do not divide by zero.
    return float((values - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


if __name__ == "__main__":
    main()
