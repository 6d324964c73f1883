"""The model that a stage starts from, as folders on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from groundup.errors import UserError
from groundup.hub import ModelSource, resolve_model
from groundup.model.hf import gguf_folder
from groundup.stages.context import Context


@dataclass(frozen=True)
class ModelFolders:
    """A base model's Hugging Face folder, and the adapter on top of it if there is one."""

    base: Path
    base_name: str
    """What an adapter trained on it names as its base: a hub name, or the folder."""
    adapter: Path | None


def find_model(context: Context, name: str) -> ModelFolders:
    """The model that `name` means to this stage: another stage of the run, a folder, a file, or a hub name."""
    source = resolve_model(name, run=context.run)
    if source.kind != "adapter":
        return _base(context, source, None)
    assert source.base is not None
    base = resolve_model(source.base, run=None, relative_to=source.path)
    if base.kind == "adapter":
        raise UserError(
            f"the adapter's base '{source.base}' is an adapter itself",
            where=str(source.path / "adapter_config.json"),
            fix="merge that one first: groundup merge " + source.base,
        )
    return _base(context, base, source.path)


def _base(context: Context, source: ModelSource, adapter: Path | None) -> ModelFolders:
    folder = gguf_folder(source.path, context.run.models) if source.kind == "gguf" else source.path
    named_by_hub = source.kind == "folder" and not Path(source.name).exists() and "/" in source.name
    return ModelFolders(folder, source.name if named_by_hub else str(folder.resolve()), adapter)
