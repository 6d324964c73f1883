"""`groundup compare` from the raw rows to the numbers, beside TRL's own metrics of the same pairs."""

import json

import peft
import pytest
import torch
from transformers import AutoTokenizer
from trl_steps import BETA, CLOSE, dpo_trainer, plain, write_adapter

from groundup.stages.compare import Asked, compare_models

# Nothing stands behind an end of turn, else TRL would score that too.
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PAIRS = [
    ("Hello there", "Hello", "Of course, of course, hello, how are you?"),
    ("Two and two?", "Four", "Five"),
    ("Capital of France?", "It is Paris.", "It is"),
    ("One word", "Word", "Word " * 9 + "end"),
    ("Count", "one two three four five", "one"),
]


@pytest.fixture
def folders(chat_folder, tmp_path):
    """The reference, and a policy that differs from it, both whole, with a template of their own."""
    reference, policy = tmp_path / "reference", tmp_path / "policy"
    tokenizer = AutoTokenizer.from_pretrained(chat_folder)
    tokenizer.chat_template = TEMPLATE
    adapter = write_adapter(chat_folder, tmp_path / "adapter")
    merged = peft.PeftModel.from_pretrained(plain(chat_folder), adapter).merge_and_unload()
    for folder, model in ((reference, plain(chat_folder)), (policy, merged)):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return reference, policy, tokenizer


def test_rewards_are_trls(folders, tmp_path, capsys):
    reference, policy, tokenizer = folders
    rows = [
        {
            "prompt": [{"role": "user", "content": prompt}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
        }
        for prompt, chosen, rejected in PAIRS
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "found.json"
    compare_models(
        [str(reference), str(policy)],
        Asked((str(file),), beta=BETA, sample_count=0, out=out),
        as_json=True,
    )
    found = json.loads(out.read_text())
    trainer = dpo_trainer(plain(policy), plain(reference), tokenizer, rows, tmp_path)
    trainer.model.eval()
    for ours, row in zip(found["each"], trainer.train_dataset, strict=True):
        trainer._metrics["eval"].clear()
        with torch.no_grad():
            trainer.compute_loss(trainer.model, trainer.data_collator([row]))
        theirs = {name: values[-1] for name, values in trainer._metrics["eval"].items()}
        assert ours["margins"]["policy"]["rewards"] == pytest.approx(theirs["rewards/margins"], **CLOSE)
        assert ours["logps"]["policy"] == pytest.approx(
            [theirs["logps/chosen"], theirs["logps/rejected"]], **CLOSE
        )
    rewards = [pair["margins"]["policy"]["rewards"] for pair in found["each"]]
    assert min(rewards) < -0.01 and max(rewards) > 0.01, "both signs are seen"
    assert found["margins"]["policy"]["rewards"]["margin"] == pytest.approx(sum(rewards) / len(rewards))
