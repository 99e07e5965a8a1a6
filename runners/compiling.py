"""Whether torch.compile pays for itself in the length of a run. Imports no torch."""

from __future__ import annotations

GAIN = 1.27
"""Steps compiled against steps as they are, on a GPU: torchtune, a 3B model on one A100, 7,075 to 8,998 tokens/s."""
COST_S = 120.0
"""Seconds that compiling takes; measured for a 135M model: 105 s."""
MARGIN = 2.0
"""How many times its cost compiling must save, because both numbers above are other machines'."""
ON_CPU = (
    "torch.compile is off on a CPU: for a 135M model on 2 cores it took 105 s to compile, and its 400 tokens/s "
    "are fewer than the fused layers give without it"
)


def pays(device: str, tokens: int, tokens_per_s: float) -> tuple[bool, str]:
    """Say whether to compile for a run of so many tokens at a measured speed, and why.

    ``device`` is torch's name of the kind; only ``cuda`` is ever compiled for.
    """
    if device == "cpu":
        return False, ON_CPU
    if device != "cuda":
        return False, f"torch.compile is not used on {device}: nobody has measured it here"
    seconds = tokens / max(tokens_per_s, 1e-9)  # a measured speed of 0 is no division by zero
    # GAIN times the speed takes 1 / GAIN of the time.
    saved = seconds * (1 - 1 / GAIN)
    least = MARGIN * COST_S
    reason = f"a run of {seconds:.0f} s would save about {saved:.0f} s, compiling costs about {COST_S:.0f} s"
    return saved > least, f"{reason}; it is {'on' if saved > least else 'off'} (limit: {least:.0f} s saved)"
