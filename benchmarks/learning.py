"""Does reinforcement learn? A model from scratch sorts digits: SFT on few rows to a partial level, then GRPO and PPO.

    python benchmarks/learning.py [--seeds 0,1,2] [--sft-rows N] [--sft-steps N] [--out FILE]

Accuracy is the share of held-out prompts that are answered exactly right, greedily. Everything goes through Groundup's
own stages; steps are fixed, so a busy machine takes longer and finds the same. The last line of output is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from groundup.store import Stage

DIGITS = 6
PROMPTS, HELD_OUT = 8000, 500
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message.role + '|>' + message.content }}"
    "{% if message.role == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SHAPE = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4}
COMMON = {"lora": False, "dtype": "float32", "save_steps": 1000}
SFT = {"batch_size": 64, "learning_rate": 2e-3, "max_length": 32}
POLICY = {
    "max_prompt_length": 16,
    "max_completion_length": DIGITS + 1,
    "num_eval_prompts": HELD_OUT,
    "lr_scheduler_type": "constant",
    "learning_rate": 3e-4,
    "rewards": [{"function": "exact_match", "column": "answer"}],
}
METHODS = {
    "grpo": {"max_steps": 120, "batch_size": 32, "num_generations": 8},
    "ppo": {
        "max_steps": 200,
        "batch_size": 256,
        "num_mini_batches": 2,
        "num_ppo_epochs": 2,
        "temperature": 1.0,
        "kl_coef": 0.0,
    },
}


def make_model(folder: Path, seed: int) -> Path:
    """Random weights, and a token for each character."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

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
        max_position_embeddings=64,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **SHAPE,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_data(folder: Path, seed: int, sft_rows: int) -> dict[str, Path]:
    """Conversations to learn from, prompts to try, prompts held out; no prompt stands in two of them."""
    draw = random.Random(seed)
    numbers = draw.sample(range(10**DIGITS), sft_rows + PROMPTS + HELD_OUT)
    rows = [(text, "".join(sorted(text))) for text in (f"{number:0{DIGITS}d}" for number in numbers)]
    ends = sft_rows, sft_rows + PROMPTS
    parts = {"sft": rows[: ends[0]], "prompts": rows[ends[0] : ends[1]], "heldout": rows[ends[1] :]}
    files = {}
    for name, part in parts.items():
        answer = "completion" if name == "sft" else "answer"
        files[name] = folder / f"{name}.jsonl"
        files[name].write_text("".join(json.dumps({"prompt": p, answer: a}) + "\n" for p, a in part))
    return files


def learn(folder: Path, seed: int, sft_rows: int, sft_steps: int) -> list[dict[str, Any]]:
    """A row a method: accuracy before and after it, in percent, and how long it trained."""
    from groundup.config import build_recipe
    from groundup.stages.run import run_recipe
    from groundup.store import Run

    files = make_data(folder, seed, sft_rows)
    model = make_model(folder / "model", seed)
    data = {"data": str(files["prompts"]), "eval_data": str(files["heldout"])}
    sft = {"from": str(model), "data": str(files["sft"]), "max_steps": sft_steps, **COMMON, **SFT}
    policies = {name: {"from": "sft", **data, **COMMON, **POLICY, **more} for name, more in METHODS.items()}
    run = Run.open(folder / "run")
    run_recipe(build_recipe({"name": "sorting", "seed": seed, "stages": {"sft": sft, **policies}}), run.root)
    return [{"work": name, "seed": seed, **measured(run.stage(name))} for name in METHODS]


def measured(stage: Stage) -> dict[str, float]:
    """Greedy on held-out prompts before and after; drawn at temperature 1 on the first and last prompts of training."""
    from groundup.store.files import read_json, read_jsonl

    result = read_json(stage.result)
    before, after = (100 * result[when]["eval_reward"] for when in ("before", "after"))
    drawn = [100 * line["reward"] for line in read_jsonl(stage.metrics) if "reward" in line]
    found = {"before_percent": before, "after_percent": after, "points": after - before}
    found |= {"drawn_first_percent": drawn[0], "drawn_last_percent": drawn[-1], "seconds": result["seconds"]}
    return {name: round(value, 1) for name, value in found.items()}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0,1,2", help="of weights, data and draws (default 0,1,2)")
    parser.add_argument(
        "--sft-rows", type=int, default=60, help="worked examples (default 60), learned by heart"
    )
    parser.add_argument("--sft-steps", type=int, default=200, help="of 64 rows (default 200)")
    parser.add_argument("--out", help="write the JSON line to this file too")
    options = parser.parse_args(arguments)
    from measure import environment

    from groundup.machine import probe

    about = environment(probe().cores)
    rows = []
    for seed in map(int, options.seeds.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            rows += learn(Path(folder), seed, options.sft_rows, options.sft_steps)
    print(table(rows))
    shape = {"sft_rows": options.sft_rows, "sft_steps": options.sft_steps}
    line = json.dumps({"name": "learning", "rows": rows, "environment": about, "shape": shape})
    if options.out:
        Path(options.out).write_text(line + "\n", encoding="utf-8")
    print(line)


def table(rows: list[dict[str, Any]]) -> str:
    """Accuracies in percent."""
    head = "| seed | method | greedy, held out | points | drawn, in training | seconds |\n|---|---|---|---|---|---|"
    lines = [
        f"| {row['seed']} | {row['work']} | {row['before_percent']} → {row['after_percent']} | {row['points']:+} "
        f"| {row['drawn_first_percent']} → {row['drawn_last_percent']} | {row['seconds']:.0f} |"
        for row in rows
    ]
    return "\n".join(["", head, *lines, ""])


if __name__ == "__main__":
    main(sys.argv[1:])
