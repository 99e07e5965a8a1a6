"""Whether a base model's name means anything: a known model, a folder, an endpoint, or an id of the model hub."""

from __future__ import annotations

import difflib
import re

from advisor.facts import models, prices
from advisor.values import names_a_path
from rag.errors import BadInput

HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
ALLOWED = "allowed: a known name, a folder, openai:NAME@URL, or a hub id OWNER/NAME"


def check_model(name: str | None, sized: bool = False) -> str:
    """Return what should be said about a model's name, "" when nothing; ``sized`` when its size was answered.

    Raises BadInput, with the closest known name, for a name that means nothing.
    """
    if not name or models.find(name) or names_a_path(name):
        return ""
    if name.startswith("openai:"):
        from runners.models import parse_remote

        parse_remote(name)
        return ""
    if HUB_ID.match(name):
        return "" if sized else f"the size of {name} is not known here: model_params_b would tell it"
    raise BadInput(f"unknown model {name!r}", _hint(name))


def closest(name: str) -> str | None:
    """Return the known model whose name is most like this one, None when none is."""
    close = difflib.get_close_matches(
        name.lower(), [model.name for model in models.models()], n=1, cutoff=0.5
    )
    return close[0] if close else None


def _hint(name: str) -> str:
    if prices.find(name):
        return f"it is a hosted model: say where, as in openai:{name}@https://HOST/v1"
    if name.startswith((".", "/", "~")):
        return f"there is no such folder; {ALLOWED}"
    meant = closest(name)
    return f"did you mean {meant}? ({ALLOWED})" if meant else ALLOWED
