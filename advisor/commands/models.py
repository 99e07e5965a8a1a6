"""`tunewise models`: base models and embedders known, and where each comes from."""

from __future__ import annotations

import typer

from advisor import completion
from advisor.flags import options

group = typer.Typer(help="List known models, download one, verify the files.")


@group.command("list")
def list_models(as_json: options.Json = False) -> None:
    """List the known models and whether they are on this machine."""
    from advisor.display.trial_table import show_models
    from advisor.output import emit_result
    from advisor.workflows.estimate import with_fit
    from runners.models import resolve
    from runners.models.availability import list_catalog_models, with_catalog_facts

    rows = with_fit(with_catalog_facts([*resolve.list_models(), *list_catalog_models()]))
    if as_json:
        emit_result({"schema": 1, "models": rows})
    else:
        show_models(rows)


@group.command("pull")
def pull(
    name: str = typer.Argument(
        help="A known name or a hub id; see `tunewise models list`.",
        autocompletion=completion.complete_obtainable_models,
    ),
    allow_hub: bool = typer.Option(False, "--allow-hub", help="Allow the model hub to be asked."),
    accept_license: options.AcceptLicense = None,
    as_json: options.Json = False,
) -> None:
    """Download a model into the cache; its files are verified and stored as safetensors."""
    from advisor.display.progress import watch_progress
    from advisor.output import emit_result
    from runners.models import licenses, resolve

    licenses.accept_licenses(accept_license or ())
    with watch_progress() as watcher:
        watcher.say(f"getting {name} ...")
        model = resolve.resolve_model(name, allow_hub=allow_hub, on_event=watcher)
    if as_json:
        keys = ("name", "kind", "fingerprint", "source")
        emit_result(
            {"schema": 1, **{name: getattr(model, name) for name in keys}, "folder": str(model.folder)}
        )
        return
    print(f"{model.name}  {model.fingerprint[:12]}  {model.source}  {model.folder}")


@group.command("verify")
def verify(
    name: str = typer.Argument(
        "",
        help="A known name, a folder or a hub id; every known model in the cache without one.",
        autocompletion=completion.complete_obtainable_models,
    ),
    as_json: options.Json = False,
) -> None:
    """Read every file of models on this machine again and compare it with its recorded hash.

    At other times a file is read again only when its size or time changed. Exit code 3 for a damaged or incomplete model.
    """
    from advisor.workflows.verify_models import verify_models

    verify_models(name, as_json)
