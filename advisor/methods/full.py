"""Full fine-tuning: train every weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from advisor.methods.lora import Lora
from advisor.rules.base import Need


class Full(Lora):
    """Train every weight: for small models, far domains and billions of tokens.

    Learns most and forgets most, needs the most memory, and leaves a whole model to store for every task.
    """

    name = "full"
    serves: ClassVar[Mapping[Need, float]] = {
        **Lora.serves, Need.STYLE: 0.95, Need.FORMAT: 1.0, Need.TRAIN: 0.95, Need.CAPACITY: 1.0,
        Need.THRIFT: 0.0, Need.SIMPLE: 0.1,
    }  # fmt: skip
