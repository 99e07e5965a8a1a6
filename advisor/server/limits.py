"""How much one request may ask for, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What is refused beyond; every refusal names the limit."""

    body_bytes: int = 1 << 20
    messages: int = 256
    characters: int = 100_000
    """Of all messages together, of a prompt, of a question, or of all texts to embed."""
    max_tokens: int = 1024
    """Longest answer that is made, whatever is asked for."""
    inputs: int = 256
    """Texts in one embeddings request."""
    prompts: int = 16
    """Prompts in one completions request."""
    stops: int = 4
    seconds: float = 120.0
    """From the request to the end of its answer, waiting included."""
    body_seconds: float = 10.0
    """For a request's body to arrive."""
    per_minute: int = 0
    """Requests a minute from one address; 0 is no limit."""
