"""Optimiser over fp32 master weights: AdamW, AdamW with 8-bit states, or Adafactor; LoRA+ by parameter groups.

Parameters kept in bf16 are stepped in fp32 and written back rounded, whatever the optimiser. So full tuning of a bf16
base takes, per parameter, 2 bytes of weight, 4 of master, 4 of gradient while stepping, and of state 8 (adamw), 2
(adamw_8bit) or hardly any (adafactor). Imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from rag.errors import CannotRun
from runners.distributed.wrapping import copy_whole, whole_tensor
from runners.resources.device import DEVICE_TABLE

ADAM_BETAS = (0.9, 0.999)
_CONSTANT = ("qmap1", "qmap2")
"""State keys of bitsandbytes' quantisation tables, the same for every tensor: never saved."""


class MasterOptimizer:
    """An optimiser over fp32 master weights, whose state is saved and restored by parameter name."""

    def __init__(
        self,
        params: Mapping[str, nn.Parameter],
        rate: float,
        weight_decay: float,
        max_norm: float,
        kind: str = "adamw",
        lora_plus: float = 1.0,
    ) -> None:
        """Create the master weights and the optimiser.

        Args:
            params: The trained parameters by name.
            rate: Learning rate.
            weight_decay: Weight decay.
            max_norm: Gradient norm to which gradients are clipped before each step.
            kind: One of :data:`runners.plan.train_config.OPTIMIZERS`.
            lora_plus: Factor on the learning rate of LoRA's B matrices (LoRA+); 1 for plain LoRA.
        """
        self.params = dict(params)
        self.rate = rate
        self.scaler: torch.amp.GradScaler | None = None
        """Scale of the loss of a run in float16, set before its first step; None in another dtype."""
        self.max_norm = max_norm
        self.masters = {
            name: parameter
            if parameter.dtype == torch.float32
            else parameter.detach().float().requires_grad_()
            for name, parameter in self.params.items()
        }
        self.optimizer, self.note = _create_optimizer(
            kind, _groups(self.masters, lora_plus, kind), rate, weight_decay
        )

    def step(self, factor: float) -> float:
        """Apply and clear the gradients at ``factor`` times the rate; return their norm before clipping.

        With a loss scaler the gradients are divided by its scale in fp32 before they are clipped. Where one of them is
        not finite, nothing is applied, the scale is lowered, and the norm is not finite.
        """
        for name, parameter in self.params.items():
            if self.masters[name] is not parameter and parameter.grad is not None:
                # The bf16 gradient is freed at once, so that only one of both is in memory per parameter.
                self.masters[name].grad = parameter.grad.float()
                parameter.grad = None
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        norm = float(whole_tensor(nn.utils.clip_grad_norm_(self.masters.values(), self.max_norm)))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * factor * group["ratio"]
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self._write_back()
        return norm

    @property
    def sharded(self) -> bool:
        """Whether each process holds only its shards of the weights and their state (FSDP2)."""
        return any(isinstance(master, DTensor) for master in self.masters.values())

    def weights(self) -> dict[str, Tensor]:
        """Return copies of the fp32 weights by name, of sharded ones this process's shards."""
        return {name: master.detach().clone() for name, master in self.masters.items()}

    def set_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Restore weights that :meth:`weights` returned, in this or another number of processes."""
        with torch.no_grad():
            for name, master in self.masters.items():
                _restore(master, weights[name])
        self._write_back()

    def state(self) -> dict[str, Tensor]:
        """Return the optimiser's state as named tensors; for AdamW ``step/NAME``, ``exp_avg/NAME``, ``exp_avg_sq/NAME``.

        A number becomes a tensor under ``KEY:number/NAME``.
        """
        tensors = {}
        for name, master in self.masters.items():
            for key, value in self.optimizer.state[master].items():
                if isinstance(value, Tensor) and key not in _CONSTANT:
                    tensors[f"{key}/{name}"] = value.detach()
                elif isinstance(value, int | float):
                    tensors[f"{key}:number/{name}"] = torch.tensor(value)
        return tensors

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state that :meth:`state` returned."""
        if init_state := getattr(self.optimizer, "init_state", None):
            for group_index, group in enumerate(self.optimizer.param_groups):
                for index, master in enumerate(group["params"]):
                    # bitsandbytes allocates paged buffers and tables here, which are not saved.
                    init_state(group, master, group_index, index)
        for full_key, value in state.items():
            key, name = full_key.split("/", 1)
            master = self.masters[name]
            own_state = self.optimizer.state[master]
            if key.endswith(":number"):
                own_state[key.removesuffix(":number")] = value.item()
            elif isinstance(own_state.get(key), Tensor):
                own_state[key].copy_(value)
            elif isinstance(master, DTensor) and value.shape == master.shape:
                own_state[key] = torch.zeros_like(master, dtype=value.dtype, requires_grad=False)
                _restore(own_state[key], value)
            else:
                own_state[key] = value.to(master.device, copy=True)

    def _write_back(self) -> None:
        """Copy the masters into the parameters of another dtype, rounded."""
        with torch.no_grad():
            for name, parameter in self.params.items():
                if self.masters[name] is not parameter:
                    parameter.copy_(self.masters[name])


def _restore(target: Tensor, value: Tensor) -> None:
    """Copy a value into a tensor that may be sharded; a sharded value has the same shards, another one is whole."""
    if isinstance(value, DTensor):
        target.copy_(value)
    else:
        copy_whole(target, value)


def _groups(masters: Mapping[str, Tensor], lora_plus: float, kind: str) -> list[dict[str, Any]]:
    """Return parameter groups of one learning-rate ratio and, for 8-bit optimisers, one width of state.

    LoRA+ (Hayou et al., arXiv 2402.12354) moves B faster than A. bitsandbytes advises 32-bit states for
    embeddings, whose gradients are rare and large.
    """
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, master in masters.items():
        ratio = lora_plus if ".lora_B." in name else 1.0
        wide = "8bit" in kind and "embed" in name
        group = groups.setdefault((ratio, wide), {"params": [], "ratio": ratio, "wide": wide})
        group["params"].append(master)
    return list(groups.values())


def _create_optimizer(
    kind: str, groups: list[dict[str, Any]], rate: float, weight_decay: float
) -> tuple[torch.optim.Optimizer, str]:
    """Return torch's, bitsandbytes' or transformers' optimiser, and a note for the user, "" without one."""
    where = groups[0]["params"][0].device.type
    facts = next(facts for facts in DEVICE_TABLE.values() if facts.torch_type == where)
    if kind == "adamw":
        fused = facts.fused_optimizer
        return torch.optim.AdamW(
            groups, lr=rate, betas=ADAM_BETAS, weight_decay=weight_decay, fused=fused
        ), ""
    if "8bit" in kind and not facts.eight_bit_optimizer:
        raise CannotRun(
            f"bitsandbytes has no 8-bit optimiser for an {facts.name}", "use --optimizer adamw or adafactor"
        )
    if kind == "adafactor":
        from transformers.optimization import Adafactor

        # torch's Adafactor scales a step by the size of the weight: LoRA's B, which starts at zero, would stay there.
        adafactor = Adafactor(
            groups, lr=rate, weight_decay=weight_decay, scale_parameter=False, relative_step=False
        )
        return adafactor, ""
    return _adamw_8bit(groups, rate, weight_decay, paged=kind.startswith("paged"))


def _adamw_8bit(
    groups: list[dict[str, Any]], rate: float, weight_decay: float, paged: bool
) -> tuple[torch.optim.Optimizer, str]:
    """Return bitsandbytes' AdamW with 8-bit states, paged where asked for and possible, and a note."""
    import bitsandbytes

    class AdamW8bit(bitsandbytes.optim.AdamW8bit):  # type: ignore[misc]
        """AdamW with 8-bit states, 32-bit ones for groups marked as wide."""

        def get_config(self, gindex: int, pindex: int, group: dict[str, Any]) -> dict[str, Any]:
            """Return bitsandbytes' settings of one parameter."""
            config: dict[str, Any] = super().get_config(gindex, pindex, group)
            return config | {"optim_bits": 32} if group["wide"] else config

    on_cpu = all(p.device.type == "cpu" for group in groups for p in group["params"])
    paging = paged and not on_cpu
    optimizer = AdamW8bit(groups, lr=rate, betas=ADAM_BETAS, weight_decay=weight_decay, is_paged=paging)
    note = "on a CPU a paged optimiser has nowhere to page to, so its state stays in memory"
    return optimizer, note if paged and on_cpu else ""
