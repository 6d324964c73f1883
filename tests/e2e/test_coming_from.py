"""Every command on the right side of docs/coming-from.md, a section at a time, beside a hub on loopback."""

import re
import shlex
from pathlib import Path

import pytest
from hub_material import SENTENCES

PAGE = (Path(__file__).parents[2] / "docs" / "coming-from.md").read_text(encoding="utf-8")
SECTIONS = {
    heading: commands
    for heading, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    if (
        commands := re.findall(
            r"`groundup ([^`]+)`", "".join(re.findall(r"^\|.*?\|(.*)\|$", text, re.MULTILINE))
        )
    )
}
SHORT = ["sample_tokens=4", "dtype=float32"]
SHAPE = ["hidden_size=32", "intermediate_size=48", "num_attention_heads=4", "num_key_value_heads=4"]
BASE = [
    *(f"--set=pretrain.architecture.{setting}" for setting in SHAPE),
    "--set=pretrain.dtype=float32",
    "--set=pretrain.max_steps=2",
    "--set=clean.holdout=0.2",
    "--set=tokenizer.vocab_size=600",
]
STAGES = {
    "tinyllama-guanaco-cpu": ("sft", "ppo", "dpo"),
    "qwen2-0.5b-ultrafeedback": ("dpo",),
    "qwen3-4b-4xh100": ("sft", "dpo"),
    "my.yaml": ("sft",),
}


def smaller(words):
    """What makes the line small enough for a test; nothing that the page says of it is changed."""
    verb, recipe = words[0], words[1]
    if verb == "run" and recipe in STAGES:
        short = [f"--set={stage}.{setting}" for stage in STAGES[recipe] for setting in SHORT]
        return short if recipe == "my.yaml" else [*short, "--set=eval.sample_tokens=4"]
    if verb == "reward":
        return ["--set=max_steps=2", "--set=dtype=float32"]
    if verb == "grpo":
        settings = (
            "max_steps=1",
            "batch_size=2",
            "num_generations=2",
            "max_completion_length=4",
            "num_eval_prompts=2",
        )
        return [
            *(f"--set={setting}" for setting in settings),
            "--set=max_prompt_length=64",
            "--set=dtype=float32",
        ]
    if verb in ("sft", "dpo"):
        return ["--set=max_steps=2", *(f"--set={setting}" for setting in SHORT)]
    if verb == "compare":
        return ["--max-new-tokens", "4"]
    if verb == "chat":
        return ["--max-new-tokens", "8"]
    if verb == "pretrain":
        return BASE
    return (
        [*BASE, "--set=pretrain.architecture.num_hidden_layers=2"]
        if recipe.startswith("pretrain") and verb == "run"
        else []
    )


def test_the_sections_are_found():
    assert len(SECTIONS) == 6 and sum(map(len, SECTIONS.values())) > 25


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_from_top_to_bottom(section, field, conversation, pair, write, tmp_path):
    write("chats.jsonl", [conversation(i) for i in range(24)])
    write("pairs.jsonl", [pair(i) for i in range(16)])
    write("problems.jsonl", [{"prompt": f"What is {i} and {i}?", "answer": str(2 * i)} for i in range(16)])
    recipes = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    write("my.yaml", next(text for text in recipes if "stages:" in text and "chats.jsonl" in text))
    (tmp_path / "books").mkdir()
    for number in range(60):
        lines = [f"{number} {sentence}" for sentence in SENTENCES]
        (tmp_path / "books" / f"{number}.txt").write_text("\n".join(lines))
    for command in SECTIONS[section]:
        words = shlex.split(command)
        field(*words, *smaller(words), typed="What of the sea?\nexit\n")
