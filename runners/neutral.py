"""How likely a model finds ordinary prose that no task is about: the loss that tuning should leave alone.

The passages are our own, of general knowledge, and are shipped. Heavy where it is called: the functions import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("general") / "passages.txt"


def passages() -> tuple[str, ...]:
    """Return the shipped passages, each a paragraph."""
    return tuple(part.strip() for part in FILE.read_text("utf-8").split("\n\n") if part.strip())


def losses(model: Any, tokenizer: Any, texts: Sequence[str]) -> list[float]:
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
