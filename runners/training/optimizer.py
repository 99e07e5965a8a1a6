"""The optimiser over fp32 masters: AdamW, AdamW in 8 bits, or Adafactor; LoRA+ by groups. Heavy.

Parameters kept in bf16 are stepped in fp32 and written back rounded, whatever the optimiser. So full tuning of
a bf16 base takes, per parameter, 2 bytes of weight, 4 of master, 4 of gradient while stepping, and of state 8
(adamw), 2 (adamw_8bit) or hardly any (adafactor).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

ADAM_BETAS = (0.9, 0.999)
_CONSTANT = ("qmap1", "qmap2")
"""bitsandbytes' tables, the same for every tensor: never saved."""


class MasterOptimizer:
    """One optimiser whose state can be taken out and put back by parameter name."""

    def __init__(
        self,
        params: Mapping[str, nn.Parameter],
        rate: float,
        weight_decay: float,
        max_norm: float,
        kind: str = "adamw",
        lora_plus: float = 1.0,
    ) -> None:
        """Take the trained parameters by name; ``max_norm`` clips the gradient before each step.

        ``kind`` is one of :data:`runners.plan.train_config.OPTIMIZERS`, ``lora_plus`` the factor on the rate of LoRA's B.
        """
        self.params = dict(params)
        self.rate, self.max_norm = rate, max_norm
        self.masters = {
            name: p if p.dtype == torch.float32 else p.detach().float().requires_grad_()
            for name, p in self.params.items()
        }
        self.optimizer, self.note = _make(kind, _groups(self.masters, lora_plus, kind), rate, weight_decay)

    def step(self, factor: float) -> float:
        """Apply and clear the gradients at ``factor`` of the rate; return their norm before clipping."""
        for name, p in self.params.items():
            if self.masters[name] is not p and p.grad is not None:
                self.masters[name].grad, p.grad = p.grad.float(), None
        norm = float(nn.utils.clip_grad_norm_(self.masters.values(), self.max_norm))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * factor * group["ratio"]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._write_back()
        return norm

    def weights(self) -> dict[str, Tensor]:
        """Return copies of the fp32 weights by name."""
        return {name: m.detach().clone() for name, m in self.masters.items()}

    def set_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Put weights back that :meth:`weights` returned."""
        with torch.no_grad():
            for name, master in self.masters.items():
                master.copy_(weights[name])
        self._write_back()

    def state(self) -> dict[str, Tensor]:
        """Return the state as named tensors, for AdamW ``step/NAME``, ``exp_avg/NAME``, ``exp_avg_sq/NAME``.

        A number becomes a tensor under ``KEY:number/NAME``.
        """
        found = {}
        for name, master in self.masters.items():
            for key, value in self.optimizer.state[master].items():
                if isinstance(value, Tensor) and key not in _CONSTANT:
                    found[f"{key}/{name}"] = value.detach()
                elif isinstance(value, int | float):
                    found[f"{key}:number/{name}"] = torch.tensor(value)
        return found

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` returned."""
        if begin := getattr(self.optimizer, "init_state", None):
            for number, group in enumerate(self.optimizer.param_groups):
                for place, master in enumerate(group["params"]):
                    begin(group, master, number, place)  # makes paged buffers and tables, which are not saved
        for full, value in state.items():
            key, name = full.split("/", 1)
            master = self.masters[name]
            own = self.optimizer.state[master]
            if key.endswith(":number"):
                own[key.removesuffix(":number")] = value.item()
            elif isinstance(own.get(key), Tensor):
                own[key].copy_(value)
            else:
                own[key] = value.to(master.device, copy=True)

    def _write_back(self) -> None:
        with torch.no_grad():
            for name, p in self.params.items():
                if self.masters[name] is not p:
                    p.copy_(self.masters[name])


def _groups(masters: Mapping[str, Tensor], lora_plus: float, kind: str) -> list[dict[str, Any]]:
    """Return the masters in groups of one ratio to the rate and, for 8-bit states, one width of state.

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


def _make(
    kind: str, groups: list[dict[str, Any]], rate: float, weight_decay: float
) -> tuple[torch.optim.Optimizer, str]:
    """Return torch's, bitsandbytes' or transformers' optimiser, and what is to be said about it."""
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=ADAM_BETAS, weight_decay=weight_decay, fused=True), ""
    if kind == "adafactor":
        from transformers.optimization import Adafactor

        # torch's scales a step by the weight's size, where LoRA's B would never leave zero.
        made = Adafactor(
            groups, lr=rate, weight_decay=weight_decay, scale_parameter=False, relative_step=False
        )
        return made, ""
    return _eight_bit(groups, rate, weight_decay, paged=kind.startswith("paged"))


def _eight_bit(
    groups: list[dict[str, Any]], rate: float, weight_decay: float, paged: bool
) -> tuple[torch.optim.Optimizer, str]:
    import bitsandbytes

    class EightBit(bitsandbytes.optim.AdamW8bit):  # type: ignore[misc]
        """AdamW with 8-bit states, 32-bit ones where a group is wide."""

        def get_config(self, gindex: int, pindex: int, group: dict[str, Any]) -> dict[str, Any]:
            """Return bitsandbytes' settings of one parameter."""
            config: dict[str, Any] = super().get_config(gindex, pindex, group)
            return config | {"optim_bits": 32} if group["wide"] else config

    on_cpu = all(p.device.type == "cpu" for group in groups for p in group["params"])
    paging = paged and not on_cpu
    made = EightBit(groups, lr=rate, betas=ADAM_BETAS, weight_decay=weight_decay, is_paged=paging)
    said = "on a CPU a paged optimiser has nowhere to page to, so its state stays in memory"
    return made, said if paged and on_cpu else ""
