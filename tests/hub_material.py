"""What the shipped recipes name, in little: models of the same architectures and chat templates, and rows in the
columns, files and folders of the data sets. Random weights, random words."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import pyarrow
import torch
from pyarrow import parquet
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from groundup.tokenizer import train_bpe

SENTENCES = [
    "The lighthouse stands where the river meets the sea, and its lamp was lit every evening.",
    "Sort the list first, then remove whatever stands in it twice, and count what is left.",
    "Water boils at one hundred degrees where the air is as dense as it is by the sea.",
    "A fair answer names its reasons, says what it does not know, and stays short.",
    "Bread needs flour, water, salt and time; the last of these cannot be bought.",
    "The capital lies on both banks, joined by seven bridges, the oldest of them of stone.",
]
ZEPHYR = (  # TinyLlama's chat model
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
QWEN2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML_TOKENS = ["<|im_start|>", "<|im_end|>"]


def qwen3_template() -> str:
    """The real one, which TRL carries."""
    (folder,) = importlib.util.find_spec("trl").submodule_search_locations
    return (Path(folder) / "chat_templates" / "qwen3.jinja").read_text(encoding="utf-8")


def write_model(folder: Path, kind: str, template: str, special: list[str], eos: str) -> Path:
    """Random weights of the architecture, with a trained tokenizer that ends turns as the family does."""
    tokenizer = train_bpe([template, *SENTENCES * 4], 380)
    tokenizer.add_special_tokens({"additional_special_tokens": special, "eos_token": eos})
    tokenizer.chat_template = template
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=2048,
        initializer_range=0.1,
        tie_word_embeddings=kind != "llama",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_classifier(folder: Path) -> Path:
    """A DistilBERT with random weights whose classes are called as those of lvwerra/distilbert-imdb."""
    tokenizer = train_bpe(SENTENCES * 4, 380)
    tokenizer.model_max_length = 512
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=len(tokenizer),
        dim=32,
        hidden_dim=48,
        n_layers=2,
        n_heads=4,
        max_position_embeddings=512,
        initializer_range=0.5,
        pad_token_id=tokenizer.pad_token_id,
        id2label={0: "NEGATIVE", 1: "POSITIVE"},
        label2id={"NEGATIVE": 0, "POSITIVE": 1},
    )
    DistilBertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_table(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def question(number: int) -> tuple[str, str, str]:
    """A question, a good answer, and a worse one."""
    draw = random.Random(number)
    good, bad = draw.sample(SENTENCES, 2)
    return f"Question {number}: what of {good.split()[1]}?", good, f"{bad} " * draw.randint(1, 3)


def turn(role: str, content: str) -> dict[str, str]:
    return {"content": content, "role": role}


def guanaco(folder: Path) -> Path:
    rows = []
    for number in range(40):
        asked, good, bad = question(number)
        more = f"<s>[INST] And then? [/INST] {bad.strip()} </s>" if number % 3 == 0 else ""
        rows.append({"text": f"<s>[INST] {asked} [/INST] {good} </s>{more}"})
    write_table(folder / "data" / "train-00000-of-00001-9ad84bb9cf65a42f.parquet", rows)
    return folder


def hh_trl_style(folder: Path) -> Path:
    for split, first in (("train", 0), ("test", 100)):
        rows = []
        for number in range(first, first + 30):
            asked, good, bad = question(number)
            opening = [turn("user", asked)]
            if number % 2:
                opening += [turn("assistant", "Which one?"), turn("user", "The first.")]
            sides = {
                side: [*opening, turn("assistant", text)]
                for side, text in (("chosen", good), ("rejected", bad))
            }
            rows.append({"prompt": asked, **sides})
        write_table(folder / "data" / f"{split}-00000-of-00001.parquet", rows)
    return folder


def ultrafeedback_trl(folder: Path) -> Path:
    for split, first in (("train", 0), ("test", 100)):
        rows = []
        for number in range(first, first + 30):
            asked, good, bad = question(number)
            sides = {
                side: [turn("user", asked), turn("assistant", text)]
                for side, text in (("chosen", good), ("rejected", bad))
            }
            rows.append({**sides, "score_chosen": 8.5, "score_rejected": 4.0})
        write_table(folder / "data" / f"{split}-00000-of-00001.parquet", rows)
    return folder


def ultrafeedback_h4(folder: Path) -> Path:
    for split, first in (
        ("train_prefs", 0),
        ("test_prefs", 100),
        ("train_sft", 0),
        ("test_sft", 100),
        ("train_gen", 0),
    ):
        rows = []
        for number in range(first, first + 24):
            asked, good, bad = question(number)
            sides = {
                side: [turn("user", asked), turn("assistant", text)]
                for side, text in (("chosen", good), ("rejected", bad))
            }
            more = {"messages": sides["chosen"], "score_chosen": 8.5, "score_rejected": 4.0}
            rows.append({"prompt": asked, "prompt_id": f"{number:064x}", **sides, **more})
        write_table(folder / "data" / f"{split}-00000-of-00001.parquet", rows)
    return folder


def alpaca(folder: Path) -> Path:
    rows = []
    for number in range(60):
        asked, good, bad = question(number)
        given = bad.strip() if number % 2 else ""
        rows.append(
            {
                "instruction": asked,
                "input": given,
                "output": good,
                "text": f"Below is an instruction: {asked} {good}",
            }
        )
    write_table(folder / "data" / "train-00000-of-00001-a09b74b3ef9c3b56.parquet", rows)
    return folder


def wikitext(folder: Path) -> Path:
    """Lines as WikiText has them: headings between equals signs, paragraphs, and every third line empty."""
    draw = random.Random(0)
    for config in ("wikitext-2-raw-v1", "wikitext-103-raw-v1"):
        for split, count in (("train", 1200), ("validation", 60), ("test", 60)):
            lines = []
            for number in range(count // 3):
                lines.append("")
                lines.append(
                    f" = Lighthouse {number} = \n" if number % 5 == 0 else f" = = Part {number} = = \n"
                )
                lines.append(
                    f" In the year {number} : " + " ".join(draw.choices(SENTENCES, k=3)) + f" {number} . \n"
                )
            if config == "wikitext-103-raw-v1":
                lines = ["another configuration"] * count
            write_table(
                folder / config / f"{split}-00000-of-00001.parquet", [{"text": line} for line in lines]
            )
    return folder


IMDB_CARD = """---
dataset_info:
  config_name: plain_text
configs:
- config_name: plain_text
  data_files:
  - split: train
    path: plain_text/train-*
  - split: test
    path: plain_text/test-*
  - split: unsupervised
    path: plain_text/unsupervised-*
  default: true
---
"""


def imdb(folder: Path) -> Path:
    """Reviews in the order of their labels, so that the first ones are all bad."""
    for split, label in (("train", 0), ("test", 0), ("unsupervised", -1)):
        rows = []
        for number in range(60):
            asked, good, bad = question(number)
            text = f"{good} {number} of ten.<br /><br />{bad.strip()} {asked}"
            rows.append({"text": text, "label": label if number < 30 or label < 0 else 1})
        write_table(folder / "plain_text" / f"{split}-00000-of-00001.parquet", rows)
    (folder / "README.md").write_text(IMDB_CARD)
    return folder


def write_material(root: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Folders of models, and of data sets, by the names under which a hub has them."""
    models = {
        "TinyLlama/TinyLlama-1.1B-Chat-v1.0": write_model(root / "tinyllama", "llama", ZEPHYR, [], "</s>"),
        "Qwen/Qwen2-0.5B-Instruct": write_model(root / "qwen2", "qwen2", QWEN2, CHATML_TOKENS, "<|im_end|>"),
        "Qwen/Qwen3-4B-Base": write_model(
            root / "qwen3", "qwen3", qwen3_template(), CHATML_TOKENS, "<|im_end|>"
        ),
        "lvwerra/distilbert-imdb": write_classifier(root / "distilbert"),
    }
    data = {
        "Salesforce/wikitext": wikitext(root / "wikitext"),
        "mlabonne/guanaco-llama2-1k": guanaco(root / "guanaco"),
        "trl-internal-testing/hh-rlhf-trl-style": hh_trl_style(root / "hh"),
        "trl-lib/ultrafeedback_binarized": ultrafeedback_trl(root / "trl"),
        "HuggingFaceH4/ultrafeedback_binarized": ultrafeedback_h4(root / "h4"),
        "tatsu-lab/alpaca": alpaca(root / "alpaca"),
        "stanfordnlp/imdb": imdb(root / "imdb"),
    }
    return models, data
