"""LoRA adapters in PEFT's layout: adapter_config.json and adapter_model.safetensors, both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from groundup.config.schema import LoraSettings
from groundup.errors import UserError
from groundup.model.llm import LanguageModel
from groundup.model.lora import attach_lora, find_targets, lora_layers, lora_state
from groundup.store import files

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."

_HARMLESS = {
    # What we read, or what cannot change the outputs of a trained adapter.
    *("peft_type", "r", "lora_alpha", "target_modules", "use_rslora", "task_type", "init_lora_weights"),
    *(
        "base_model_name_or_path",
        "revision",
        "peft_version",
        "auto_mapping",
        "inference_mode",
        "lora_dropout",
    ),
    *("exclude_modules", "layers_to_transform", "layers_pattern", "megatron_config", "megatron_core"),
    *("qalora_group_size", "runtime_config", "ensure_weight_tying"),
    # How the base model stores its weights, which we see in the model itself.
    "fan_in_fan_out",
}


def save_adapter(model: LanguageModel, folder: Path | str, base_name: str) -> None:
    """Write the adapter alone; plain PEFT loads it onto the base model and gives the same logits.

    Args:
        base_name: path or hub name of the base model, for PEFT's `base_model_name_or_path`.
    """
    settings = model.lora
    assert settings is not None, "the model has no adapter"
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": settings.r,
        "lora_alpha": settings.lora_alpha,
        "use_rslora": settings.use_rslora,
        "target_modules": _short_names(model),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }
    state = {
        PREFIX + name: tensor.detach().to("cpu").contiguous() for name, tensor in lora_state(model).items()
    }

    def write(part: Path) -> None:
        save_file(state, part / WEIGHTS, metadata={"format": "pt"})
        files.write_json(part / CONFIG, config)

    files.publish_folder(Path(folder), write)


def load_adapter(model: LanguageModel, folder: Path | str, trainable: bool = False) -> list[str]:
    """Attach a saved adapter to its base model; returns the names of the layers that have it.

    Args:
        trainable: go on training the factors; the base stays frozen either way.

    Raises:
        UserError: the adapter uses an option of PEFT that would be ignored here, or does not fit the model.
    """
    folder = Path(folder)
    settings = adapter_settings(folder)
    state = _read_state(folder)
    targets = sorted({name.rpartition(".lora_")[0] for name in state})
    names = attach_lora(
        model, settings.model_copy(update={"target_modules": _targets(model, targets, folder)})
    )
    wanted = lora_state(model)
    _check_fit(set(state), set(wanted), folder)
    with torch.no_grad():
        for name, tensor in wanted.items():
            if state[name].shape != tensor.shape:
                raise _unfit(folder, f"{name} has shape {list(state[name].shape)}, not {list(tensor.shape)}")
            tensor.copy_(state[name])
    for layer in lora_layers(model).values():
        layer.lora_A.weight.requires_grad_(trainable)
        layer.lora_B.weight.requires_grad_(trainable)
    return names


def adapter_settings(folder: Path | str) -> LoraSettings:
    """What an adapter folder says about itself. Raises UserError for options that we would get wrong."""
    path = Path(folder) / CONFIG
    config = files.read_json(path)
    for name, value in config.items():
        if name not in _HARMLESS and value not in (None, False, "none", {}, []):
            raise _unsupported(path, name, value)
    if config.get("peft_type") != "LORA":
        raise _unsupported(path, "peft_type", config.get("peft_type"))
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        raise _unsupported(path, "task_type", config["task_type"])
    if str(config.get("init_lora_weights", True)).startswith(("pissa", "olora", "corda", "loftq", "lora_ga")):
        raise _unsupported(path, "init_lora_weights", config["init_lora_weights"])
    targets = config.get("target_modules")
    return LoraSettings(
        r=config["r"],
        lora_alpha=float(config["lora_alpha"]),
        target_modules=sorted(targets) if isinstance(targets, list) else "all-linear",
        use_rslora=bool(config.get("use_rslora", False)),
    )


def _read_state(folder: Path) -> dict[str, torch.Tensor]:
    path = folder / WEIGHTS
    if not path.exists():
        pickled = (folder / "adapter_model.bin").exists()
        raise UserError(
            "the adapter folder has no weights",
            where=str(folder),
            why=f"{WEIGHTS} is missing"
            + ("; adapter_model.bin is a pickle, which can run any code" if pickled else ""),
            fix="save the adapter again with PEFT's save_pretrained"
            if pickled
            else "copy the whole adapter folder",
        )
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise UserError("an adapter's weights cannot be read", where=str(path), why=str(error)) from error
    return {name.removeprefix(PREFIX): tensor for name, tensor in state.items()}


def _short_names(model: LanguageModel) -> list[str]:
    """Last names where they mean exactly the layers that have the adapter, else whole names."""
    names = list(lora_layers(model))
    short = sorted({name.rpartition(".")[2] for name in names})
    return short if find_targets(model, short) == names else names


def _targets(model: LanguageModel, targets: list[str], folder: Path) -> list[str]:
    linear = set(find_targets(model, "all-linear"))
    strange = [name for name in targets if name not in linear]
    if strange or not targets:
        raise _unfit(
            folder, f"{strange[0]} is no linear layer of the model" if strange else "it adapts no layer"
        )
    return targets


def _check_fit(found: set[str], wanted: set[str], folder: Path) -> None:
    different = sorted(found ^ wanted)
    if different:
        raise _unfit(folder, f"{different[0]} is {'missing' if different[0] in wanted else 'unknown'}")


def _unfit(folder: Path, why: str) -> UserError:
    return UserError(
        "the adapter does not fit this model",
        where=str(folder),
        why=why,
        fix="use the base model it was trained on",
    )


def _unsupported(path: Path, name: str, value: Any) -> UserError:
    return UserError(
        f"the adapter uses {name}: {value}",
        where=str(path),
        why="this option changes what the adapter computes and is not supported here",
        fix="merge the adapter with PEFT (merge_and_unload) and use the merged model",
    )
