"""Licences that a person must accept before a model is downloaded, and what they ask when it is passed on.

:func:`accept_licenses` records what was accepted in the environment of this process, where the setting
``accept_license`` arrives too; :func:`require_acceptance` refuses a download without it. Imports nothing heavy.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from rag.errors import BadInput, CannotRun

ACCEPT_LICENSE_VARIABLE = "TUNEWISE_ACCEPT_LICENSE"
"""Names of accepted licences, separated by commas."""
NOTICE_FILE = "NOTICE"
"""The notice in an export of weights tuned from a model under such terms."""
TERMS_FILE = "TERMS.html"
"""The text of the terms in the folder of a model that came with it."""


@dataclass(frozen=True, slots=True)
class LicenseTerms:
    """The terms of a licence that must be accepted before the first download."""

    name: str
    """The name that ``--accept-license`` takes; model hubs use it as the licence of a model card."""
    title: str
    url: str
    summary: str
    """One sentence on what the terms ask."""
    notice: str
    """The notice that must accompany the model and everything derived from it."""

    @property
    def text(self) -> str:
        """Return title, address and summary as a sentence."""
        return f"{self.title} ({self.url}): {self.summary}"


LICENSE_TERMS: tuple[LicenseTerms, ...] = (
    LicenseTerms(
        name="gemma",
        title="Gemma Terms of Use",
        url="https://ai.google.dev/gemma/terms",
        summary=(
            "they prohibit certain uses, and whoever passes on the model or anything tuned from it must pass on "
            "these terms with it"
        ),
        notice=(
            "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
        ),
    ),
)


def find_terms(license_name: str) -> LicenseTerms | None:
    """Return the terms of a model's licence, None for a licence that needs no acceptance."""
    return next((terms for terms in LICENSE_TERMS if terms.name == license_name.lower()), None)


def terms_of_derivatives(license_name: str) -> str:
    """Return what must be said wherever weights tuned from a model are passed on; "" where nothing must be."""
    terms = find_terms(license_name)
    if terms is None:
        return ""
    return (
        f"{terms.notice}. These weights are tuned from such a model and are under the same terms: whoever passes them on "
        f"passes the terms on with them ({terms.url})."
    )


def license_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return names of licences in lower case, each once; BadInput for an unknown one."""
    known = [terms.name for terms in LICENSE_TERMS]
    cleaned = tuple(dict.fromkeys(name.strip().lower() for name in names if name.strip()))
    for name in cleaned:
        if name not in known:
            raise BadInput(
                f"no known model has a licence {name!r} that must be accepted", f"known: {', '.join(known)}"
            )
    return cleaned


def accept_licenses(names: Iterable[str]) -> None:
    """Accept licences in this process and the processes it starts; BadInput for an unknown name."""
    accepted = dict.fromkeys((*accepted_licenses(), *license_names(names)))
    if accepted:
        os.environ[ACCEPT_LICENSE_VARIABLE] = ",".join(accepted)


def accepted_licenses() -> tuple[str, ...]:
    """Return the accepted licences: by flag, setting or TUNEWISE_ACCEPT_LICENSE; BadInput for an unknown name."""
    return license_names(os.environ.get(ACCEPT_LICENSE_VARIABLE, "").split(","))


def require_acceptance(model: str, license_name: str) -> LicenseTerms | None:
    """Return the accepted terms of a model's licence, None where none need be accepted.

    Args:
        model: name of the model, for the message.
        license_name: its licence.

    Raises:
        CannotRun: the terms were not accepted; the message names them.
    """
    terms = find_terms(license_name)
    if terms is None or terms.name in accepted_licenses():
        return terms
    raise CannotRun(
        f"{model} is under the {terms.text}",
        f"read them; if you accept them, add --accept-license {terms.name} (or set "
        f"{ACCEPT_LICENSE_VARIABLE}={terms.name})",
    )
