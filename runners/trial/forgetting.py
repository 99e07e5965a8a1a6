"""What tuning cost elsewhere: neutral prose and verifiable instructions, before and after, pair by pair.

Before is the base, after each set of tuned weights, both without the plan's prompts; several seeds of an arm are
averaged text by text and prompt by prompt, as the trial does. Forgotten is what drops by more than noise on the same
texts and prompts: an interval that excludes zero and a permutation test below 5 %.

How likely a model finds ordinary prose that no task is about: the loss that tuning should leave alone.

The passages are our own, of general knowledge, and are shipped. Heavy where it is called: the functions import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, cast

from rag.files import append_line, append_lines, canonical_json, sha256_text
from runners.plan.schema import Plan
from runners.plan.steps import EvaluateStep
from runners.plan.train_config import KERNELS
from runners.run_folder import TRIAL, read_journal
from runners.runs.session import RunContext, model_identity
from runners.scoring import ifeval

if TYPE_CHECKING:
    from runners.inference.local import LocalGenerator
from pathlib import Path

STEP, JOURNAL, BASE = "forgetting", "forgetting.jsonl", "base"
MIN_LOSS_RISE = 0.02
"""Nats per token: a rise of 2 % of the perplexity. Less is rounding of bf16, however surely it repeats."""
FORGETTING_P = 0.05
TEMPLATE_TOKENS = 64
"""Room left for what a chat template puts around a prompt."""

Row = dict[str, Any]


def tuned_arms(plan: Plan) -> tuple[str, ...]:
    """Return the train steps' arms whose weights some arm answers with; none when the guard is switched off."""
    used = dict.fromkeys(arm.weights for arm in plan.arms if arm.weights)
    return tuple(name for name in used if name) if plan.forgetting.prompts else ()


def check_forgetting_file(plan: Plan) -> None:
    """Raise BadInput for a file of prompts that cannot be used, before anything is spent."""
    if tuned_arms(plan):
        ifeval.read_prompts(plan.forgetting.file, plan.forgetting.prompts, plan.seed)


def forgetting_inputs(context: RunContext) -> Row:
    """Return what the measurement is made from; it is taken again when any of it changed."""
    from runners.trial.step_runner import step_inputs as made_from

    plan = context.plan
    asked = ifeval.read_prompts(plan.forgetting.file, plan.forgetting.prompts, plan.seed).prompts
    return {
        "settings": plan.forgetting.model_dump(mode="json"),
        "prompts": sha256_text(repr(asked)),
        "base": model_identity(context.base),
        "weights": {name: made_from(context, plan.train_step(name)) for name in tuned_arms(plan)},
        **({"kernels": plan.kernels} if plan.kernels != KERNELS[0] else {}),
    }


def measure_forgetting(context: RunContext) -> Row:
    """Take every loss and reply that the journal does not hold yet, and return the table of drops."""

    plan, made = context.plan, forgetting_inputs(context)
    read = ifeval.read_prompts(plan.forgetting.file, plan.forgetting.prompts, plan.seed)
    texts = neutral_passages()
    arms = {name: plan.train_step(name).seeds for name in tuned_arms(plan)}
    every = [(BASE, None), *((name, seed) for name, seeds in arms.items() for seed in seeds)]
    too_long = 0
    for done, (name, seed) in enumerate(every):
        weights = None if seed is None else context.run.adapter(name, seed)
        generator = cast("LocalGenerator", context.generator(weights, EvaluateStep(arm=name)))
        asked = [p for p in read.prompts if _fits(generator, p.text, plan.forgetting.max_new_tokens)]
        too_long = len(read.prompts) - len(asked)
        _take(context, name, _key(made, name, seed), generator, texts, asked)
        context.emit({"event": "forgetting.arm", "arm": name, "done": done + 1, "total": len(every)})
    rows = read_journal(context.run.path / TRIAL / JOURNAL)
    keys = {name: {_key(made, name, seed) for seed in arms.get(name, (None,))} for name in (BASE, *arms)}
    of = {name: [r for r in rows if r["made_from"] in known] for name, known in keys.items()}
    return {
        "prompts": len(read.prompts) - too_long,
        "texts": len(texts),
        "unknown": dict(read.unknown),
        "left_out": read.left_out,
        "too_long": too_long,
        "max_new_tokens": plan.forgetting.max_new_tokens,
        "source": str(plan.forgetting.file or "shipped"),
        "arms": [_compared(plan, name, seeds, of[BASE], of[name]) for name, seeds in arms.items()],
    }


def _take(
    context: RunContext,
    name: str,
    key: str,
    generator: LocalGenerator,
    texts: Sequence[str],
    asked: Sequence[ifeval.VerifiablePrompt],
) -> None:
    """Put what is missing of one set of weights into the journal, batch by batch."""

    journal = context.run.path / TRIAL / JOURNAL
    journal.parent.mkdir(exist_ok=True)
    have = {(r["kind"], r["id"]) for r in read_journal(journal) if r["made_from"] == key}
    row = {"made_from": key, "weights": name}
    for number, text in enumerate(texts):
        if ("loss", str(number)) not in have:
            (loss,) = text_losses(generator.model, generator.tokenizer, [text])
            append_line(journal, {**row, "kind": "loss", "id": str(number), "value": round(loss, 6)})
    known = {n for n, p in enumerate(asked) if ("prompt", p.id) in have}

    def told(prompt: ifeval.VerifiablePrompt, completion: Any) -> Row:
        value = float(prompt.followed(completion.text))
        reply = {"id": prompt.id, "reply": completion.text, "finish": completion.finish}
        return {**row, "kind": "prompt", **reply, "value": value}

    def keep(batch: list[int], completions: Sequence[Any]) -> None:
        append_lines(journal, [told(asked[at], one) for at, one in zip(batch, completions, strict=True)])

    if len(known) < len(asked):
        chats = [[{"role": "user", "content": p.text}] for p in asked]
        generator.generate(chats, context.plan.forgetting.max_new_tokens, keep, known=known)


def _compared(
    plan: Plan, name: str, seeds: Sequence[int], before: Sequence[Row], after: Sequence[Row]
) -> Row:
    """Return one arm's table row: both measures before and after, with the intervals of the paired differences.

    ``after`` holds the rows of all seeds; what they measured of one text or prompt is averaged.
    """
    from rag.evaluation.statistics import paired_test

    found: Row = {"arm": name, "arms": [a.arm for a in plan.arms if a.weights == name], "seeds": list(seeds)}
    warned = {}
    for kind, label in (("loss", "loss"), ("prompt", "followed")):
        was, now = (_means(rows, kind) for rows in (before, after))
        pair = paired_test(name, BASE, [now[i] for i in was], list(was.values()), plan.seed)
        count = max(1, len(was))
        found |= {
            f"{label}_before": round(sum(was.values()) / count, 4),
            f"{label}_after": round(sum(now[i] for i in was) / count, 4),
            f"{label}_interval": {
                "difference": pair.difference,
                "low": pair.low,
                "high": pair.high,
                "p": pair.p,
                "n": len(was),
            },
        }
        worse = pair.low > 0 and pair.difference >= MIN_LOSS_RISE if kind == "loss" else pair.high < 0
        warned[label] = bool(was) and worse and pair.p < FORGETTING_P
    cut = [sum(r.get("finish") == "length" for r in rows) for rows in (before, after)]
    asked = found["followed_interval"]["n"]
    found |= {"n": asked, "cut_before": cut[0], "cut_after": cut[1] / max(1, len(seeds))}
    return {**found, "warned": any(warned.values()), "text": _said(found, warned)}


def _means(rows: Sequence[Row], kind: str) -> dict[str, float]:
    """Return each text's or prompt's value, the mean of all seeds."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["kind"] == kind:
            found.setdefault(row["id"], []).append(row["value"])
    return {id: fmean(values) for id, values in found.items()}


def _said(row: Row, warned: dict[str, bool]) -> str:
    """Return the warning in words, "" when nothing dropped by more than noise."""
    said = []
    if warned["loss"]:
        d = row["loss_interval"]
        said.append(
            f"its loss on neutral prose rose from {row['loss_before']:.2f} to {row['loss_after']:.2f} "
            f"({d['difference']:+.2f} [{d['low']:+.2f}, {d['high']:+.2f}])"
        )
    if warned["followed"]:
        was, now = (f"{round(row[f'followed_{when}'] * row['n'], 1):g}" for when in ("before", "after"))
        said.append(f"it follows {now} of {row['n']} general instructions, the base {was}")
    several = f" (mean of {len(row['seeds'])} training seeds)" if len(row["seeds"]) > 1 else ""
    return f"{row['arm']} has forgotten: {'; '.join(said)}{several}" if said else ""


def _key(made: Row, name: str, seed: int | None) -> str:
    """Return the digest of what one set of weights' rows are made from; the base has no seed."""
    own = None if name == BASE else made["weights"][name]
    shared = {key: value for key, value in made.items() if key != "weights"}
    return sha256_text(canonical_json({**shared, "weights": own, "seed": seed}))


def _fits(generator: LocalGenerator, text: str, limit: int) -> bool:
    room = getattr(generator.model.config.get_text_config(), "max_position_embeddings", None)
    return not room or generator.count_tokens(text) + TEMPLATE_TOKENS + limit <= room


NEUTRAL_PASSAGES = Path(__file__).parents[1] / "general" / "passages.txt"


def neutral_passages() -> tuple[str, ...]:
    """Return the shipped passages, each a paragraph."""
    return tuple(part.strip() for part in NEUTRAL_PASSAGES.read_text("utf-8").split("\n\n") if part.strip())


def text_losses(model: Any, tokenizer: Any, texts: Sequence[str]) -> list[float]:
    """Return each text's mean negative log likelihood per token, in nats, without instructions or chat template.

    A text that is longer than the model reads is read in windows, so that none of it is cut off; the first token of
    a window has nothing before it and is not counted.
    """
    import torch
    import torch.nn.functional as F

    room = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2048
    found = []
    with torch.inference_mode():
        for text in texts:
            ids = tokenizer.encode(text, add_special_tokens=False)
            total, counted = 0.0, 0
            for start in range(0, max(1, len(ids) - 1), room - 1):
                window = torch.tensor([ids[start : start + room]], device=model.device)
                logits = model(input_ids=window, use_cache=False).logits[0, :-1].float()
                total += float(F.cross_entropy(logits, window[0, 1:], reduction="sum"))
                counted += window.shape[1] - 1
            found.append(total / max(1, counted))
    return found
