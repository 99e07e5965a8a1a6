"""Resources: what the model, the machine and the time allow."""

from __future__ import annotations

from advisor.costs.tokens import least_memory
from advisor.questionnaire.profile import MIN_RAW_TOKENS, Profile, Thresholds
from advisor.rules.base import Need, Rule
from rag.text.words import count_noun
from runners.resources.memory_estimate import FitVerdict
from runners.resources.memory_terms import MemoryUse

MIN_TRAINING_DATA: Thresholds = {"labelled_examples": (50,), "unlabelled_tokens": (MIN_RAW_TOKENS,)}
"""The thresholds of :func:`can_train`."""
MANY_GPUS = 4
ENCODER_B = 0.78
"""Size of the largest models that are usually tuned whole: XLM-RoBERTa large has 0.56, T5 large 0.77 billion parameters."""
FEW_FOR_ENCODER = 50
GIB = 2**30
HALF_A_CARD = 0.5
"""Share of a card's memory above which 16-bit weights crowd out long rows and batches."""
SMALL_CARD_GIB = 48
FULL_GB_PER_B = 18
"""Memory of full tuning in mixed precision, GB per billion parameters (LLaMA-Factory's table)."""


class Resources(Rule):
    """Rules about effort, memory and machines."""

    family = "resources"


def fits_devices(profile: Profile, use: MemoryUse) -> FitVerdict | None:
    """Return whether training fits the devices with every free saving on; None when something is unknown.

    Several GPUs share it where one does not hold it with room (:func:`advisor.costs.tokens.device_plan`).
    """
    if profile.model_shape is None:
        return None
    return least_memory(profile, use).fits(profile.device_gib)


def can_train(profile: Profile) -> bool:
    """Return whether there is enough to train on (or unknown, with a high gap) and behaviour to teach."""
    if profile.labelled_examples is None and profile.behaviour_gap == "high":
        return True
    return profile.behaviour_needed and (profile.examples_known >= 50 or profile.raw_text >= MIN_RAW_TOKENS)


class RS001(Resources):
    """The simplest method that works is the best one: everything you build makes the next change slower.

    A prompt can be changed in minutes, an index in hours, a fine-tuned model in days.
    Does not apply once it is measured that the simple method is not good enough.
    """

    need = Need.SIMPLE
    weight = 1.5
    always = True
    evidence = ("OpenAI, Optimizing LLM Accuracy: each technique slows iteration",)

    def applies(self, profile: Profile) -> str:
        return "the simplest method that works is the best"


class RS003(Resources):
    """If LoRA fits in memory, prefer it to QLoRA (4 bits): it is faster and as good or better.

    Does not apply when the base model in 16 bits does not fit in memory, or nearly fills it.
    """

    need = Need.PRECISION
    weight = 0.1
    evidence = ("litgpt, torchtune and H2O tables: QLoRA is 2-105 % slower than LoRA",)
    at = MIN_TRAINING_DATA

    def applies(self, profile: Profile) -> str:
        fits = can_train(profile) and fits_devices(profile, "lora") in (None, "yes")
        return "a base model in 16 bits trains faster than one in 4" if fits else ""


class RS004(Resources):
    """A very small model is cheap to fine-tune in full, and fast to run afterwards.

    Does not apply with fewer than 50 examples, which a model would learn by heart; from 0.78 billion parameters on, where
    adapters are as good for less; to labels, for which a classifier tunes a smaller encoder whole; or where new facts are
    missing.
    """

    need = Need.CAPACITY
    weight = 2.0
    evidence = (
        "Bucher & Martini, arXiv 2406.08660: small classifiers tuned in full on 200-500 labels",
        "Tunstall et al., SetFit, arXiv 2209.11055: a 0.36 B model tuned whole on 50 labels passed GPT-3's few-shot",
        "Biderman et al., arXiv 2405.09673: full tuning learns most where capacity is short",
    )
    at = {"model_params_b": (ENCODER_B,), "labelled_examples": (FEW_FOR_ENCODER,)}

    def applies(self, profile: Profile) -> str:
        unknown = profile.labelled_examples is None and profile.behaviour_gap == "high"
        enough = unknown or profile.examples_known >= FEW_FOR_ENCODER
        small = profile.params_b is not None and profile.params_b < ENCODER_B and enough
        small = small and (profile.facts_needed == "known" or not profile.needs_facts)
        small = small and not profile.gives_labels
        return (
            f"all weights of a model of {profile.params_b:.2g} billion parameters can be trained cheaply"
            if small and can_train(profile)
            else ""
        )


class RS005(Resources):
    """With several GPUs and thousands of examples, full fine-tuning is affordable and learns hard skills best.

    Does not apply where it does not fit easily into the GPUs together; nor when general ability must not suffer, or when
    many variants of the model are to be used.
    """

    need = Need.CAPACITY
    weight = 2.0
    evidence = (
        "Biderman et al., arXiv 2405.09673: full tuning ahead of LoRA on code and mathematics",
        "Anyscale, LoRA or full-parameter: full tuning a little ahead on grade-school mathematics",
    )

    at = {"gpu_count": (MANY_GPUS,), "labelled_examples": (5000,)}

    def applies(self, profile: Profile) -> str:
        if profile.devices < MANY_GPUS or profile.examples_known < 5000 or profile.behaviour_gap != "high":
            return ""
        if (
            not profile.params_b
            or not profile.device_gib
            or profile.devices * profile.device_gib < FULL_GB_PER_B * profile.params_b
        ):
            return ""
        return f"full fine-tuning fits easily into {profile.devices} GPUs, and there are {profile.examples_known:,} examples"


class RS006(Resources):
    """Where LoRA would nearly fill the GPU's memory, use 4 bits (QLoRA): otherwise the training may run out of memory.

    Does not apply when even the high end of LoRA's estimate fits.
    """

    need = Need.HEADROOM
    weight = 0.6
    evidence = ("Dettmers et al., QLoRA, arXiv 2305.14314: 4-bit bases train at 16-bit quality",)
    at = MIN_TRAINING_DATA

    def applies(self, profile: Profile) -> str:
        return (
            "LoRA would nearly fill the memory"
            if can_train(profile) and fits_devices(profile, "lora") == "tight"
            else ""
        )


class RS013(Resources):
    """Where the weights in 16 bits take more than half of a small GPU, use 4 bits (QLoRA): long rows need the rest.

    LoRA may still fit with one row at a time and checkpointing, which is slow; with 4 bits enough memory is left.
    Does not apply above 48 GiB, where the other half is enough, without a GPU, or while model or GPU are unknown.
    """

    need = Need.HEADROOM
    weight = 0.6
    evidence = (
        "litgpt, resource tables: LoRA of a 7 B model takes 21 of 24 GB with one row of 1,304 tokens, QLoRA 14",
        "Dettmers et al., QLoRA, arXiv 2305.14314: 4-bit bases train at 16-bit quality",
    )
    at = MIN_TRAINING_DATA

    def applies(self, profile: Profile) -> str:
        weights = 2e9 * (profile.params_b or 0) / GIB
        crowded = (
            profile.has_gpu
            and profile.gpu_memory_gib
            and profile.device_gib
            and profile.device_gib <= SMALL_CARD_GIB
            and weights > HALF_A_CARD * profile.devices * profile.device_gib
        )
        if not crowded or not can_train(profile) or fits_devices(profile, "lora") != "yes":
            return ""
        return f"the weights in 16 bits ({weights:.0f} GiB) take more than half of the GPU's memory"


class RS007(Resources):
    """Without a GPU, training a model of a billion parameters or more is slow: prefer a method without training.

    Does not apply to very small models; where the size is unknown, rule RS009 applies.
    """

    need = Need.LIGHT
    weight = 0.5
    evidence = (
        "measured for this project: LoRA on a 0.135 B model trains 1,000 to 1,500 tokens/s on two cores",
    )
    at = {"model_params_b": (1.0,)}

    def applies(self, profile: Profile) -> str:
        slow = profile.has_gpu is False and profile.params_b is not None and profile.params_b >= 1
        return "there is no GPU to train on" if slow else ""


class RS009(Resources):
    """Without a GPU, and with a model of unknown size, do not plan to train: usual models need a GPU.

    Does not apply once the size is known: a small model trains on a CPU, as the estimates of time and memory then show;
    nor to a model behind an endpoint, which is not trained here anyway.
    """

    need = Need.LIGHT
    weight = 2.5
    evidence = (
        "LLaMA-Factory and Unsloth, requirement tables: 5 to 6 GB of GPU memory for 7 B in 4 bits, none without",
    )

    def applies(self, profile: Profile) -> str:
        unknown = profile.has_gpu is False and profile.params_b is None and not profile.remote
        return "there is no GPU, and the model's size is not known" if unknown else ""


class RS010(Resources):
    """Several GPUs train together when a launcher starts a process for each: memory and hours are for all of them.

    Each has a whole copy where it fits (DDP), else weights, gradients and optimiser state are sharded (FSDP2). Without a
    launcher a run uses one GPU, and answers always come from one. Does not apply to a machine with one GPU or none.
    """

    evidence = (
        "PyTorch, DistributedDataParallel and fully_shard, started by torchrun",
        "torchtitan, benchmarks: 8 B by FSDP on 128 GPUs at 97 % of the speed of 8, each",
    )

    at = {"gpu_count": (2,)}

    def applies(self, profile: Profile) -> str:
        return profile.devices_note


class RS011(Resources):
    """A device without native bf16 computes in another dtype: float16 with a loss scale on a GPU, float32 elsewhere.

    Does not apply where bf16 is native, or where the device is not known well enough.
    """

    evidence = (
        "Micikevicius et al., Mixed Precision Training, arXiv 1710.03740: float16 needs a scaled loss",
        "measured for this project on two cores: matrix products in bf16 about 410 GFLOP/s, in fp32 about 190",
    )

    def applies(self, profile: Profile) -> str:
        return profile.dtype_note


class RS012(Resources):
    """Where prompt, answer and passages nearly fill the model's context, no examples fit: shorten the prompt first.

    Does not apply where the model's context or the length of prompts is not known.
    """

    evidence = ("the context that the model's config.json allows, less the tokens that were counted",)

    def applies(self, profile: Profile) -> str:
        if profile.context_left is None or not profile.no_room_for_examples:
            return ""
        if profile.context_left < 0:
            return f"prompt, answer and passages are {-profile.context_left:,} tokens more than the model's context"
        shots = count_noun(profile.shots_that_fit or 0, "example")
        return f"only {shots} would fit into the model's context beside the prompt"
