"""How long training takes: the FLOPs of the work over the FLOP/s of a device. The only such estimate.

The recommendation's hours and the plan's minutes both come from :func:`training_seconds`;
:func:`training_device` picks the device of a profile. The model: every pass over the weights costs two FLOPs
per parameter and token. Training makes a forward pass, a backward pass through the activations and, where
weights are trained, one for their gradients; checkpointing repeats the forward pass. So full tuning costs 6
per parameter (Kaplan et al., arXiv 2001.08361), LoRA about 4, and checkpointing 2 more.

**How often low to high holds.** ``python -m benchmarks.estimates`` compares the estimate, without any correction, with the
recorded runs of benchmarks/estimate_runs.json: published training speeds on GPUs (torchtune, PEFT, fms-acceleration, Qwen,
LLaMA-Factory, llm-foundry, Hugging Face's Personal Copilot, Answer.AI, torchtitan, NeMo AutoModel), and our own runs on
CPUs. The ranges are set so that :data:`HOURS_COVERAGE` of them hold, each source counting the same: .93 on one GPU, .83 on
several, .97 on a CPU with native bf16. Ranges made without a source hold on it nearly as often (.86, .78 and .95;
benchmarks/LOG.md); the runs of the last three sources on several GPUs were recorded after the formula of communication was
written, and all hold. Without native bf16, and at the measured matrix speed of a CPU, six and three runs of ours are all
inside, too few for a share; they are of machines that other processes used too, so they are long. Not recorded, so without a
share: Apple GPUs, and speeds measured before a training (:data:`MEASURED_RANGE`). Passes of fewer than 1,024 tokens do not
fill a GPU (Qwen's 1.8 B model takes 3 to 9 times the estimate with rows of 256 and 512 tokens one at a time); plans put at
least 1,024 tokens into a pass on one GPU, and several share a step's tokens, which is counted
(:data:`advisor.costs.communication.FULL_PASS_TOKENS`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache

from advisor.catalog import gpus
from advisor.costs.communication import PASS_TOKENS, DeviceGroup, link_of, step_seconds
from advisor.costs.tokens import RAW_SEQUENCE, Range, device_plan, example_tokens, row_tokens
from advisor.questionnaire.profile import Profile
from runners.resources import calibration
from runners.resources.calibration import MatrixSpeed, TrainingSpeed
from runners.resources.memory_terms import MemoryUse, ParallelKind
from runners.resources.model_shape import ModelShape

HOURS_COVERAGE = 0.9
"""Share of recorded runs whose hours lie between low and high, each source counting the same; a test computes it."""
CONSUMER = Range(0.17, 0.45, 0.90)
"""Share of the dense bf16 peak that GeForce and workstation cards reach (of the FLOPs with checkpointing).

torchtune README, Llama-3.1-8B: .44-.56 on an RTX 4090 and .75 on an A6000, counted without the repeated
forward pass. The low end is a plain loop with short, padded rows.
"""
DATACENTRE = Range(0.15, 0.40, 0.72)
"""The same for data centre cards.

torchtune README, Llama-3.2-3B on an A100: .37-.63 with its attention; llm-foundry benchmarking, MPT on H100:
.27-.46 MFU, .36-.59 HFU; fms on Mistral-7B: .33; PEFT MetaMathQA on an L40S without packing: .12 (full) to .26 (LoRA).
"""
CPU_CORE = Range(20e9, 60e9, 430e9)
"""FLOP/s per core where only their number is known: without native bf16 at the low end (:data:`CPU_CORE_FP32`), with it and
rows that share their prefix at the high end (:data:`CPU_CORE_BF16`).
"""
CPU_CORE_FP32 = Range(20e9, 60e9, 180e9)
"""FLOP/s per core without native bf16.

Six full trainings of SmolLM2-135M in float32 on 2 cores that other processes used too took .5 to 2 times the likely time;
with so few runs of one machine the ends are the 90 % prediction interval of their logarithms.
"""
CPU_CORE_BF16 = Range(148e9, 220e9, 430e9)
"""FLOP/s per core with native bf16 (AVX512-BF16, AMX).

Recorded for this project on 2 cores (benchmarks/LOG.md), SmolLM2-135M, as tokens/s x FLOPs per token / cores:
150e9 with PEFT's layers, 140 to 250e9 on rows with passages, 200 to 430e9 on plain rows, whose shared prefix
is computed once. A test compares the estimate with these records.
"""
APPLE = Range(0.5e12, 4e12, 16e12)
"""FLOP/s of an Apple GPU: a quarter, two fifths and three fifths of 2.6 (M1), 10 and 27 (M2 Ultra) TFLOPS."""
MEASURED_SHARE = {"cpu": Range(0.22, 0.60, 1.8), "cuda": Range(0.20, 0.50, 0.90)}
"""Share of the measured matrix speed that training reaches.

CPU: SmolLM2-135M LoRA ran at .35 of it with PEFT's layers, .62 with ours and .92 with the rows' common prefix
computed once, full tuning of rows that are mostly one prompt at 1.6 (benchmarks/LOG.md, estimate_runs.json): a common
beginning is counted in full and computed once. Blocks of models of 1 to 8 B ran at .76 to .88. GPU: the shares above, of a
matrix speed of about .8 of the peak.
"""
METHOD_SLOWDOWN = {"qlora": Range(1.02, 1.3, 2.0)}
"""QLoRA's time over LoRA's: 1.02 (H2O 7B, A10G), 1.05 (fms), 1.28 (torchtune), 1.44 (H2O, A100), 2.05 (litgpt
13B).
"""
MEASURED_RANGE = Range(1 / 1.5, 1.0, 1.5)
"""Tokens a second over the measured speed of training the same model: other work on the machine comes and goes."""
SIMILAR_ROWS = 2.5
"""Largest ratio of the tokens of rows for which a measured speed counts."""
USUAL_CORES = 8
"""CPU cores that are assumed when their number is unknown."""
USUAL_CARD_GIB = 24
"""Memory of the GPU that is assumed when no answer is about one."""


@dataclass(frozen=True, slots=True)
class TrainingDevice:
    """A device, or several of a kind, that trains: its FLOP/s (low, likely, high), whether it checkpoints, their source."""

    flops: Range
    checkpointing: bool
    description: str
    speeds: tuple[TrainingSpeed, ...] = ()
    """Speeds of training that were measured on this device, which count before its FLOP/s."""
    group: DeviceGroup | None = None
    """Several such devices that train together; None for one. ``flops`` and ``speeds`` are those of one."""


def flops_per_token(shape: ModelShape, method: str, sequence: float, checkpointing: bool) -> float:
    """Return the training FLOPs of one token; ``sequence`` is the number of tokens of its row.

    Attention adds 2 x layers x width x sequence to a forward pass (scores and values, half of them masked)
    and twice that backwards: 3 % of a 7B model at 1,000 tokens, 25 % at 8,000.
    """
    # Passes over the weights: forward, backward through the activations, with full tuning the gradients of
    # the weights, and with checkpointing the forward pass again. Attention has no weights: forward and twice
    # that backwards, three times in all.
    attention = 2.0 * shape.layers * shape.heads * shape.head_dim * sequence
    passes = (3 if method == "full" else 2) + checkpointing
    return 2.0 * multiplied_parameters(shape) * passes + attention * (3 + checkpointing)


def multiplied_parameters(shape: ModelShape) -> int:
    """Return the parameters one token is multiplied with: all of a typical shape, else blocks and head.

    The input embedding is looked up, not multiplied, and of a mixture of experts a token passes through some.
    """
    return shape.active_params - (0 if shape.tied or shape.assumed else shape.table)


def tokens_per_second(shape: ModelShape, method: str, sequence: float, device: TrainingDevice) -> Range:
    """Return the tokens a second that training reads; the high end assumes no checkpointing.

    The uncertainties of the device, of checkpointing and of the method are independent and add in quadrature.

    Where training this model was measured on the device, with rows of similar length, that speed counts. Of several devices
    it is the tokens of a step over its seconds (:func:`advisor.costs.communication.step_seconds`).
    """
    one = _one_device_speed(shape, method, sequence, device)
    group = device.group
    if group is None or group.devices <= 1:
        return one
    use: MemoryUse = "full" if method == "full" else "qlora" if method == "qlora" else "lora"
    seconds = step_seconds(shape, use, group, sequence, one)
    tokens = max(group.step_tokens, sequence)
    return Range(tokens / seconds.high, tokens / seconds.likely, tokens / seconds.low)


def _one_device_speed(shape: ModelShape, method: str, sequence: float, device: TrainingDevice) -> Range:
    """Return the tokens a second of one device."""
    measured = measured_speed(device.speeds, shape, method, sequence)
    if measured is not None:
        rate = 1 / measured.seconds_per_token
        rate *= flops_per_token(shape, method, measured.row_tokens, False) / flops_per_token(
            shape, method, sequence, False
        )
        return MEASURED_RANGE.times(rate, rate, rate)
    slow = METHOD_SLOWDOWN.get(method, Range(1.0, 1.0, 1.0))
    heavy = flops_per_token(shape, method, sequence, device.checkpointing)
    light = flops_per_token(shape, method, sequence, False)
    tokens_per_flop = Range(1 / heavy, 1 / heavy, 1 / light)
    method_speed = Range(1 / slow.high, 1 / slow.likely, 1 / slow.low)
    return device.flops.times_independent(tokens_per_flop).times_independent(method_speed)


def measured_speed(
    speeds: Iterable[TrainingSpeed], shape: ModelShape, method: str, sequence: float
) -> TrainingSpeed | None:
    """Return the measured speed of the same method on this shape whose rows are most alike; None without one.

    Of equally similar ones the newest, which is the last.
    """
    same = (shape.layers, shape.hidden, shape.intermediate, shape.vocab, method)
    alike = [
        (max(sequence, speed.row_tokens) / max(1.0, min(sequence, speed.row_tokens)), -number, speed)
        for number, speed in enumerate(speeds)
        if (speed.layers, speed.hidden, speed.intermediate, speed.vocab, speed.method) == same
    ]
    if not alike:
        return None
    ratio, _, speed = min(alike, key=lambda candidate: candidate[:2])
    return speed if ratio <= SIMILAR_ROWS else None


def training_seconds(
    shape: ModelShape, method: str, device: TrainingDevice, work: Iterable[tuple[float, float]]
) -> Range:
    """Return the seconds that training takes, without loading the model.

    Args:
        shape: the model.
        method: lora, qlora or full.
        device: what trains.
        work: pairs of tokens: all that are read (rows x tokens of a row x epochs), and those of one row.

    Returns:
        The low end is a fast device with no checkpointing, the high end a slow one with it.
    """
    low = likely = high = 0.0
    for tokens, sequence in work:
        if tokens:
            # Time is work over speed, so the high speed gives the low end of the time.
            rate = tokens_per_second(shape, method, sequence, device)
            low += tokens / rate.high
            likely += tokens / rate.likely
            high += tokens / rate.low
    return Range(low, likely, high)


def training_hours(profile: Profile, method: str, passages: float = 0.0) -> Range | None:
    """Return the hours of training on the hardware of the profile; None when the model's size is unknown.

    ``passages`` is the number of tokens of retrieved passages in each row, 0 for plain rows.
    """
    shape = profile.model_shape
    if shape is None or not profile.params_b:
        return None
    return hours_on(profile, shape, method, training_device(profile, method=method), passages)


def training_hours_alone(profile: Profile, method: str) -> Range | None:
    """Return the hours of training on one device of the profile; None when the model's size is unknown."""
    shape = profile.model_shape
    if shape is None or not profile.params_b:
        return None
    return hours_on(profile, shape, method, training_device(profile))


def hours_on(
    profile: Profile, shape: ModelShape, method: str, device: TrainingDevice, passages: float = 0.0
) -> Range:
    """Return the hours on a device for the profile's raw text and examples, each with ``passages`` tokens."""
    examples = (example_tokens(profile, passages), row_tokens(profile) + passages)
    seconds = training_seconds(shape, method, device, (examples, (profile.raw_text, float(RAW_SEQUENCE))))
    return Range(seconds.low / 3600, seconds.likely / 3600, seconds.high / 3600)


def cpu_device(cores: int | None, bf16: bool | None = None) -> TrainingDevice:
    """Return a CPU with this many cores, 8 where unknown; our own CPU training does not checkpoint.

    ``bf16`` is whether the CPU multiplies in bf16 natively; None is unknown.
    """
    n = cores or USUAL_CORES
    core = CPU_CORE if bf16 is None else CPU_CORE_BF16 if bf16 else CPU_CORE_FP32
    counted = f"{cores} CPU cores" if cores else f"{USUAL_CORES} CPU cores (assumed)"
    name = f"{counted} with native bf16" if bf16 else counted
    return TrainingDevice(core.times(n, n, n), False, f"{name} at {core.likely / 1e9:g} GFLOP/s each")


def apple_device() -> TrainingDevice:
    """Return an Apple GPU; the model is not known, so the range covers all of them."""
    return TrainingDevice(APPLE, True, f"an Apple GPU at about {APPLE.likely / 1e12:g} TFLOP/s")


def card_device(card: gpus.GpuFacts, count: int = 1, group: DeviceGroup | None = None) -> TrainingDevice:
    """Return one GPU, or several of one kind that train together.

    Args:
        card: the GPU.
        count: how many.
        group: how several train together; by default sharded (fsdp) in one machine, with full passes on each.
    """
    return candidate_cards_device((card,), count, group)


@lru_cache(maxsize=256)
def candidate_cards_device(
    cards: tuple[gpus.GpuFacts, ...], count: int = 1, group: DeviceGroup | None = None
) -> TrainingDevice:
    """Return ``count`` GPUs known only by their candidates: from the slowest to the fastest of these."""
    # The low end is the slowest candidate at its low share, the high end the fastest one at its high share.
    by_speed = sorted(cards, key=lambda card: card.tflops)
    slow = by_speed[0]
    usual = by_speed[len(by_speed) // 2]
    fast = by_speed[-1]
    shares = [peak_share(card) for card in (slow, usual, fast)]
    flops = Range(
        slow.tflops * shares[0].low, usual.tflops * shares[1].likely, fast.tflops * shares[2].high
    ).times(*(1e12,) * 3)
    name = usual.name if len(cards) == 1 else f"a GPU of {usual.memory_gib:g} GiB such as {usual.name}"
    of_peak = f"{peak_share(usual).likely:.0%} of its {usual.tflops:g} TFLOP/s"
    if count == 1:
        return TrainingDevice(flops, True, f"{name} at {of_peak}")
    group = group or device_group(cards, count, "fsdp", count * PASS_TOKENS)
    return TrainingDevice(flops, True, f"{count} x {name} at {of_peak}, {group_text(group)}", group=group)


def device_group(
    cards: tuple[gpus.GpuFacts, ...],
    count: int,
    parallel: ParallelKind,
    step_tokens: float,
    nodes: int = 1,
    replicas: int = 1,
) -> DeviceGroup:
    """Return how ``count`` GPUs of one kind train together.

    Args:
        cards: the GPU, or those that it may be: the link is then from the slowest to the fastest of theirs.
        count: how many, over all machines.
        parallel: ddp, fsdp or fsdp_4bit.
        step_tokens: tokens of an optimiser step, over all of them.
        nodes: machines.
        replicas: machines that hold all shards each (:func:`runners.resources.memory_estimate.node_replicas`), all or 1.
    """
    if replicas == 1:
        speed, name = _links_of(cards, nodes)
        return DeviceGroup(count, parallel, speed, step_tokens, name)
    speed, name = _links_of(cards, 1)
    network, network_name = _links_of(cards, nodes)
    return DeviceGroup(
        count,
        parallel,
        speed,
        step_tokens,
        name,
        replicas=replicas,
        network=network,
        network_name=network_name,
    )


def _links_of(cards: tuple[gpus.GpuFacts, ...], nodes: int) -> tuple[Range, str]:
    """Return the bytes a second from the slowest to the fastest link of these cards, and the name of the usual one."""
    links = sorted((link_of(card, nodes) for card in cards), key=lambda link: link[1].likely)
    slow, usual, fast = links[0][1], links[len(links) // 2], links[-1][1]
    return Range(slow.low, usual[1].likely, fast.high), usual[0].name


def group_text(group: DeviceGroup) -> str:
    """Return how a group trains, in words."""
    over = f"over {group.link_name} (about {group.link.likely / 1e9:.3g} GB/s)"
    if group.network is not None:
        between = f"{group.network_name} (about {group.network.likely / 1e9:.3g} GB/s)"
        over = f"within each of {group.replicas} machines {over}, gradients between them over {between}"
    return f"{group.parallel} {over}, steps of {group.step_tokens:,.0f} tokens"


def peak_share(card: gpus.GpuFacts) -> Range:
    """Return the share of its peak that a GPU reaches, by its class."""
    return CONSUMER if _consumer(card) else DATACENTRE


def _consumer(card: gpus.GpuFacts) -> bool:
    return card.name.startswith(("RTX", "GTX", "GeForce", "A6000"))


def measured_device(
    speed: MatrixSpeed,
    day: str,
    part: float = 1.0,
    speeds: tuple[TrainingSpeed, ...] = (),
    group: DeviceGroup | None = None,
) -> TrainingDevice:
    """Return this machine's device at its measured matrix speed.

    Args:
        speed: the stored measurement.
        day: when it was taken.
        part: share of the measured CPU threads that are used.
        speeds: measured speeds of training on this device.
        group: several such devices that train together.
    """
    dtype, best = speed.best
    share = MEASURED_SHARE[speed.device]
    shown = f"{best / 1e12:.1f} TFLOP/s" if best >= 1e13 else f"{best / 1e9:,.0f} GFLOP/s"
    name = f"{group.devices} x {speed.name}" if group else speed.name
    description = (
        f"{name}, measured here on {day}: {shown} {dtype}, of which training gives about {share.likely:.0%}"
    )
    if group:
        description += f", {group_text(group)}"
    return TrainingDevice(share.times(*(best * part,) * 3), speed.device != "cpu", description, speeds, group)


def training_device(
    profile: Profile,
    stored: calibration.StoredCalibration | None = None,
    method: str = "",
    examples: int | None = None,
) -> TrainingDevice:
    """Return the device that trains: this machine at its measured speed, the named GPU, or one of its memory.

    With a ``method`` it is all GPUs that train it together (:func:`group_of`), else one of them.

    A measured speed counts only where the hardware was detected on this machine and not changed since, so
    that the same written answers give the same advice everywhere. ``stored`` is the user's calibration by
    default.
    """
    group = group_of(profile, method, examples) if method else None
    if measured := _measured(profile, stored, group):
        return measured
    if profile.has_gpu is False:
        return cpu_device(profile.cpu_cores, profile.cpu_bf16)
    if profile.gpu_kind == "mps" and not profile.gpu_name:
        return apple_device()
    return candidate_cards_device(candidate_cards(profile), group.devices if group else 1, group)


def group_of(profile: Profile, method: str, examples: int | None = None) -> DeviceGroup | None:
    """Return how the GPUs of a profile train a method together; None for one GPU, or none.

    Args:
        profile: the situation.
        method: lora, qlora or full.
        examples: rows of the training, by default the profile's examples.
    """
    if profile.devices <= 1:
        return None
    use: MemoryUse = "full" if method == "full" else "qlora" if method == "qlora" else "lora"
    parallel = device_plan(profile, use).parallel if profile.model_shape else "ddp"
    tokens = step_tokens(profile, use, profile.examples_known if examples is None else examples)
    return device_group(candidate_cards(profile), profile.devices, parallel, tokens)


def step_tokens(profile: Profile, use: MemoryUse, examples: int) -> float:
    """Return the tokens of an optimiser step, as training settings are chosen by default, and at least a row's."""
    tokens = row_tokens(profile)
    return max(tokens, float(_default_step_tokens(use, examples, profile.params_b or 1.0, tokens)))


@lru_cache(maxsize=1024)
def _default_step_tokens(use: MemoryUse, rows: int, params_b: float, tokens: float) -> int:
    from runners.training.defaults import choose_defaults

    values = choose_defaults(use, rows=rows, params_b=params_b, row_tokens=tokens).values
    return int(values["batch_tokens"])


def candidate_cards(profile: Profile) -> tuple[gpus.GpuFacts, ...]:
    """Return the GPUs that the profile's may be: the named one, else all of its kind and memory."""
    named = gpus.find_gpu(profile.gpu_name) if profile.gpu_name else None
    return (
        (named,)
        if named
        else gpus.gpus_of_memory(profile.gpu_memory_gib or USUAL_CARD_GIB, profile.gpu_kind or "cuda")
    )


def training_time_assumptions(
    profile: Profile, stored: calibration.StoredCalibration | None = None, method: str = ""
) -> tuple[str, ...]:
    """Return what the hours of a method assume: the device and its speed, and why a stored calibration was not used."""
    device = training_device(profile, stored, method)
    here = (
        (stored or stored_calibration())
        if _detected(profile, "gpu_kind")
        else calibration.StoredCalibration()
    )
    lines = [f"trained on {device.description}", *([here.ignored] if here.ignored else [])]
    if here.calibration and _measured(profile, stored) is None:
        threads = f"{here.calibration.cpu.threads} threads of the CPU"
        measured = f"{threads} and {here.calibration.cuda.name}" if here.calibration.cuda else threads
        lines.append(f"the calibration is not used: it measured {measured}; {calibration.RECALIBRATE_HINT}")
    return tuple(lines)


@cache
def stored_calibration() -> calibration.StoredCalibration:
    """Return the stored calibration of this machine; the file is read once per process."""
    return calibration.read_calibration()


def _measured(
    profile: Profile, stored: calibration.StoredCalibration | None, group: DeviceGroup | None = None
) -> TrainingDevice | None:
    """Return the device at its measured speed; None where the calibration is of other hardware."""
    if not _detected(profile, "gpu_kind"):
        return None
    calibration = (stored or stored_calibration()).calibration
    if calibration is None:
        return None
    day = calibration.day.isoformat()
    if profile.has_gpu is False:
        cores = profile.sources.get("cpu_cores")
        same = cores is not None and cores.source == "detected" and cores.value == calibration.cpu.threads
        part = (profile.cpu_cores or 1) / calibration.cpu.threads
        if not same:
            return None
        return measured_device(calibration.cpu, day, part=part, speeds=calibration.training)
    if calibration.cuda is None or profile.gpu_kind != "cuda" or not _detected(profile, "gpu_memory_gib"):
        return None
    same = abs(calibration.cuda.memory_gib - (profile.gpu_memory_gib or 0)) < 1
    return measured_device(calibration.cuda, day, group=group) if same else None


def _detected(profile: Profile, key: str) -> bool:
    """Return whether an answer was detected on this machine and is unchanged in the profile."""
    answer = profile.sources.get(key)
    return answer is not None and answer.source == "detected" and answer.value == getattr(profile, key)
