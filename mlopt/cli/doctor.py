"""`mlopt doctor`."""

from __future__ import annotations

from typing import Any

import click

from mlopt import catalog
from mlopt.cli.common import output_options, screen_of


def findings() -> dict[str, Any]:
    """What is here and what is not; nothing heavy is imported."""
    from mlopt.measuring.environment import fingerprint, version_of
    from mlopt.records.edge import to_json

    backends = []
    for spec in catalog.BACKENDS.values():
        missing = spec.missing()
        backends.append(
            {"name": spec.title, "ready": not missing, "install": spec.install if missing else None}
        )
    warnings = []
    if version_of("onnxruntime") and version_of("onnxruntime-gpu"):
        warnings.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: uninstall both,"
            " install one"
        )
    torch, vision = version_of("torch") or "", version_of("torchvision") or ""
    if vision and ("+cpu" in torch) != ("+cpu" in vision):
        warnings.append(
            f"torch {torch} and torchvision {vision} come from different builds: importing torchvision will"
            " fail"
        )
    environment = fingerprint()
    load, cores = environment.load_at_start, environment.cores
    if load and cores and load[0] > cores:
        warnings.append(f"load average {load[0]:.1f} on {cores} cores: timings will be noisy")
    if not any("vnni" in flag or "amx" in flag for flag in environment.isa):
        warnings.append("this CPU has neither VNNI nor AMX: INT8 will gain little in ONNX Runtime")
    return {"environment": to_json(environment), "backends": backends, "warnings": warnings}


@click.command(short_help="the environment, and what is missing")
@output_options
def command(**options: Any) -> int:
    """Say what this machine is, which backends are ready, and the line that installs
    each missing one."""
    from rich.markup import escape

    screen = screen_of(options)
    found = findings()
    if screen.as_json:
        screen.json(found)
        return 0
    environment = found["environment"]
    screen.out.print(
        f"{environment['cpu']}, {environment['cores']} cores, {' '.join(environment['isa'])}; GPU:"
        f" {environment['gpu'] or 'none'}",
        markup=False,
    )
    screen.line("  ".join(f"{name} {version}" for name, version in environment["versions"].items()))
    for backend in found["backends"]:
        mark = "[green]ready  [/]" if backend["ready"] else "[red]missing[/]"
        install = "" if backend["ready"] else escape(backend["install"])
        screen.out.print(f"  {mark}  {backend['name']:20}{install}")
    for warning in found["warnings"]:
        screen.out.print(f"[yellow]warning[/]  {warning}")
    return 0
