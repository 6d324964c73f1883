"""Settings by the names that other tools have for them, and what they are called here.

Only names with an equal meaning stand in `NAMES`; what needs no setting here stands in `LEAVE_OUT`, with the reason.
What belongs to preferences and rewards alone stands in `foreign_alignment`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from groundup.config import foreign_alignment
from groundup.errors import UserError

_ROWS = "the rows of one optimizer step on all devices together: per-device size x accumulation x devices"
_CUT = "prompt and answer together; longer rows are set aside and counted, never cut"

NAMES: dict[str, tuple[str, str]] = {
    **foreign_alignment.NAMES,
    # Trainer, TRL and the tutorials on top of them
    "model_name_or_path": ("from", "a hub name, a folder, an adapter, or a stage"),
    "model_name": ("from", "a hub name, a folder, an adapter, or a stage"),
    "model_id": ("from", "a hub name, a folder, an adapter, or a stage"),
    "base_model": ("from", "a hub name, a folder, an adapter, or a stage"),
    "policy_model": ("from", "a hub name, a folder, an adapter, or a stage"),
    "adapter_name_or_path": ("from", "an adapter knows its base model"),
    "model_config_path": ("architecture", "in the pretrain stage, or `model` to go on from a model"),
    "tokenizer_path": ("tokenizer", "in the shards stage; any other stage has its model's"),
    "dataset": ("data", ""),
    "dataset_name": ("data", "a hub name, a file, a folder or a glob"),
    "dataset_dir": ("data", "the folder's path; what `datasets` saved is read too"),
    "train_file": ("data", ""),
    "dataset_text_field": ("data.columns", "{text: THEIRS}"),
    "text_column": ("data.columns", "{text: THEIRS}"),
    "prompt_column": ("data.columns", "{prompt: THEIRS}"),
    "chosen_column": ("data.columns", "{chosen: THEIRS}"),
    "rejected_column": ("data.columns", "{rejected: THEIRS}"),
    "dataset_subset_size": ("data.subset", ""),
    "dataset_subset_size_cpu": ("data.subset", ""),
    "max_samples": ("data.subset", ""),
    "dataset_config": ("data.config", ""),
    "dataset_config_name": ("data.config", ""),
    "dataset_split": ("data.split", ""),
    "dataset_train_split": ("data.split", ""),
    "train_split": ("data.split", ""),
    "dataset_test_split": ("eval_data.split", ""),
    "eval_dataset": ("eval_data", ""),
    "validation_split": ("eval_data.split", ""),
    "val_size": ("holdout", "a share of the rows"),
    "validation_size": ("holdout", "a share of the rows"),
    "test_size": ("holdout", "a share of the rows"),
    "per_device_train_batch_size": ("batch_size", _ROWS),
    "gradient_accumulation_steps": ("batch_size", _ROWS),
    "train_batch_size": ("batch_size", _ROWS),
    "max_seq_length": ("max_length", _CUT),
    "max_seq_len": ("max_length", _CUT),
    "cutoff_len": ("max_length", _CUT),
    "max_target_length": ("max_length", _CUT),
    "num_epochs": ("num_train_epochs", ""),
    "epochs": ("num_train_epochs", ""),
    "n_epochs": ("num_train_epochs", ""),
    "ppo_steps": ("max_steps", ""),
    "lr": ("learning_rate", ""),
    "lr_scheduler": ("lr_scheduler_type", ""),
    "warmup_steps": ("warmup_ratio", "a share of all steps"),
    "optimizer": ("optim", ""),
    "max_norm": ("max_grad_norm", ""),
    "eval_strategy": ("eval_steps", "every so many steps; 0: only before and after"),
    "evaluation_strategy": ("eval_steps", "every so many steps; 0: only before and after"),
    "save_strategy": ("save_steps", ""),
    "bf16": ("dtype", "auto measures what is faster here"),
    "fp16": ("dtype", "auto measures what is faster here"),
    "torch_dtype": ("dtype", "auto measures what is faster here"),
    "model_dtype": ("dtype", "auto measures what is faster here"),
    "mixed_precision": ("dtype", "auto measures what is faster here"),
    "pure_bf16": ("dtype", "auto measures what is faster here"),
    "use_lora": ("lora", "an adapter is the default; false trains all weights"),
    "use_peft": ("lora", "an adapter is the default; false trains all weights"),
    "finetuning_type": ("lora", "an adapter is the default; false trains all weights"),
    "lora_r": ("lora.r", ""),
    "lora_rank": ("lora.r", ""),
    "lora_target": ("lora.target_modules", "all-linear, or a list"),
    "lora_target_modules": ("lora.target_modules", "all-linear, or a list"),
    "chat_template_path": ("chat.chat_template", "beside `stages`"),
    "template": ("chat.chat_template", "beside `stages`; default: the model's own"),
    "default_system": ("chat.system_prompt", "beside `stages`"),
    "enable_thinking": ("chat.chat_template_kwargs", "{enable_thinking: false}, beside `stages`"),
    "assistant_only_loss": ("loss_on", "the loss always sees answers alone: all of them, or the last"),
    "completion_only_loss": ("loss_on", "the loss always sees answers alone: all of them, or the last"),
    "mask_history": ("loss_on", "last"),
    "run_name": ("name", "beside `stages`"),
    # LLaMA-Factory
    "stage": ("stages", "each stage by its name, with its kind"),
    "pref_beta": ("beta", ""),
    "dpo_beta": ("beta", ""),
    # nanochat
    "depth": ("architecture.num_hidden_layers", ""),
    "total_batch_size": ("batch_tokens", ""),
    "matrix_lr": ("learning_rate", "one for muon's matrices and AdamW's vectors"),
    "embedding_lr": ("learning_rate", "one for muon's matrices and AdamW's vectors"),
}

_MEASURED = "how many rows fit at once is measured, and changes no result"
_EXACT = "before a stage trains, the fastest attention is taken that gives this model's own numbers"
_ALONE = "training runs in one process, on one device"
_WHOLE = "base weights are not quantized; an adapter's base lies in memory in the compute dtype"

LEAVE_OUT: dict[str, str] = {
    **foreign_alignment.LEAVE_OUT,
    "output_dir": "the folder is runs/NAME, or --out on the command line",
    "overwrite_output_dir": "a finished stage is reused, a changed one made again; --out names another folder",
    "report_to": "TensorBoard's events and metrics.jsonl are always written",
    "logging_dir": "TensorBoard's events lie in each stage's folder",
    "resume_from_checkpoint": "running the same command again goes on from the last checkpoint",
    "attn_implementation": _EXACT,
    "attnImplementation": _EXACT,
    "attention_type": _EXACT,
    "flash_attn": _EXACT,
    "per_device_eval_batch_size": _MEASURED,
    "device_batch_size": _MEASURED,
    "auto_find_batch_size": _MEASURED,
    "packing": "rows are always packed, and no row sees another",
    "packing_strategy": "rows are always packed, and no row sees another",
    "eval_packing": "rows are always packed, and no row sees another",
    "padding_free": "there is no padding",
    "group_by_length": "there is no padding",
    "dataset_kwargs": "rows are read by what is in them",
    "remove_unused_columns": "other columns are never read",
    "dataset_num_proc": "as many processes as fit the machine",
    "preprocessing_num_workers": "as many processes as fit the machine",
    "dataloader_num_workers": "rows are made while the step runs",
    "overwrite_cache": "what is read again has not changed",
    "trust_remote_code": "code from a hub is never run",
    "use_fast_tokenizer": "it is always the fast one",
    "lora_dropout": "there is no dropout, so that a prompt can be computed once for both answers",
    "bias": "an adapter has no biases",
    "task_type": "it is always a causal language model",
    "adam_epsilon": "it is 1e-8",
    "gradient_checkpointing_kwargs": "gradient_checkpointing alone says it",
    "use_torch_compile": "nothing is compiled",
    "torch_compile": "nothing is compiled",
    "load_in_4bit": _WHOLE,
    "load_in_8bit": _WHOLE,
    "quantization_bit": _WHOLE,
    "bnb_4bit_quant_type": _WHOLE,
    "bnb_4bit_compute_dtype": _WHOLE,
    "bnb_4bit_use_double_quant": _WHOLE,
    "deepspeed": _ALONE,
    "deepspeed_config": _ALONE,
    "fsdp": _ALONE,
    "ddp_timeout": _ALONE,
    "ddp_find_unused_parameters": _ALONE,
    "device_map": "a GPU is taken where PyTorch sees one",
    "use_cpu": "a GPU is taken where PyTorch sees one; CUDA_VISIBLE_DEVICES= hides it",
    "precompute_ref_log_probs": "they always are computed once, before training",
    "push_to_hub": "nothing is uploaded",
    "hub_model_id": "nothing is uploaded",
    "do_train": "a stage trains",
    "do_eval": "held-out rows are always evaluated before and after",
    "plot_loss": "the report has the curves",
}

_ADAMW = "Write adamw_torch, or leave it out: its moments are float32, and an adapter's are small."
_HALF = "Write bfloat16, or leave it out: float16 is not used, it overflows in training."

VALUES: dict[tuple[str, Any], str] = {
    **foreign_alignment.VALUES,
    **{
        ("optim", name): _ADAMW
        for name in (
            *("paged_adamw_8bit", "paged_adamw_32bit", "adamw_8bit", "adamw_bnb_8bit"),
            *("adamw_torch_fused", "adamw_hf", "adamw", "adam", "lion"),
        )
    },
    **{("dtype", name): _HALF for name in ("fp16", "float16", "half", "16")},
    **{("dtype", name): "Write bfloat16." for name in ("bf16", "torch.bfloat16")},
    **{("dtype", name): "Write float32." for name in ("fp32", "torch.float32", "no", "float")},
    ("lora", True): "Leave it out: an adapter is the default. Its shape: lora: {r: 16, lora_alpha: 32}.",
    ("lr_scheduler_type", "constant_with_warmup"): "Write constant: warmup_ratio holds for every schedule.",
    ("max_steps", -1): "Write 0: as many as the epochs need.",
    ("num_train_epochs", -1): "Leave it out: max_steps goes before it.",
    ("target_modules", "all"): "Write all-linear.",
    ("loss_on", "completion"): "Leave it out: the loss always sees answers alone.",
}
"""Values that other tools have and this one has not, by (setting, value)."""


def advice(key: str, kind: str = "") -> str:
    """What to write in place of another tool's setting; empty for a name that is not known. kind: of the stage."""
    found = foreign_alignment.IN_KIND.get((kind, key)) or NAMES.get(key)
    if found is not None:
        name, note = found
        if not name:
            return f"Leave it out: {note}."
        return f"Here it is `{name}`{': ' + note if note else ''}."
    return f"Leave it out: {LEAVE_OUT[key]}." if key in LEAVE_OUT else ""


def value_advice(key: Any, value: Any) -> str:
    """What to write in place of another tool's value; empty where nothing is known."""
    try:
        return VALUES.get((key, value), "")
    except TypeError:  # a list or settings
        return "Write one of them: losses are not mixed." if key == "loss" and isinstance(value, list) else ""


def refuse(raw: Mapping[str, Any], where: str) -> None:
    """Raise UserError for a file that is another tool's configuration, with what each setting is called here."""
    if "stages" in raw:
        return
    known = {key: said for key in _keys(raw) if (said := advice(key))}
    if len(known) < 2:
        return
    width = max(len(key) for key in known)
    lines = [f"{key:<{width}}  {said}" for key, said in known.items()]
    raise UserError(
        "This is another tool's configuration, not a recipe: it has no `stages`.",
        where=where,
        why="\n".join(lines),
        fix="Begin with a shipped recipe (groundup recipes; groundup init NAME) and set these there; "
        "docs/coming-from.md has whole files side by side.",
    )


def _keys(node: Mapping[Any, Any]) -> Iterator[str]:
    for key, value in node.items():
        if isinstance(key, str):
            yield key
        if isinstance(value, dict):
            yield from _keys(value)
