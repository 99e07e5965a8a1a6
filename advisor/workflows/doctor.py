"""The work behind ``tunewise doctor``: examine machine, packages, settings and models, and what each method can do here."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from advisor import settings
from advisor.display import console
from advisor.methods import registry as method_table
from advisor.methods.registry import METHODS, all_methods
from advisor.output import print_plain
from advisor.questionnaire.answers import Answers, format_answer
from advisor.questionnaire.gather import with_machine, with_model
from advisor.questionnaire.profile import Profile
from advisor.rules import registry as rule_table
from rag.errors import BadInput, install_hint
from rag.loading import registry
from rag.plugins import declared_plugins
from rag.stores import base
from runners.models.resolve import cached_models, list_models
from runners.paths import cache_folder
from runners.resources import calibration
from runners.resources.device import DEVICE_TABLE
from runners.resources.machine import Machine, detect_machine
from runners.tokenization.chat_template import ChatTokenizer

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
    "python-docx",
    "python-pptx",
    "openpyxl",
    "fastapi",
    "uvicorn",
    "sse-starlette",
    "prometheus-client",
    "mcp",
)
"""Packages whose versions are listed."""
DEVELOPERS_EXTRAS = frozenset(("docs", "test"))
"""Extras that no command of a user needs."""
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
    "TUNEWISE_DEVICE",
    "TUNEWISE_DTYPE",
    "TUNEWISE_MEMORY_GIB",
    "OMP_NUM_THREADS",
    "NO_COLOR",
    "DO_NOT_TRACK",
)
"""Environment variables that are listed if they are set."""
NEEDED_BY = {
    "bitsandbytes": "qlora",
    "peft": "lora, qlora and hybrid",
    "torch": "every arm",
    "faiss-cpu": "retrieval",
    "python-docx": "reading DOCX files",
    "python-pptx": "reading PPTX files",
    "openpyxl": "reading XLSX files",
    **dict.fromkeys(("fastapi", "uvicorn", "sse-starlette", "prometheus-client"), "tunewise serve"),
    **dict.fromkeys(("mcp", "anyio"), "tunewise mcp"),
}
"""What needs a package, for the warning when it is missing."""
FIT_TEXTS = {"yes": "fits in", "tight": "fits only just in", "no": "does not fit in"}
TESTED_PLATFORM = ("Linux", "x86_64")
"""The system and processor that the tests have run on; docs/limits.md holds what is known of others."""
MIN_DISK_GIB = 5.0
"""Free disk space in GiB below which there is a warning."""


def examine_machine(
    model: str | None = None,
    machine: Machine | None = None,
    calibrate: bool = False,
    requirements: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return everything that ``doctor --json`` prints.

    Args:
        model: the base model to judge the methods for; the default model if None.
        machine: the machine, detected by default.
        calibrate: whether to measure the matrix speed (about two seconds, stored in the cache folder). Only this imports
            torch.
        requirements: what tunewise requires, by default what its installation declares.
    """
    calibration = _calibration(calibrate)

    machine = machine or detect_machine(Path("runs"))
    required = required_packages(declared_requirements() if requirements is None else requirements)
    packages = {name: _version(name) for name in CHECKED_PACKAGES}
    packages |= {name: None for name in required[""] if name not in packages and _version(name) is None}
    profile, name = _profile(model, machine)
    configured = _configuration()
    broken = plugin_problems()
    usable = METHODS if method_table.METHOD_PLUGINS.problems() else all_methods()
    return {
        "schema": 1,
        "python": sys.version.split()[0],
        "machine": machine.to_json(),
        "packages": packages,
        "extras": [_extra(name, names) for name, names in required.items() if name],
        "settings": _environment_settings(),
        "configuration": configured,
        "calibration": calibration,
        "cache": {"folder": str(cache_folder()), "models": list_models()},
        "model": name,
        **({"several_gpus": several} if (several := _several_gpus(profile)) else {}),
        **({"how_asked": notes} if (notes := chat_notes(name)) else {}),
        "plugins": [plugin.to_json() for plugin in declared_plugins()],
        "methods": [_method(method, profile, packages) for method in usable],
        "warnings": [*_warnings(machine, packages), *filter(None, [configured["problem"]]), *broken],
    }


def plugin_problems() -> list[str]:
    """Import every plug-in and return why some cannot be used, one line each."""
    groups = (rule_table.RULE_PLUGINS, method_table.METHOD_PLUGINS, registry.PLUGINS, base.PLUGINS)
    return [problem for group in groups for problem in group.problems()]


def show_examination(examined: dict[str, Any]) -> None:
    """Print the result of :func:`examine_machine` for people."""
    from rich.markup import escape

    screen = console.console()
    machine = [(key, format_answer(row["value"]), row["how"]) for key, row in examined["machine"].items()]
    screen.print(console.table(("machine", "", "how it was found"), machine))
    screen.print()
    rows = [(name, version or "[red]missing[/]") for name, version in examined["packages"].items()]
    screen.print(console.table(("package", "version"), [("python", examined["python"]), *rows]))
    if absent := [row["extra"] for row in examined.get("extras", ()) if not row["installed"]]:
        print_plain(
            screen, f"extras not installed: {', '.join(absent)}; add one with: {install_hint('NAME')}"
        )
    screen.print()
    models = [
        (row["name"], row["kind"], row["state"], f"{row['bytes'] / 1e6:,.0f} MB")
        for row in examined["cache"]["models"]
    ]
    screen.print(console.table(("model", "kind", "where", "size"), models, right=(3,)))
    for note in examined.get("how_asked", ()):
        print_plain(screen, f"{examined['model']}: {note}")
    screen.print(f"cache: {examined['cache']['folder']}", soft_wrap=True)
    print_plain(screen, f"speed measured: {examined['calibration']['text']}")
    if examined["settings"]:
        screen.print(
            "settings in force: "
            + ", ".join(f"{name}={value}" for name, value in examined["settings"].items())
        )
    configuration = examined["configuration"]
    set_rows = [
        (value["key"], escape(value["value"]), escape(value["from"]))
        for value in configuration["values"]
        if value["value"]
    ]
    unset = [value["key"] for value in configuration["values"] if not value["value"]]
    screen.print()
    if set_rows:
        screen.print(console.table(("setting", "value", "from"), set_rows))
    if unset:
        print_plain(screen, f"not set: {', '.join(unset)}")
    screen.print(f"settings file: {configuration['file'] or 'none'}", soft_wrap=True, markup=False)
    screen.print()
    if examined["plugins"]:
        screen.print(console.plugins(examined["plugins"]))
        screen.print()
    rows_of_methods = [
        (row["method"], "[green]yes[/]" if row["possible"] else "[red]no[/]", row["memory"], row["why"])
        for row in examined["methods"]
    ]
    screen.print(console.table((f"with {examined['model']}", "here", "memory", "why"), rows_of_methods))
    if "several_gpus" in examined:
        print_plain(screen, examined["several_gpus"]["text"])
    for line in examined["warnings"]:
        screen.print(f"[yellow]warning[/]  {escape(line)}")


def declared_requirements() -> list[str]:
    """Return the requirements of the installed tunewise; none where it runs from a checkout that was never installed."""
    try:
        return metadata.requires("tunewise") or []
    except metadata.PackageNotFoundError:
        return []


def required_packages(requirements: Sequence[str]) -> dict[str, list[str]]:
    """Return the packages of requirements: those of the base under "", then those of each extra that users may want.

    Args:
        requirements: lines such as ``lancedb>=0.30; extra == "lancedb"``.
    """
    required: dict[str, list[str]] = {"": []}
    for line in requirements:
        extra = re.search(r"extra\s*==\s*['\"]([\w.-]+)", line)
        name = re.match(r"[\w.-]+", line)
        if name and (extra is None or extra[1] not in DEVELOPERS_EXTRAS):
            required.setdefault(extra[1] if extra else "", []).append(name[0])
    return required


def _extra(name: str, packages: Sequence[str]) -> dict[str, Any]:
    """Return an extra with the packages of it that are missing here."""
    missing = [package for package in packages if _version(package) is None]
    return {"extra": name, "installed": not missing, "missing": missing}


def _environment_settings() -> dict[str, str]:
    """Return the environment variables that the user set, without those from the settings file."""
    from_file = {
        setting.key
        for setting in settings.current_settings()
        if setting.source == str(settings.settings_file())
    }
    file_variables = {key.env for key in settings.SETTING_KEYS if key.name in from_file}
    return {
        name: os.environ[name] for name in SHOWN_SETTINGS if name in os.environ and name not in file_variables
    }


def _configuration() -> dict[str, Any]:
    """Return every setting with its value and source, the answers of the settings file, and what is wrong with it."""
    file = settings.settings_file()
    exists = file is not None and file.is_file()
    values = [
        {"key": setting.key, "value": setting.value, "from": setting.source}
        for setting in settings.current_settings()
    ]
    try:
        answers, problem = settings.with_settings_answers(Answers()).layers.get("config", {}), ""
    except BadInput as error:
        answers, problem = {}, f"the settings file is not in force: {error}"
    values += [
        {"key": f"answers.{key}", "value": format_answer(answer.value), "from": str(file)}
        for key, answer in answers.items()
    ]
    return {"file": str(file) if exists else "", "values": values, "problem": problem}


def _calibration(measure: bool) -> dict[str, Any]:
    """Return the stored matrix speed with a line for people; ``measure`` measures it first."""
    if measure:
        # Speeds of training that runs measured here stay: this measures the matrix speed alone.
        before = calibration.read_calibration().calibration
        measured_now = calibration.calibrate().with_training(before.training if before else ())
        calibration.store_calibration(measured_now)
        stored = calibration.StoredCalibration(measured_now)
    else:
        stored = calibration.read_calibration()
    measured = stored.calibration
    if measured is None:
        text = stored.ignored or "not measured; hours are estimated better after: tunewise doctor --calibrate"
        return {"text": text, "ignored": stored.ignored}
    devices = [measured.cpu, *([measured.cuda] if measured.cuda else [])]
    lines = [
        f"{speed.name}: "
        + ", ".join(f"{flops / 1e9:,.0f} GFLOP/s {dtype}" for dtype, flops in speed.flops.items())
        for speed in devices
    ]
    busy = ", while the machine was busy: it may be too low" if measured.busy else ""
    return {
        **measured.to_json(),
        "text": f"{'; '.join(lines)} (measured {measured.day}{busy})",
        "ignored": "",
    }


def chat_notes(name: str) -> list[str]:
    """Return how chats are written for a model that is on this machine, where that is not simply its own template."""
    folder = Path(name).expanduser()
    if not (folder / "tokenizer.json").is_file():
        cached = next(
            (model for model in cached_models() if model.name == name and model.kind == "base"), None
        )
        if cached is None:
            return []
        folder = cached.folder
    try:
        return list(ChatTokenizer(folder).notes)
    except BadInput as problem:
        return [problem.message]


def _profile(model: str | None, machine: Machine) -> tuple[Profile, str]:
    answers = Answers().put("flag", {"model": model}) if model else Answers()
    answers, shape = with_model(with_machine(answers, machine))
    # Every method is judged by what the machine allows, as if the task needed it.
    answers = answers.put("default", {"task_needs_facts": "new", "behaviour_gap": "high"})
    return Profile.of(answers, shape=shape), str(answers["model"].value)


def _method(method: Any, profile: Profile, packages: dict[str, str | None]) -> dict[str, Any]:
    blockers = [blocker.text for blocker in method.blocked(profile)]
    if method.name == "qlora" and not packages["bitsandbytes"]:
        blockers.append("bitsandbytes is not installed")
    estimate = method.estimate(profile)
    memory = estimate.memory
    fits = memory.fits(estimate.device_gib) if memory else None
    memory_text = "–" if memory is None else f"{memory.low:.1f}-{memory.high:.1f} GiB"
    memory_kind = "RAM" if profile.has_gpu is False else "GPU memory"
    why = "; ".join(blockers) or (
        f"{FIT_TEXTS[fits]} {memory_kind}" if fits else "its size is unknown: name a known --model"
    )
    if method.name == "qlora" and not blockers and profile.has_gpu is False:
        why += "; slower than lora on a CPU, only worth it when the weights do not fit"
    return {"method": method.name, "possible": not blockers, "memory": memory_text, "fits": fits, "why": why}


def _warnings(machine: Machine, packages: dict[str, str | None]) -> list[str]:
    advice = f"install it again with: {install_hint()}"
    warnings = [
        f"{name} is missing: {NEEDED_BY.get(name, 'tunewise')} needs it; {advice}"
        for name, version in packages.items()
        if version is None
    ]
    disk = machine.disk_gib.value
    if disk is not None and disk < MIN_DISK_GIB:
        warnings.append(f"only {disk:g} GiB of disk are free; a run may need {MIN_DISK_GIB:g}")
    dtype, why = machine.dtype
    if dtype == "float32":
        warnings.append(f"{why}: training and answering run in fp32, about half as fast, in twice the memory")
    elif dtype == "float16":
        warnings.append(f"{why}: training runs in float16 with a loss scale, answering in float16")
    if machine.gpu_kind.value == "none" and "is not used" in machine.gpu_kind.how:
        warnings.append(machine.gpu_kind.how)
    if machine.device != "cpu" and (fallback := DEVICE_TABLE[machine.device].fallback):
        warnings.append(f"on an {DEVICE_TABLE[machine.device].name} {fallback}")
    if machine.ram_gib.value is not None and machine.ram_gib.value < 4:
        warnings.append(f"only {machine.ram_gib.value:g} GiB of memory")
    return [*warnings, *filter(None, [untested_platform(platform.system(), platform.machine())])]


def untested_platform(system: str, machine: str) -> str:
    """Return a warning for a system and processor on which no test was ever run; "" for a tested one."""
    if (system, machine) == TESTED_PLATFORM:
        return ""
    here = " ".join(filter(None, ("macOS" if system == "Darwin" else system, machine)))
    return f"nothing was ever tested on {here}: tests run on Linux x86-64 only (docs/limits.md says what is known)"


def _several_gpus(profile: Profile) -> dict[str, Any]:
    """Return how a run uses all GPUs of this machine, and whether torch has the launcher; empty for one GPU or none."""
    if not profile.launcher_flags:
        return {}
    try:
        scripts = metadata.distribution("torch").entry_points.select(group="console_scripts", name="torchrun")
    except metadata.PackageNotFoundError:
        scripts = ()  # type: ignore[assignment]
    missing = "" if scripts else "; this installation of torch has no torchrun: install torch again"
    return {
        "gpus": profile.devices,
        "launcher": profile.launcher_flags,
        "torchrun": bool(scripts),
        "text": f"{profile.devices_note}{missing}",
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
