"""AdamW over fp32 masters: parameters kept in bf16 are stepped in fp32 and written back rounded. Heavy."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.999)


class Optimizer:
    """One AdamW whose state can be taken out and put back by parameter name."""

    def __init__(
        self, params: Mapping[str, nn.Parameter], rate: float, weight_decay: float, max_norm: float
    ) -> None:
        """Take the trained parameters by name; ``max_norm`` clips the gradient before each step."""
        self.params = dict(params)
        self.rate, self.max_norm = rate, max_norm
        self.masters = {
            name: p if p.dtype == torch.float32 else p.detach().float().requires_grad_()
            for name, p in self.params.items()
        }
        self.adam = torch.optim.AdamW(
            self.masters.values(), lr=rate, betas=BETAS, weight_decay=weight_decay, fused=True
        )

    def step(self, factor: float) -> float:
        """Apply and clear the gradients at ``factor`` of the rate; return their norm before clipping."""
        for name, p in self.params.items():
            if self.masters[name] is not p and p.grad is not None:
                self.masters[name].grad, p.grad = p.grad.float(), None
        norm = float(nn.utils.clip_grad_norm_(self.masters.values(), self.max_norm))
        for group in self.adam.param_groups:
            group["lr"] = self.rate * factor
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
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
        """Return AdamW's state as named tensors: ``step/NAME``, ``exp_avg/NAME``, ``exp_avg_sq/NAME``."""
        found = {}
        for name, master in self.masters.items():
            for key, value in self.adam.state[master].items():
                found[f"{key}/{name}"] = value.detach()
        return found

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state` returned."""
        for full, value in state.items():
            key, name = full.split("/", 1)
            self.adam.state[self.masters[name]][key] = value.clone()

    def _write_back(self) -> None:
        with torch.no_grad():
            for name, p in self.params.items():
                if self.masters[name] is not p:
                    p.copy_(self.masters[name])
