"""Does reinforcement learn? A model from scratch sorts digits: SFT to a partial level, then GRPO and PPO from there.

    python benchmarks/learning.py --seeds 0,1,2

Accuracy is the share of held-out prompts answered exactly right, greedily. Everything goes through `groundup`'s stages;
steps are fixed, so a busy machine takes longer and finds the same.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from groundup.config import build_recipe
from groundup.stages.run import run_recipe
from groundup.store import Run
from groundup.store.files import read_json

DIGITS = 6
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message.role + '|>' + message.content }}"
    "{% if message.role == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
COMMON = {"lora": False, "dtype": "float32", "logging_steps": 5, "save_steps": 1000, "sample_count": 3}
SFT = {"max_steps": 110, "batch_size": 64, "learning_rate": 2e-3, "max_length": 32}
POLICY = {
    **{
        "max_prompt_length": 24,
        "max_completion_length": 8,
        "num_eval_prompts": 500,
        "log_completions_steps": 50,
    },
    **{
        "lr_scheduler_type": "constant",
        "warmup_ratio": 0.0,
        "rewards": [{"function": "exact_match", "column": "answer"}],
    },
}
GRPO = {"max_steps": 150, "batch_size": 32, "num_generations": 8, "learning_rate": 3e-4}
PPO = {
    **{
        "max_steps": 300,
        "batch_size": 256,
        "num_mini_batches": 2,
        "num_ppo_epochs": 2,
        "learning_rate": 3e-4,
    },
    **{"temperature": 1.0, "kl_coef": 0.0, "vf_coef": 0.5},
}


def make_model(folder: Path, seed: int) -> Path:
    """Random weights, and a token for each character."""
    special = ["<|user|>", "<|assistant|>", "<|end|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(special + letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>", pad_token="<|end|>")
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_data(folder: Path, seed: int) -> dict[str, Path]:
    """Conversations to learn from, prompts to try, prompts held out; no prompt stands in two of them."""
    draw = random.Random(seed)
    numbers = draw.sample(range(10**DIGITS), 4000 + 8000 + 500)
    rows = [(text, "".join(sorted(text))) for text in (f"{number:0{DIGITS}d}" for number in numbers)]
    parts = {"sft": rows[:4000], "prompts": rows[4000:12000], "heldout": rows[12000:]}
    files = {}
    for name, part in parts.items():
        answer = "completion" if name == "sft" else "answer"
        files[name] = folder / f"{name}.jsonl"
        files[name].write_text("".join(json.dumps({"prompt": p, answer: a}) + "\n" for p, a in part))
    return files


def learn(folder: Path, seed: int, changes: dict[str, Any] | None = None) -> dict[str, tuple[float, float]]:
    """Accuracy before and after each stage."""
    changes = changes or {}
    files = make_data(folder, seed)
    policy = {
        **COMMON,
        **POLICY,
        "from": "sft",
        "data": str(files["prompts"]),
        "eval_data": str(files["heldout"]),
    }
    stages = {
        "sft": {"from": str(make_model(folder / "model", seed)), "data": str(files["sft"]), **COMMON, **SFT},
        "grpo": {**policy, **GRPO},
        "ppo": {**policy, **PPO},
    }
    for name, more in changes.items():
        stages[name] |= more
    run = Run.open(folder / "run")
    run_recipe(build_recipe({"name": "sorting", "seed": seed, "stages": stages}), run.root)
    results = {name: read_json(run.stage(name).result) for name in ("grpo", "ppo")}
    return {
        name: (result["before"]["eval_reward"], result["after"]["eval_reward"])
        for name, result in results.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default="0,1,2")
    rows = []
    for seed in map(int, parser.parse_args().seeds.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            found = learn(Path(folder), seed)
        rows.append((seed, found))
    print("\n| seed | after SFT | after GRPO | after PPO |\n|---|---|---|---|")
    for seed, found in rows:
        print(f"| {seed} | {found['grpo'][0]:.1%} | {found['grpo'][1]:.1%} | {found['ppo'][1]:.1%} |")


if __name__ == "__main__":
    main()
