"""Parts of docs/scale.md on training on many GPUs, every figure computed by the formulas that the advice uses."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import mean

from advisor.catalog import gpus
from advisor.costs.communication import (
    DeviceGroup,
    communication_bytes,
    communication_seconds,
    network_bytes,
)
from advisor.costs.training_time import card_device, device_group, training_seconds
from benchmarks.estimates import read_record, training_runs
from benchmarks.published_retrieval import RETRIEVAL_FIGURES
from benchmarks.scale import FIGURES, PublishedFigure, named_shape
from runners.resources.memory_estimate import memory_in_group, node_replicas
from runners.resources.memory_terms import MemorySetup, MemoryUse, ParallelKind
from runners.resources.model_shape import ModelShape
from scripts.pages import Part, table

MODELS = (
    ("8B", "llama-3.1-8b-instruct"),
    ("32B", "qwen2.5-32b-instruct"),
    ("70B", "llama-3.1-70b-instruct"),
)
METHODS: tuple[MemoryUse, ...] = ("lora", "qlora", "full")
COUNTS = (1, 2, 4, 8, 16)
CARD = "H100 80GB"
PER_NODE = 8
ROW_TOKENS = 1024
DEVICE_TOKENS = 2048
"""Tokens that each GPU has in an optimiser step of the tables of time."""

MEMORY = """\
GiB, likely, on GPUs of 80 GiB: one row of {row} tokens in a pass, activations computed again, adapters of rank 16, this
project's loop (`tunewise estimate --model NAME --method M --gpu "{card}" --devices N`, for 16 `--nodes 2` too).
**Bold** fits with room, *italics* is tight, plain does not fit. 16 GPUs are two machines of eight: where the shards fit in
eight with room, each machine has all of them, and a GPU needs as much memory as with eight. Full tuning on one GPU
and by ddp has 8-bit AdamW; sharded it has AdamW with fp32 moments."""

TIME = """\
On {card}, rented at {price:g} USD an hour each ({source} {day}), 16 GPUs as two machines of eight with 400 Gb/s a GPU
between them: likely hours, and USD for all GPUs. Each GPU has {tokens:,} tokens in a step; rows of {row:,} tokens. A
range is 0.4 to 3 times these and wider where much is exchanged: `tunewise estimate ... --tokens 1000000` prints it. –
does not fit."""

TRAFFIC = """\
GB that each GPU receives, and seconds over NVLink ({card}) and between machines: by ddp once an optimiser step, by fsdp
in every forward and backward pass. On two machines that each have all shards, gradients alone go between them, once a
step; where the shards are spread over both, all of it does, in every pass. Where one takes longer than computing does, it
sets the time; a part is hidden behind computing. Larger steps need fewer of them.

By these formulas, and with so many tokens in a step, two machines train about twice as fast as one in which the shards fit
with room. Where they do not fit in one, or only tightly, all weights cross the network, and two may be slower than one:
full tuning of 32B in the table of hours."""

PUBLISHED = """\
No constant was fitted to published figures of several GPUs. Memory: off by {error:.1f} % on average over {peaks} published
peaks of two GPUs. Times are likely values of wide ranges; of {runs} recorded speeds on several GPUs, from {sources} sources,
{inside} lie inside (`python -m benchmarks.estimates`). `benchmarks/FIGURES.md` has every figure."""


def training_parts() -> dict[str, Part]:
    """Return the generated parts of docs/scale.md on training on many GPUs."""
    return {
        "gpu-memory": gpu_memory,
        "gpu-hours": gpu_hours,
        "gpu-traffic": gpu_traffic,
        "training-figures": training_figures,
    }


def gpu_memory() -> list[str]:
    """Return the memory of each GPU, by model, method and number of GPUs."""
    text = MEMORY.format(row=f"{ROW_TOKENS:,}", card=CARD)
    rows = ((name, use, *(memory_cell(shape, use, n) for n in COUNTS)) for name, use, shape in _cells())
    return [text, "", *table(_columns(), rows)]


def gpu_hours() -> list[str]:
    """Return hours and cost of a million tokens, by model, method and number of GPUs."""
    card = gpus.find_gpu(CARD)
    assert card is not None
    text = TIME.format(
        card=CARD,
        price=card.usd_hour,
        source=card.source.partition("rent: ")[2],
        day=card.day,
        tokens=DEVICE_TOKENS,
        row=ROW_TOKENS,
    )
    rows = ((name, use, *(time_cell(shape, use, n) for n in COUNTS)) for name, use, shape in _cells())
    return [text, "", *table(_columns(), rows)]


def gpu_traffic() -> list[str]:
    """Return what GPUs exchange, by model, method and way of sharing."""
    columns = ("GB, 8 GPUs", "s, one machine", "GB between two of 8", "s, a step of one pass on two")
    return [
        TRAFFIC.format(card=CARD),
        "",
        *table(("model", "method", "parallel", *columns), traffic_rows(_shapes())),
    ]


def training_figures() -> list[str]:
    """Return how near the formulas of training are to published figures, in a few sentences."""
    peaks = [row for row in FIGURES["memory"]() if "tokens, each of 2" in row.what]
    runs = [run for run in training_runs(read_record()) if run.kind == "several GPUs"]
    text = PUBLISHED.format(
        error=100 * mean(abs(row.error) for row in peaks),
        peaks=len(peaks),
        runs=len(runs),
        sources=len({run.source for run in runs}),
        inside=sum(run.inside for run in runs),
    )
    return text.splitlines()


FIGURES_INTRO = """\
# The formulas and published figures

The figures of [docs/scale.md](../docs/scale.md) are computed by formulas. Here they are compared with published ones.
`python -m benchmarks.scale` and `python -m benchmarks.published_retrieval` print the tables, and tests check every row
against the tolerance that it names. Where the source is a formula, the figure was worked out from it by hand."""


def figures_page() -> list[str]:
    """Return the page of all published figures beside ours."""
    columns = ("figure", "source", "published", "our formula", "difference", "why")
    training = (row for figures in FIGURES.values() for row in figures())
    retrieval = (row for figures in RETRIEVAL_FIGURES.values() for row in figures())
    return [
        FIGURES_INTRO,
        *("", "## Training", "", *table(columns, map(published_cells, training))),
        *("", "## Retrieval and serving", "", *table(columns, map(published_cells, retrieval))),
    ]


def _columns() -> tuple[str, ...]:
    return ("model", "method", *(f"{count} GPU{'s' if count > 1 else ''}" for count in COUNTS))


def _shapes() -> list[tuple[str, ModelShape]]:
    return [(name, named_shape(model)) for name, model in MODELS]


def _cells() -> list[tuple[str, MemoryUse, ModelShape]]:
    return [(name, use, shape) for name, shape in _shapes() for use in METHODS]


def memory_cell(shape: ModelShape, use: MemoryUse, count: int) -> str:
    """Return one GPU's likely GiB and how the group shares the model, marked by whether it fits."""
    setup = MemorySetup(seq_len=ROW_TOKENS, devices=count)
    parallel, memory = memory_in_group(shape, use, setup, 80.0, -(-count // PER_NODE))
    mark = {"yes": "**", "tight": "*", "no": "", None: ""}[memory.fits(80.0)]
    shown = f"{memory.likely:.0f} {parallel}" if count > 1 else f"{memory.likely:.0f}"
    return f"{mark}{shown}{mark}"


def time_cell(shape: ModelShape, use: MemoryUse, count: int) -> str:
    """Return likely hours and USD of a million tokens; a dash where it does not fit."""
    card = gpus.find_gpu(CARD)
    assert card is not None
    assert card.usd_hour is not None
    setup = MemorySetup(seq_len=ROW_TOKENS, devices=count)
    parallel, memory = memory_in_group(shape, use, setup, 80.0, -(-count // PER_NODE))
    if memory.fits(80.0) == "no":
        return "–"
    group = group_of_count(shape, use, parallel, count)
    device = card_device(card, count, group) if count > 1 else card_device(card)
    hours = training_seconds(shape, use, device, [(1e6, ROW_TOKENS)]).likely / 3600
    return f"{hours:.3g} h, {hours * count * card.usd_hour:.2g} USD"


def group_of_count(shape: ModelShape, use: MemoryUse, parallel: ParallelKind, count: int) -> DeviceGroup:
    """Return how so many GPUs, eight on each machine, share a training."""
    card = gpus.find_gpu(CARD)
    assert card is not None
    nodes = -(-count // PER_NODE)
    setup = MemorySetup(seq_len=ROW_TOKENS, devices=count, parallel=parallel)
    replicas = node_replicas(shape, use, setup, 80.0, nodes)
    return device_group((card,), count, parallel, count * DEVICE_TOKENS, nodes, replicas)


def traffic_rows(shapes: Iterable[tuple[str, ModelShape]]) -> Iterable[tuple[str, ...]]:
    """Yield what is exchanged for each model and way of sharing it, on one machine of 8 GPUs and on two."""
    ways: tuple[tuple[MemoryUse, ParallelKind], ...] = (
        ("lora", "ddp"),
        ("lora", "fsdp"),
        ("qlora", "fsdp"),
        ("qlora", "fsdp_4bit"),
        ("full", "fsdp"),
    )
    for name, shape in shapes:
        for use, parallel in ways:
            near, far = (group_of_count(shape, use, parallel, machines * PER_NODE) for machines in (1, 2))
            between = network_bytes(shape, use, far) or communication_bytes(shape, use, far)
            each = "a pass" if parallel != "ddp" and far.replicas == 1 else "a step"
            yield (
                name,
                use,
                parallel,
                f"{communication_bytes(shape, use, near) / 1e9:.3g}",
                f"{communication_seconds(shape, use, near).likely:.2g}",
                f"{between / 1e9:.3g} {each}",
                f"{communication_seconds(shape, use, far).likely:.2g}",
            )


def published_cells(row: PublishedFigure) -> tuple[str, ...]:
    """Return the cells of one published figure."""
    return (
        row.what,
        f"[{row.source}]({row.url})",
        f"{figure_text(row.published)} {row.unit}",
        figure_text(row.ours),
        f"{100 * row.error:+.0f} %" if abs(row.error) >= 0.005 else "0 %",
        row.note,
    )


def figure_text(value: float) -> str:
    """Return four digits, or a whole number with commas where there are more."""
    return f"{value:.4g}" if value < 10_000 else f"{value:,.0f}"
