"""The model that a stage starts from, as folders on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from groundup.errors import UserError
from groundup.hub import resolve_model
from groundup.infer.load import base_of, plain_folder, tokenizer_folder
from groundup.stages.context import Context


@dataclass(frozen=True)
class ModelFolders:
    """A base model's Hugging Face folder, and the adapter on top of it if there is one."""

    base: Path
    base_name: str
    """What an adapter trained on it names as its base: a hub name, or the folder."""
    adapter: Path | None

    @property
    def tokenizer(self) -> Path:
        return tokenizer_folder([*([self.adapter] if self.adapter else []), self.base])


def find_model(context: Context, name: str) -> ModelFolders:
    """The model that `name` means to this stage: another stage of the run, a folder, a file, or a hub name."""
    base, adapters = base_of(resolve_model(name, run=context.run))
    if len(adapters) > 1:
        raise UserError(
            f"the adapter {adapters[-1]} sits on another adapter",
            where=f"stages.{context.name}.from",
            fix=f"merge the lower one first: groundup merge {adapters[0]}",
        )
    folder = plain_folder(base, context.run)
    from_hub = base.kind == "folder" and not Path(base.name).expanduser().exists()
    return ModelFolders(
        folder, base.name if from_hub else str(folder.resolve()), adapters[0] if adapters else None
    )
