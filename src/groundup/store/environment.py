"""What the results of a run may depend on besides its recipe, and how two such records differ."""

from __future__ import annotations

import os
import platform
from typing import Any
from urllib.parse import urlsplit

from groundup import __version__

_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "KMP_AFFINITY",
    "LD_PRELOAD",
    "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "NVIDIA_TF32_OVERRIDE",
    "PYTHONHASHSEED",
    "TOKENIZERS_PARALLELISM",
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "HF_HUB_DISABLE_XET",
    "HF_ENDPOINT",
    "TRANSFORMERS_OFFLINE",
)
"""Named one by one, so that no token or password is ever written down."""


def collect() -> dict[str, Any]:
    """This Python, platform, every installed package and the environment variables that matter, as plain data."""
    from importlib import metadata  # slow to import, and few ask

    installed = {item.metadata["Name"]: item.version for item in metadata.distributions()}
    packages = {
        name: installed[name] for name in sorted(filter(None, installed), key=str.lower) if name != "groundup"
    }
    return {
        "groundup": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "packages": packages,
        "variables": {name: _without_login(os.environ[name]) for name in _VARIABLES if name in os.environ},
    }


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What changed between two records, one line each, for people; empty where nothing did."""
    lines = []
    for key in ("groundup", "python", "platform", "cores"):
        if then.get(key) != now.get(key):
            lines.append(f"{key}: {then.get(key)} then, {now.get(key)} now")
    for group, absent in (("packages", "not installed"), ("variables", "not set")):
        before, after = then.get(group, {}), now.get(group, {})
        for name in sorted(before.keys() | after.keys(), key=str.lower):
            if before.get(name) != after.get(name):
                lines.append(f"{name}: {before.get(name, absent)} then, {after.get(name, absent)} now")
    return lines


def _without_login(value: str) -> str:
    """A mirror's address may carry a user and password before an @."""
    login, found, _ = urlsplit(value).netloc.rpartition("@") if "://" in value else ("", "", "")
    return value.replace(login + found, "", 1) if found else value
