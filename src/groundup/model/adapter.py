"""LoRA adapters in PEFT's layout: adapter_config.json and adapter_model.safetensors, both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from groundup.config.schema import LoraSettings
from groundup.errors import UserError
from groundup.hub.runs import only_scores
from groundup.model.llm import LanguageModel
from groundup.model.lora import attach_lora, find_targets, lora_layers, lora_state
from groundup.model.score import Score
from groundup.store import files

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
SCORE = "score.weight"
"""A reward model's scalar head, which PEFT saves with the factors."""

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


def save_adapter(model: LanguageModel, folder: Path | str, base_name: str, reward: bool = False) -> None:
    """Write the adapter alone; plain PEFT loads it onto the base model and gives the same logits.

    Args:
        base_name: path or hub name of the base model, for PEFT's `base_model_name_or_path`.
        reward: as the adapter of a sequence classifier, and the scalar head with it.
    """
    settings = model.lora
    assert settings is not None, "the model has no adapter"
    config = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if reward else "CAUSAL_LM",
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
    tensors = lora_state(model)
    if reward:
        assert model.score is not None
        config["modules_to_save"] = ["score"]
        tensors[SCORE] = model.score.weight
    state = {PREFIX + name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}

    def write(part: Path) -> None:
        save_file(state, part / WEIGHTS, metadata={"format": "pt"})
        files.write_json(part / CONFIG, config)

    files.publish_folder(Path(folder), write)


def load_adapter(
    model: LanguageModel, folder: Path | str, trainable: bool = False, reward: bool = False
) -> list[str]:
    """Attach a saved adapter to its base model; returns the names of the layers that have it.

    Args:
        trainable: go on training the factors; the base stays frozen either way.
        reward: a reward model's adapter is wanted; its scalar head is attached too.

    Raises:
        UserError: the adapter uses an option of PEFT that would be ignored here, or does not fit the model.
    """
    folder = Path(folder)
    settings = adapter_settings(folder, reward)
    state = _read_state(folder)
    score = _score(model, state.pop(SCORE, None), folder) if reward else None
    targets = sorted({name.rpartition(".lora_")[0] for name in state})
    names = attach_lora(
        model, settings.model_copy(update={"target_modules": _targets(model, targets, folder)})
    )
    if score is not None:  # behind the freezing, which would round it
        model.score = score.requires_grad_(trainable)
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


def adapter_settings(folder: Path | str, reward: bool = False) -> LoraSettings:
    """What an adapter folder says about itself. Raises UserError for options that we would get wrong."""
    path = Path(folder) / CONFIG
    config = files.read_json(path)
    if only_scores(Path(folder)) and not reward:
        raise scores_only(Path(folder))
    saved = set(config.get("modules_to_save") or ())
    if reward and only_scores(Path(folder)) and {"score"} <= saved <= {"score", "classifier"}:
        config = {**config, "task_type": None, "modules_to_save": None}
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


def scores_only(folder: Path) -> UserError:
    """For everybody who wants a model that answers."""
    return UserError(
        "this is a reward model, or another classifier: it scores texts and cannot write any",
        where=str(folder),
        fix="name a model that answers; a reward model is for the rewards of ppo and grpo",
    )


def _score(model: LanguageModel, weight: torch.Tensor | None, folder: Path) -> Score:
    score = Score(model.config.hidden_size, model.device)
    if weight is None or weight.shape != score.weight.shape:
        raise _unfit(
            folder, f"its scalar head {SCORE} is {'missing' if weight is None else list(weight.shape)}"
        )
    with torch.no_grad():
        score.weight.copy_(weight)
    return score


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
