"""The models, their attention and head, LoRA, and Hugging Face folders and PEFT adapters in and out."""

from groundup.model.adapter import adapter_settings, load_adapter, save_adapter
from groundup.model.base import BaseLLM, initialize
from groundup.model.config import ModelConfig
from groundup.model.hf import check_answers, convert_gguf, load_model, read_config, save_model
from groundup.model.llm import LanguageModel
from groundup.model.lora import attach_lora, copy_adapter, has_lora, lora_state, merge_lora, using_adapter
from groundup.model.reward import attach_score, check_classifier, choose_padding, save_reward_model
from groundup.model.stock import StockLLM
from groundup.model.stock_config import StockConfig
from groundup.model.value import PolicyValue

__all__ = [
    "BaseLLM",
    "LanguageModel",
    "ModelConfig",
    "PolicyValue",
    "StockConfig",
    "StockLLM",
    "adapter_settings",
    "attach_lora",
    "attach_score",
    "check_answers",
    "check_classifier",
    "choose_padding",
    "convert_gguf",
    "copy_adapter",
    "has_lora",
    "initialize",
    "load_adapter",
    "load_model",
    "lora_state",
    "merge_lora",
    "read_config",
    "save_adapter",
    "save_model",
    "save_reward_model",
    "using_adapter",
]
