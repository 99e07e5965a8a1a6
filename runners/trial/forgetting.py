"""What tuning cost elsewhere (forgetting): the loss on neutral prose, and general instructions that a program can verify.

:func:`measure_forgetting` measures the base and then each set of tuned weights, both without the plan's
prompts. Several seeds of an arm are averaged text by text and prompt by prompt, as in the trial. An arm has
forgotten when it drops by more than noise on the same texts and prompts: the interval of the paired
difference excludes zero, and a permutation test gives p < 0.05. The neutral passages are the project's own
text of general knowledge, shipped with the package. Torch is imported inside the functions that need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, cast

from rag.evaluation.statistics import paired_test
from rag.files import append_line, append_lines, canonical_json, sha256_text
from runners.plan.arm_names import arm_name, split_arm
from runners.plan.schema import Plan
from runners.plan.steps import EvaluateStep
from runners.plan.train_config import KERNELS
from runners.run_folder import TRIAL, read_journal
from runners.runs.opened import OpenRun
from runners.runs.plan_models import model_identity
from runners.scoring import ifeval

if TYPE_CHECKING:
    from runners.inference.local import LocalGenerator

STEP = "forgetting"
JOURNAL = "forgetting.jsonl"
BASE = "base"
MIN_LOSS_RISE = 0.02
"""Nats per token, a rise of the perplexity by 2 %. A smaller rise is bf16 rounding, even when it is reproducible."""
FORGETTING_P = 0.05
"""Largest p value of the permutation test that counts as a drop."""
TEMPLATE_TOKENS = 64
"""Tokens reserved for what a chat template puts around a prompt."""
Row = dict[str, Any]
NEUTRAL_PASSAGES = Path(__file__).parents[1] / "general" / "passages.txt"


def tuned_arms(plan: Plan) -> tuple[str, ...]:
    """Return the trained arms whose weights some arm answers with; () when the measurement is switched off."""
    used = dict.fromkeys(arm.weights for arm in plan.arms if arm.weights)
    return tuple(name for name in used if name) if plan.forgetting.prompts else ()


def check_forgetting_file(plan: Plan) -> None:
    """Raise BadInput for a file of prompts that cannot be used, before anything is spent."""
    if tuned_arms(plan):
        ifeval.read_prompts(plan.forgetting.file, plan.forgetting.prompts, plan.seed)


def forgetting_inputs(context: OpenRun) -> Row:
    """Return everything that the measurement depends on; it is repeated when any of it changed."""
    from runners.trial.step_runner import quantization_input
    from runners.trial.step_runner import step_inputs as made_from

    plan = context.plan
    asked = ifeval.read_prompts(plan.forgetting.file, plan.forgetting.prompts, plan.seed).prompts
    return {
        "settings": plan.forgetting.model_dump(mode="json"),
        "prompts": _prompts_digest(asked),
        "base": model_identity(context.models.base),
        **({"bases": _identities(context)} if plan.models else {}),
        "weights": {name: made_from(context, plan.train_step(name)) for name in tuned_arms(plan)},
        **({"kernels": plan.kernels} if plan.kernels != KERNELS[0] else {}),
        **quantization_input(plan.model),
    }


def base_of(arm: str) -> str:
    """Return the name of the untuned model in the journal for a tuned arm: "base", of several models "base@ALIAS"."""
    return arm_name(BASE, split_arm(arm)[1])


def _identities(context: OpenRun) -> Row:
    """Return the identity and precision of the model of each tuned arm."""
    from runners.trial.step_runner import quantization_input

    plan = context.plan
    steps = {name: plan.train_step(name) for name in tuned_arms(plan)}
    return {
        base_of(name): {
            "model": model_identity(context.models.base_of(step)),
            **quantization_input(plan.model_of(step)),
        }
        for name, step in steps.items()
    }


def _prompts_digest(prompts: Sequence[ifeval.VerifiablePrompt]) -> str:
    """Return a SHA-256 over prompts and instructions, as 0.2.0 recorded it: measurements are not repeated."""
    rows = [
        f"Prompt(id={prompt.id!r}, text={prompt.text!r}, kinds={prompt.kinds!r}, values={prompt.values!r})"
        for prompt in prompts
    ]
    return sha256_text(f"({', '.join(rows)}{',' * (len(rows) == 1)})")


def measure_forgetting(context: OpenRun) -> Row:
    """Measure every loss and reply that the journal does not hold yet; return the table of drops."""

    plan = context.plan
    inputs = forgetting_inputs(context)
    verifiable = ifeval.read_prompts(plan.forgetting.file, plan.forgetting.prompts, plan.seed)
    texts = neutral_passages()
    arms = {name: plan.train_step(name).seeds for name in tuned_arms(plan)}
    weight_sets: list[tuple[str, int | None]] = []
    for base in dict.fromkeys(map(base_of, arms)):  # model by model: one is in memory at a time
        tuned = [(name, seed) for name, seeds in arms.items() if base_of(name) == base for seed in seeds]
        weight_sets += [(base, None), *tuned]
    too_long = 0
    for done, (name, seed) in enumerate(weight_sets):
        weights = None if seed is None else context.folder.adapter(name, seed)
        generator = cast("LocalGenerator", context.models.generator_here(weights, EvaluateStep(arm=name)))
        asked = [
            prompt
            for prompt in verifiable.prompts
            if _fits(generator, prompt.text, plan.forgetting.max_new_tokens)
        ]
        too_long = len(verifiable.prompts) - len(asked)
        _measure_missing(context, name, _key(inputs, name, seed), generator, texts, asked)
        context.emit({"event": "forgetting.arm", "arm": name, "done": done + 1, "total": len(weight_sets)})
    rows = read_journal(context.folder.path / TRIAL / JOURNAL)
    named = dict.fromkeys([*map(base_of, arms), *arms])
    keys = {name: {_key(inputs, name, seed) for seed in arms.get(name, (None,))} for name in named}
    rows_of = {name: [row for row in rows if row["made_from"] in digests] for name, digests in keys.items()}
    return {
        "prompts": len(verifiable.prompts) - too_long,
        "texts": len(texts),
        "unknown": dict(verifiable.unknown),
        "left_out": verifiable.left_out,
        "too_long": too_long,
        "max_new_tokens": plan.forgetting.max_new_tokens,
        "source": str(plan.forgetting.file or "shipped"),
        "arms": [
            _compare(plan, name, seeds, rows_of[base_of(name)], rows_of[name]) for name, seeds in arms.items()
        ],
    }


def neutral_passages() -> tuple[str, ...]:
    """Return the shipped passages, each a paragraph."""
    return tuple(part.strip() for part in NEUTRAL_PASSAGES.read_text("utf-8").split("\n\n") if part.strip())


def text_losses(model: Any, tokenizer: Any, texts: Sequence[str]) -> list[float]:
    """Return each text's mean negative log likelihood per token in nats, without instructions or chat template.

    A text longer than the model's context is read in windows, so that none of it is cut off. Each begins with the
    token that the tokenizer puts before a text, without which some models (Gemma) predict nothing right; where it has
    none, the first token of a text has no context and is not counted.

    Args:
        model: a causal language model of transformers.
        tokenizer: its tokenizer.
        texts: the texts.
    """
    import torch
    import torch.nn.functional as F

    context_length = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2048
    losses = []
    plain = tokenizer.encode("a", add_special_tokens=False)
    begin = [first for first in tokenizer.encode("a")[:1] if first != plain[0]]
    with torch.inference_mode():
        for text in texts:
            ids = tokenizer.encode(text, add_special_tokens=False)
            total, counted = 0.0, 0
            # Without a first token, windows overlap by one token, so that each token but the text's first is predicted once.
            for start in range(0, max(1, len(ids) - 1 + len(begin)), context_length - 1):
                part = [*begin, *ids[start : start + context_length - len(begin)]]
                window = torch.tensor([part], device=model.device)
                logits = model(input_ids=window, use_cache=False).logits[0, :-1].float()
                total += float(F.cross_entropy(logits, window[0, 1:], reduction="sum"))
                counted += window.shape[1] - 1
            losses.append(total / max(1, counted))
    return losses


def _measure_missing(
    context: OpenRun,
    name: str,
    key: str,
    generator: LocalGenerator,
    texts: Sequence[str],
    asked: Sequence[ifeval.VerifiablePrompt],
) -> None:
    """Append what the journal lacks of one set of weights, batch by batch."""

    journal = context.folder.path / TRIAL / JOURNAL
    journal.parent.mkdir(exist_ok=True)
    measured = {
        (stored["kind"], stored["id"]) for stored in read_journal(journal) if stored["made_from"] == key
    }
    row = {"made_from": key, "weights": name}
    for number, text in enumerate(texts):
        if ("loss", str(number)) not in measured:
            (loss,) = text_losses(generator.model, generator.tokenizer, [text])
            append_line(journal, {**row, "kind": "loss", "id": str(number), "value": round(loss, 6)})
    known = {position for position, prompt in enumerate(asked) if ("prompt", prompt.id) in measured}

    def journal_row(prompt: ifeval.VerifiablePrompt, completion: Any) -> Row:
        value = float(prompt.followed(completion.text))
        reply = {"id": prompt.id, "reply": completion.text, "finish": completion.finish}
        return {**row, "kind": "prompt", **reply, "value": value}

    def append_batch(batch: list[int], completions: Sequence[Any]) -> None:
        append_lines(
            journal,
            [
                journal_row(asked[position], completion)
                for position, completion in zip(batch, completions, strict=True)
            ],
        )

    if len(known) < len(asked):
        chats = [[{"role": "user", "content": prompt.text}] for prompt in asked]
        generator.generate(chats, context.plan.forgetting.max_new_tokens, append_batch, known=known)


def _compare(plan: Plan, name: str, seeds: Sequence[int], before: Sequence[Row], after: Sequence[Row]) -> Row:
    """Return one arm's row of the table: both measures before and after, with the intervals of the paired differences.

    ``after`` holds the rows of all seeds; what they measured of one text or prompt is averaged.
    """
    table_row: Row = {
        "arm": name,
        "arms": [arm.arm for arm in plan.arms if arm.weights == name],
        "seeds": list(seeds),
    }
    warned = {}
    for kind, label in (("loss", "loss"), ("prompt", "followed")):
        before_by_id, after_by_id = (_means(rows, kind) for rows in (before, after))
        pair = paired_test(
            name,
            base_of(name),
            [after_by_id[id] for id in before_by_id],
            list(before_by_id.values()),
            plan.seed,
        )
        count = max(1, len(before_by_id))
        table_row |= {
            f"{label}_before": round(sum(before_by_id.values()) / count, 4),
            f"{label}_after": round(sum(after_by_id[id] for id in before_by_id) / count, 4),
            f"{label}_interval": {
                "difference": pair.difference,
                "low": pair.low,
                "high": pair.high,
                "p": pair.p,
                "n": len(before_by_id),
            },
        }
        worse = pair.low > 0 and pair.difference >= MIN_LOSS_RISE if kind == "loss" else pair.high < 0
        warned[label] = bool(before_by_id) and worse and pair.p < FORGETTING_P
    cut = [sum(row.get("finish") == "length" for row in rows) for rows in (before, after)]
    asked = table_row["followed_interval"]["n"]
    table_row |= {"n": asked, "cut_before": cut[0], "cut_after": cut[1] / max(1, len(seeds))}
    return {**table_row, "warned": any(warned.values()), "text": _warning(table_row, warned)}


def _means(rows: Sequence[Row], kind: str) -> dict[str, float]:
    """Return each text's or prompt's value, the mean over all seeds, by its id."""
    values_by_id: dict[str, list[float]] = {}
    for row in rows:
        if row["kind"] == kind:
            values_by_id.setdefault(row["id"], []).append(row["value"])
    return {id: fmean(values) for id, values in values_by_id.items()}


def _warning(row: Row, warned: dict[str, bool]) -> str:
    """Return the warning, "" when nothing dropped by more than noise."""
    drops = []
    if warned["loss"]:
        interval = row["loss_interval"]
        drops.append(
            f"its loss on general text rose from {row['loss_before']:.2f} to {row['loss_after']:.2f} "
            f"({interval['difference']:+.2f} [{interval['low']:+.2f}, {interval['high']:+.2f}])"
        )
    if warned["followed"]:
        was, now = (f"{round(row[f'followed_{when}'] * row['n'], 1):g}" for when in ("before", "after"))
        drops.append(f"it follows {now} of {row['n']} general instructions, the base {was}")
    note = f" (mean of {len(row['seeds'])} training seeds)" if len(row["seeds"]) > 1 else ""
    return f"{row['arm']} lost some of the model's general ability: {'; '.join(drops)}{note}" if drops else ""


def _key(inputs: Row, name: str, seed: int | None) -> str:
    """Return the digest of what one set of weights' rows depend on; the base has no seed."""
    weights = {**inputs.get("bases", {}), **inputs["weights"]}.get(name)
    shared = {key: value for key, value in inputs.items() if key not in ("weights", "bases")}
    return sha256_text(canonical_json({**shared, "weights": weights, "seed": seed}))


def _fits(generator: LocalGenerator, text: str, limit: int) -> bool:
    context_length = getattr(generator.model.config.get_text_config(), "max_position_embeddings", None)
    return not context_length or generator.count_tokens(text) + TEMPLATE_TOKENS + limit <= context_length
