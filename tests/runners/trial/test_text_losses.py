"""Losses of plain texts begin with the token that the tokenizer puts before a text, in every window."""

from __future__ import annotations

import pytest

from runners.models.resolve import Model
from runners.trial.forgetting import text_losses


@pytest.mark.parametrize("repeats", [1, 200])
@pytest.mark.parametrize("adds_first", [False, True])
def test_every_token_is_predicted_once(tiny: Model, repeats: int, adds_first: bool) -> None:
    import torch
    from tokenizers.processors import TemplateProcessing

    from runners.inference.weights import load_for_inference

    model, tokenizer = load_for_inference(tiny, dtype="float32")
    first = tokenizer.convert_tokens_to_ids("<|im_start|>")
    if adds_first:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<|im_start|> $A", special_tokens=[("<|im_start|>", first)]
        )
    text = "When does the lounge open? " * repeats
    ids = tokenizer.encode(text, add_special_tokens=False)
    total, count, begin = 0.0, 0, [first] * adds_first
    with torch.inference_mode():
        for start in range(0, len(ids), 511):
            part = [*begin, *ids[start : start + 512 - len(begin)]]
            if len(part) > 1:
                log = model(input_ids=torch.tensor([part])).logits[0, :-1].log_softmax(-1)
                total -= float(log.gather(1, torch.tensor(part[1:])[:, None]).sum())
                count += len(part) - 1
    assert count == len(ids) - (not adds_first)
    assert text_losses(model, tokenizer, [text])[0] == pytest.approx(total / count, abs=1e-5)
