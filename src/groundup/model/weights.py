"""The safetensors files of a model folder, and what is wrong with them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from groundup.errors import UserError
from groundup.store import files

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


class Weights(Mapping[str, Tensor]):
    """The tensors of a folder's safetensors files, read one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = contextlib.ExitStack()
        self._file_of: dict[str, Any] = {}

    def __enter__(self) -> Weights:
        for name in weight_files(self.folder):
            path = self.folder / name
            try:
                file = self._stack.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise UserError(
                    "a weights file cannot be read",
                    where=str(path),
                    why=str(error),
                    fix="download or copy it again: it may be cut short",
                ) from error
            self._file_of |= dict.fromkeys(file.keys(), file)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __getitem__(self, name: str) -> Tensor:
        return self._file_of[name].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)

    def dtype(self) -> str:
        """What most files hold throughout: safetensors' name of the first tensor's dtype."""
        name, file = next(iter(self._file_of.items()))
        return str(file.get_slice(name).get_dtype())


def weight_files(folder: Path) -> list[str]:
    if (folder / INDEX).exists():
        return sorted(set(files.read_json(folder / INDEX)["weight_map"].values()))
    if (folder / WEIGHTS).exists():
        return [WEIGHTS]
    pickled = sorted(
        path.name for path in (*folder.glob("*.bin"), *folder.glob("*.pth"), *folder.glob("*.pt"))
    )
    if pickled:
        raise UserError(
            f"the weights are stored as {pickled[0]}",
            where=str(folder),
            why="such files are pickles, which can run any code when opened",
            fix="get the model's safetensors version, or convert it once where you trust it: "
            "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)",
        )
    raise UserError(
        "the model folder has no weights",
        where=str(folder),
        why=f"neither {WEIGHTS} nor {INDEX} is there",
        fix="download the model again, or check the path",
    )


def check_finite(tensors: Iterable[tuple[str, Tensor]], where: Path) -> None:
    """Raise UserError that names the first weight with NaN or infinity in it."""
    for name, tensor in tensors:
        if tensor.numel() and tensor.is_floating_point():
            low, high = (float(edge) for edge in tensor.detach().aminmax())  # NaN comes through both
            if not math.isfinite(low) or not math.isfinite(high):
                raise UserError(
                    f"the weight {name} holds {'NaN' if math.isnan(low) else 'infinity'}",
                    where=str(where),
                    why="the file is damaged, or training broke down before it was saved",
                    fix="download the model again, or use an earlier checkpoint",
                )
