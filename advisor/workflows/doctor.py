"""The work behind `tunewise doctor`: machine, packages, settings, models, and what each method can do."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from advisor.methods import registry as method_table
from advisor.methods.registry import METHODS, all_methods
from advisor.questionnaire.answers import Answers, format_answer
from advisor.questionnaire.gather import with_machine, with_model
from advisor.questionnaire.profile import Profile
from advisor.rules import registry as rule_table
from rag.errors import BadInput
from rag.plugins import declared_plugins
from runners.resources.machine import Machine, detect_machine

CHECKED_PACKAGES: tuple[str, ...] = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "bitsandbytes",
    "sentence-transformers",
    "faiss-cpu",
    "bm25s",
    "tokenizers",
    "safetensors",
    "pydantic",
    "typer",
    "rich",
    "questionary",
    "pypdf",
)
SHOWN_SETTINGS: tuple[str, ...] = (
    "TUNEWISE_CACHE",
    "TUNEWISE_HISTORY",
    "TUNEWISE_ALLOW_HUB",
    "TUNEWISE_DEBUG",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "XDG_CACHE_HOME",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "NO_COLOR",
    "DO_NOT_TRACK",
)
NEEDED_BY = {
    "bitsandbytes": "qlora",
    "peft": "lora, qlora and hybrid",
    "torch": "every arm",
    "faiss-cpu": "retrieval",
}
MIN_DISK_GIB = 5.0


def examine_machine(
    model: str | None = None, machine: Machine | None = None, calibrate: bool = False
) -> dict[str, Any]:
    """Return everything that ``doctor --json`` prints; nothing heavy is imported unless asked to ``calibrate``.

    Calibrating measures this machine's matrix speed for about two seconds and stores it in the cache folder.
    """
    from runners.models.resolve import list_models
    from runners.paths import cache_folder

    speeds = _calibration(calibrate)

    machine = machine or detect_machine(Path("runs"))
    packages = {name: _version(name) for name in CHECKED_PACKAGES}
    profile, name = _profile(model, machine)
    configured = _configured()
    broken = plugin_problems()
    usable = METHODS if method_table.METHOD_PLUGINS.problems() else all_methods()
    return {
        "schema": 1,
        "python": sys.version.split()[0],
        "machine": machine.to_json(),
        "packages": packages,
        "settings": _variables(),
        "configuration": configured,
        "calibration": speeds,
        "cache": {"folder": str(cache_folder()), "models": list_models()},
        "model": name,
        "plugins": [plugin.to_json() for plugin in declared_plugins()],
        "methods": [_method(method, profile, packages) for method in usable],
        "warnings": [*_warnings(machine, packages), *filter(None, [configured["problem"]]), *broken],
    }


def plugin_problems() -> list[str]:
    """Import every plug-in and return why some cannot be used, one line each."""
    from rag.loading import registry
    from rag.stores import base

    groups = (rule_table.RULE_PLUGINS, method_table.METHOD_PLUGINS, registry.PLUGINS, base.PLUGINS)
    return [problem for group in groups for problem in group.problems()]


def show_examination(found: dict[str, Any]) -> None:
    """Print the examination for people."""
    from rich.markup import escape

    from advisor.display import console

    screen = console.console()
    machine = [(key, format_answer(row["value"]), row["how"]) for key, row in found["machine"].items()]
    screen.print(console.table(("machine", "", "how it was found"), machine))
    screen.print()
    rows = [(name, version or "[red]missing[/]") for name, version in found["packages"].items()]
    screen.print(console.table(("package", "version"), [("python", found["python"]), *rows]))
    screen.print()
    models = [
        (m["name"], m["kind"], m["state"], f"{m['bytes'] / 1e6:,.0f} MB") for m in found["cache"]["models"]
    ]
    screen.print(console.table(("model", "kind", "where", "size"), models, right=(3,)))
    screen.print(f"cache: {found['cache']['folder']}", soft_wrap=True)
    screen.print(f"matrix speed: {found['calibration']['text']}", soft_wrap=True)
    if found["settings"]:
        screen.print("settings in force: " + ", ".join(f"{k}={v}" for k, v in found["settings"].items()))
    own = found["configuration"]
    set_rows = [(v["key"], escape(v["value"]) or "–", escape(v["from"])) for v in own["values"]]
    screen.print()
    screen.print(console.table(("setting", "value", "from"), set_rows))
    screen.print(f"settings file: {own['file'] or 'none'}", soft_wrap=True, markup=False)
    screen.print()
    if found["plugins"]:
        screen.print(console.plugins(found["plugins"]))
        screen.print()
    rows_of_methods = [
        (m["method"], "[green]yes[/]" if m["possible"] else "[red]no[/]", m["memory"], m["why"])
        for m in found["methods"]
    ]
    screen.print(console.table((f"with {found['model']}", "here", "memory", "why"), rows_of_methods))
    for line in found["warnings"]:
        screen.print(f"[yellow]warning[/]  {escape(line)}")


def _variables() -> dict[str, str]:
    """Return the variables in force that somebody set, rather than the settings file."""
    from advisor import settings

    filed = {s.key for s in settings.current_settings() if s.source == str(settings.settings_file())}
    own = {key.env for key in settings.SETTING_KEYS if key.name in filed}
    return {name: os.environ[name] for name in SHOWN_SETTINGS if name in os.environ and name not in own}


def _configured() -> dict[str, Any]:
    """Return every setting with its value and where it comes from, the file's answers with them, and what is wrong."""
    from advisor import settings

    file = settings.settings_file()
    there = file is not None and file.is_file()
    values = [{"key": s.key, "value": s.value, "from": s.source} for s in settings.current_settings()]
    try:
        answers, problem = settings.with_settings_answers(Answers()).layers.get("config", {}), ""
    except BadInput as wrong:
        answers, problem = {}, f"the settings file is not in force: {wrong}"
    values += [
        {"key": f"answers.{k}", "value": format_answer(a.value), "from": str(file)}
        for k, a in answers.items()
    ]
    return {"file": str(file) if there else "", "values": values, "problem": problem}


def _calibration(again: bool) -> dict[str, Any]:
    """Return the stored matrix speed, measured first when asked to, with a line for people."""
    from runners.resources import calibration

    if again:
        calibration.store_calibration(calibration.calibrate())
    stored = calibration.read_calibration()
    found = stored.calibration
    if found is None:
        text = stored.ignored or "not measured; hours are estimated better after: tunewise doctor --calibrate"
        return {"text": text, "ignored": stored.ignored}
    speeds = [found.cpu, *([found.cuda] if found.cuda else [])]
    each = [
        f"{speed.name}: "
        + ", ".join(f"{flops / 1e9:,.0f} GFLOP/s {dtype}" for dtype, flops in speed.flops.items())
        for speed in speeds
    ]
    busy = ", beside other work: it may be too low" if found.busy else ""
    return {**found.to_json(), "text": f"{'; '.join(each)} (measured {found.day}{busy})", "ignored": ""}


def _profile(model: str | None, machine: Machine) -> tuple[Profile, str]:
    answers = Answers().put("flag", {"model": model}) if model else Answers()
    answers, shape = with_model(with_machine(answers, machine))
    # What the machine allows is judged as if there were work for every method.
    answers = answers.put("default", {"task_needs_facts": "new", "behaviour_gap": "high"})
    return Profile.of(answers, shape=shape), str(answers["model"].value)


def _method(method: Any, profile: Profile, packages: dict[str, str | None]) -> dict[str, Any]:
    blockers = [blocker.text for blocker in method.blocked(profile)]
    if method.name == "qlora" and not packages["bitsandbytes"]:
        blockers.append("bitsandbytes is not installed")
    estimate = method.estimate(profile)
    memory = estimate.memory
    fits = memory.fits(estimate.device_gib) if memory else None
    said = "–" if memory is None else f"{memory.low:.1f}-{memory.high:.1f} GiB"
    place = "RAM" if profile.has_gpu is False else "GPU memory"
    why = "; ".join(blockers) or (f"{place}: {fits}" if fits else "its size is unknown: name a known --model")
    if method.name == "qlora" and not blockers and profile.has_gpu is False:
        why += "; slower than lora on a CPU, only worth it when the weights do not fit"
    return {"method": method.name, "possible": not blockers, "memory": said, "fits": fits, "why": why}


def _warnings(machine: Machine, packages: dict[str, str | None]) -> list[str]:
    again = "install it again with: pip install tunewise"
    said = [
        f"{name} is missing: {NEEDED_BY.get(name, 'tunewise')} needs it; {again}"
        for name, version in packages.items()
        if version is None
    ]
    disk = machine.disk_gib.value
    if disk is not None and disk < MIN_DISK_GIB:
        said.append(f"only {disk:g} GiB of disk are free; a run may need {MIN_DISK_GIB:g}")
    if machine.bf16.value is False:
        said.append("no native bf16: training and answering run in fp32, about half as fast")
    if machine.ram_gib.value is not None and machine.ram_gib.value < 4:
        said.append(f"only {machine.ram_gib.value:g} GiB of memory")
    return said


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
