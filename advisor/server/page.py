"""The page at `/`: one file, whose policy allows its own style and script by their hashes and nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path


def page() -> tuple[str, dict[str, str]]:
    """Return the page and the headers it is sent with."""
    text = Path(__file__).with_name("ask.html").read_text("utf-8")
    style, script = (_hash(_inside(text, tag)) for tag in ("style", "script"))
    policy = (
        f"default-src 'none'; style-src '{style}'; script-src '{script}'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; img-src data:"
    )
    return text, {"Content-Security-Policy": policy}


def _inside(text: str, tag: str) -> str:
    (found,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
    return str(found)


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
