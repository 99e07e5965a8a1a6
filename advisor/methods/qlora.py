"""QLoRA: LoRA over a base in four bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from advisor.methods.lora import Lora
from advisor.rules.base import Need


class QLora(Lora):
    """LoRA over a 4-bit base: a quarter of the memory for weights, somewhat slower steps.

    For when LoRA in 16 bits does not fit. It saves weights, not activations.
    """

    name = "qlora"
    serves: ClassVar[Mapping[Need, float]] = {
        **Lora.serves, Need.STYLE: 0.95, Need.FORMAT: 0.95, Need.TRAIN: 0.95, Need.CAPACITY: 0.2,
        Need.THRIFT: 0.9, Need.PRECISION: 0.0, Need.HEADROOM: 1.0, Need.SCALE: 0.95, Need.SIMPLE: 0.2,
    }  # fmt: skip
