"""What each device of a group holds and sends, in bytes: the terms that differ from those of one device. No torch.

Four ways to share a model among N devices (:data:`ParallelKind`):

- ddp: a whole copy in each; gradients are averaged, in buckets that exist beside them
  (``torch.nn.parallel.DistributedDataParallel``, ``gradient_as_bucket_view=False``).
- fsdp: weights, gradients and optimiser state are sharded (``torch.distributed.fsdp.fully_shard``, one unit for each decoder
  layer and one for the rest). A layer is whole while it computes and the next one is gathered meanwhile; embedding, head
  and last norm stay whole from the forward to the end of the backward pass, as the root unit is not resharded. 4-bit
  weights are not sharded: each device holds them whole.
- fsdp_4bit: the same with the 4-bit weights sharded too.
- tensor: inference; each matrix is cut into N parts that compute together, keys and values by heads (vLLM, Megatron-LM).

Rows are never shared: each device has the activations and logits of its own rows, as one device has of all.
The formulas of time are in :mod:`advisor.costs.communication`.
"""

from __future__ import annotations

from runners.resources import memory_terms
from runners.resources.memory_terms import MemorySetup, MemoryUse
from runners.resources.model_shape import ModelShape

GATHERED_LAYERS = 2
"""Decoder layers that are whole at once under FSDP: one computes while the next one is gathered (torch's default of one
prefetched unit, https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html)."""
REFUSED_WHEN_SHARDED = ("adamw_8bit", "paged_adamw", "paged_adamw_8bit", "adafactor")
"""Optimisers that training refuses under FSDP: their states were not tested on sharded weights."""


def is_sharded(setup: MemorySetup) -> bool:
    """Return whether weights, gradients and optimiser state are divided among several devices."""
    return setup.devices > 1 and setup.parallel != "ddp"


def shard_count(setup: MemorySetup) -> int:
    """Return the number of devices that the trained state is divided among; 1 for whole copies."""
    return setup.devices if is_sharded(setup) else 1


def whole_weight_bytes(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> float:
    """Bytes of the base's weights that every device holds whole: all, without sharding; the 4-bit ones, under fsdp."""
    if not is_sharded(setup):
        return memory_terms.weight_bytes(shape, use, setup)
    if use == "qlora" and setup.parallel == "fsdp":
        quantised = memory_terms.QUANTISED_BYTES["nf4" if setup.weights == "nf4" else "nf4-dq"]
        return quantised * (shape.blocks - shape.expert_params)
    return 0.0


def held_weight_bytes(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> float:
    """Bytes of the base's weights that one device holds: whole ones + sharded ones / N.

    bf16: 2 P / N. Llama 3.1 70B on 8 devices: 131.5 GiB / 8 = 16.4 GiB.
    """
    whole = whole_weight_bytes(shape, use, setup)
    return whole + (memory_terms.weight_bytes(shape, use, setup) - whole) / shard_count(setup)


def gathered_bytes(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> float:
    """Bytes of sharded weights that are whole for a moment: :data:`GATHERED_LAYERS` layers, and what is no layer.

    At most what the other devices hold, (N - 1) / N of the sharded weights. 0 for tensor parallelism, which gathers none.
    Llama 3.1 70B in bf16: a layer has 1.6 GiB, embedding and head together 3.9 GiB.
    """
    if not is_sharded(setup) or use == "inference":
        return 0.0
    sharded = memory_terms.weight_bytes(shape, use, setup) - whole_weight_bytes(shape, use, setup)
    value = 4 if setup.prepared and use == "qlora" else memory_terms.bytes_per_value(use, setup)
    ends = min(sharded, float(value * (shape.params - shape.blocks)))
    layers = GATHERED_LAYERS * (sharded - ends) / shape.layers
    return min(layers + ends, sharded * (1 - 1 / setup.devices))


def bucket_bytes(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> float:
    """Bytes of the buckets in which ddp averages gradients, held all the time: as large as all trained gradients.

    0 on one device and sharded. DistributedDataParallel's documentation of ``gradient_as_bucket_view``: views into the
    buckets would save memory "equal to the total gradients size".
    """
    if setup.devices <= 1 or is_sharded(setup) or use == "inference":
        return 0.0
    number, value = memory_terms.trained_parameters(shape, use, setup)
    return float(number * value)


def unreduced_gradient_bytes(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> float:
    """Bytes of whole gradients at the end of a backward pass under fsdp: of one layer, embedding and head.

    They are whole until they are reduced and scattered. At most what the other devices hold in the end; those of adapters
    (under 1 % of the weights) are not counted.
    """
    if not is_sharded(setup) or use != "full":
        return 0.0
    number, value = memory_terms.trained_parameters(shape, use, setup)
    one = shape.blocks / shape.layers + shape.params - shape.blocks
    return value * min(one, number * (1 - 1 / setup.devices))


def divided_kv_cache_bytes(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> float:
    """Bytes of the KV cache on one device: 2 x layers x key/value heads x head size x bytes x tokens, over the devices.

    Heads are not cut: beyond as many devices as there are key/value heads each holds one head's.
    Llama 3.1 70B: 320 KiB a token in bf16, over all devices.
    """
    return memory_terms.kv_cache_bytes(shape, use, setup) / min(shard_count(setup), shape.kv_heads)


def ddp_traffic_bytes(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> float:
    """Bytes that each device sends in one optimiser step under ddp: 2 (N - 1) / N x bytes of the trained gradients.

    An all-reduce in a ring is a reduce-scatter and an all-gather (Patarasuk & Yuan, "Bandwidth optimal all-reduce
    algorithms for clusters of workstations", JPDC 2009). LoRA of rank 16 on all linear layers of Llama 3.1 70B, 207 million
    fp32 gradients: at most 1.7 GB.
    """
    number, value = memory_terms.trained_parameters(shape, use, setup)
    return 2.0 * number * value * (1 - 1 / setup.devices)


def fsdp_traffic_bytes(shape: ModelShape, use: MemoryUse, setup: MemorySetup) -> float:
    """Bytes that each device receives in one forward and backward pass under fsdp.

    2 (N - 1) / N x bytes of the sharded weights, which are gathered for the forward and again for the backward pass
    (Rajbhandari et al., ZeRO, arXiv 1910.02054, section 7), and (N - 1) / N x bytes of the trained gradients, which are
    reduced and scattered. Counted with embedding and head twice, though they stay whole between the passes: an upper bound.
    A frozen Llama 3.1 70B on 8 devices: 2 x 141 GB x 7/8 = 247 GB.
    """
    sharded = memory_terms.weight_bytes(shape, use, setup) - whole_weight_bytes(shape, use, setup)
    number, value = memory_terms.trained_parameters(shape, use, setup)
    adapters = 0 if use == "full" else 2 * number * value
    return (2.0 * sharded + adapters + number * value) * (1 - 1 / setup.devices)
