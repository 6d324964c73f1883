"""Every command on the right side of docs/coming-from.md, in the page's order, beside a hub on loopback."""

import re
import shlex
from pathlib import Path

import pytest
from hub_material import SENTENCES

PAGE = (Path(__file__).parents[2] / "docs" / "coming-from.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"`groundup ([^`]+)`", "\n".join(re.findall(r"^\|.*?\|(.*)\|$", PAGE, re.MULTILINE)))
TINY = {
    "pretrain": [
        "--set=pretrain.architecture.hidden_size=32",
        "--set=pretrain.architecture.intermediate_size=48",
        "--set=pretrain.architecture.num_attention_heads=4",
        "--set=pretrain.architecture.num_key_value_heads=4",
        "--set=pretrain.dtype=float32",
        "--set=pretrain.max_steps=10",
        "--set=tokenizer.vocab_size=600",
    ],
    "sft": ["--set=max_steps=2", "--set=dtype=float32"],
    "dpo": ["--set=max_steps=2", "--set=dtype=float32"],
}


def smaller(words):
    """What makes the line small enough for a test; nothing that the page says of it is changed."""
    if words[0] == "run" and words[1].startswith("pretrain"):
        return [*TINY["pretrain"], "--set=pretrain.architecture.num_hidden_layers=2"]
    return TINY.get(words[0], [])


@pytest.mark.slow
def test_the_page_from_top_to_bottom(field, conversation, pair, write, tmp_path):
    write("chats.jsonl", [conversation(i) for i in range(24)])
    write("pairs.jsonl", [pair(i) for i in range(16)])
    recipes = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    write("my.yaml", next(text for text in recipes if "stages:" in text and "chats.jsonl" in text))
    (tmp_path / "books").mkdir()
    for number in range(12):
        lines = [f"{number} {sentence}" for sentence in SENTENCES]
        (tmp_path / "books" / f"{number}.txt").write_text("\n".join(lines))
    assert len(COMMANDS) > 25
    for command in COMMANDS:
        words = shlex.split(command)
        field(*words, *smaller(words), typed="What of the sea?\nexit\n")
    for folder in ("B", "exported"):
        assert list((tmp_path / folder).rglob("model.safetensors"))
