"""Hours of training: the work that the data ask for over what the device at hand, or a rented one, gives."""

from __future__ import annotations

from functools import cache

from advisor import speed
from advisor.facts import gpus
from advisor.profile import Profile
from advisor.range import Range
from advisor.speed import Device, tokens_per_second
from advisor.tokens import RAW_SEQUENCE, example_tokens, row_tokens
from runners import calibrate
from runners.memory import Shape

USUAL_CARD_GIB = 24
"""Memory of the card that is assumed when nothing is said about a GPU."""


def training_hours(p: Profile, method: str) -> Range | None:
    """Hours of training on the hardware of the profile; None when the model's size is unknown.

    The low end is a fast device with no checkpointing, the high end a slow one with it.
    """
    shape = p.model_shape
    return None if shape is None or not p.params_b else hours_on(p, shape, method, at_hand(p))


def hours_on(p: Profile, shape: Shape, method: str, device: Device) -> Range:
    """Hours that the profile's examples and raw text take on a device."""
    low = likely = high = 0.0
    for tokens, sequence in ((example_tokens(p), row_tokens(p)), (p.raw_text, float(RAW_SEQUENCE))):
        if tokens:
            rate = tokens_per_second(shape, method, sequence, device)
            low, likely, high = (
                low + tokens / rate.high, likely + tokens / rate.likely, high + tokens / rate.low
            )  # fmt: skip
    return Range(low / 3600, likely / 3600, high / 3600)


def at_hand(p: Profile, stored: calibrate.Stored | None = None) -> Device:
    """Return what trains here: this machine at its measured speed, the named card, or one of its memory.

    A measured speed counts only where the hardware was detected on this machine and not changed since, so
    that the same written answers give the same advice everywhere. ``stored`` is the user's by default.
    """
    if found := _measured(p, stored):
        return found
    if p.has_gpu is False:
        return speed.of_cpu(p.cpu_cores)
    return speed.of_apple() if p.gpu_kind == "mps" and not p.gpu_name else speed.of_cards(cards(p), p.devices)


def cards(p: Profile) -> tuple[gpus.Gpu, ...]:
    """Return the cards that the profile's GPU may be: the named one, else all of its kind and memory."""
    named = gpus.find(p.gpu_name) if p.gpu_name else None
    return (named,) if named else gpus.of_memory(p.gpu_memory_gib or USUAL_CARD_GIB, p.gpu_kind or "cuda")


def basis(p: Profile, stored: calibrate.Stored | None = None) -> tuple[str, ...]:
    """Say what the hours assume: the device and its speed, and why a stored calibration was not used."""
    device = at_hand(p, stored)
    found = (stored or this_machine()) if _detected(p, "gpu_kind") else calibrate.Stored()
    said = [f"trained on {device.said}", *([found.ignored] if found.ignored else [])]
    if found.calibration and _measured(p, stored) is None:
        threads = f"{found.calibration.cpu.threads} threads of the CPU"
        of = f"{threads} and {found.calibration.cuda.name}" if found.calibration.cuda else threads
        said.append(f"the calibration is not used: it measured {of}; {calibrate.AGAIN}")
    return tuple(said)


@cache
def this_machine() -> calibrate.Stored:
    """Return the stored calibration of this machine; the file is read once in a process."""
    return calibrate.read()


def _measured(p: Profile, stored: calibrate.Stored | None) -> Device | None:
    if not _detected(p, "gpu_kind"):
        return None
    found = (stored or this_machine()).calibration
    if found is None:
        return None
    day = found.day.isoformat()
    if p.has_gpu is False:
        cores = p.sources.get("cpu_cores")
        same = cores is not None and cores.source == "detected" and cores.value == found.cpu.threads
        part = (p.cpu_cores or 1) / found.cpu.threads
        return speed.of_measured(found.cpu, day, part=part) if same else None
    if found.cuda is None or p.gpu_kind != "cuda" or not _detected(p, "gpu_memory_gib"):
        return None
    same = abs(found.cuda.memory_gib - (p.gpu_memory_gib or 0)) < 1
    return speed.of_measured(found.cuda, day, p.devices) if same else None


def _detected(p: Profile, key: str) -> bool:
    """Whether an answer was found on this machine and still stands in the profile."""
    answer = p.sources.get(key)
    return answer is not None and answer.source == "detected" and answer.value == getattr(p, key)
