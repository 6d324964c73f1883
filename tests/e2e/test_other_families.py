"""Models whose layers are transformers' own: the whole recipe, from SFT to chat, in the layout that the probe chose."""

import json
import shutil

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from groundup.store.files import read_json

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 160,
    "initializer_range": 0.2,
}
GEMMA2 = {"intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 24}
FAMILIES = {
    "gpt2": ({}, "shared"),
    "gemma2": (GEMMA2, "shared"),
    "falcon": ({"num_kv_heads": 2, "new_decoder_architecture": True}, "single"),
}


def write_model(folder, kind, like):
    """A random model of the family with the tokenizer of `like`."""
    tokenizer = AutoTokenizer.from_pretrained(like)
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = AutoConfig.for_model(kind, **SHAPE, **FAMILIES[kind][0], **special, vocab_size=len(tokenizer))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "kind", ["gpt2", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("gemma2", "falcon"))]
)
def test_the_whole_recipe(kind, model, chain_text, groundup, in_shell, write, tmp_path):
    folder = write_model(tmp_path / kind, kind, model)
    write("chain.yaml", chain_text.replace(str(model), str(folder)))
    said = groundup("run", "chain.yaml")
    assert said.code == 0, said.out + said.err
    layout = FAMILIES[kind][1]
    assert f"layout {layout}: " in said.out
    run = tmp_path / "runs" / "chain"
    for stage in ("sft", "dpo"):
        plan, result = (read_json(run / stage / name) for name in ("plan.json", "result.json"))
        assert plan["layout"] == layout and plan["layout_reason"]
        assert result["after"]["eval_loss"] < result["before"]["eval_loss"]
    assert read_json(run / "dpo" / "result.json")["before"]["eval_rewards/margins"] == pytest.approx(
        0, abs=1e-4
    )
    assert read_json(run / "merge" / "result.json")["max_logit_difference"] < 1e-4
    assert (
        type(AutoModelForCausalLM.from_pretrained(run / "merge" / "final")).__name__.lower().startswith(kind)
    )
    # Two questions: a random model of one of the families likes line ends.
    typed = "Say red number 1.\nWhat of the sea?\n"
    answered = in_shell("chat", "runs/chain/dpo", "--max-new-tokens", "24", "--seed", "1", typed=typed)
    assert answered.code == 0 and answered.out.strip(), answered.err
    again = groundup("run", "chain.yaml")
    assert again.code == 0 and again.out.count("already done") == 4


def test_all_weights_and_a_resumed_stage(model, chain_text, groundup, write, tmp_path):
    """Full fine-tuning in bfloat16; a second sitting reads the plan's layout and does not probe again."""
    folder = write_model(tmp_path / "gpt2", "gpt2", model)
    text = chain_text.replace(str(model), str(folder)).partition("  dpo:")[0]
    text = text.replace("lora: {r: 4, lora_alpha: 8}", "lora: false").replace(
        "dtype: float32", "dtype: bfloat16"
    )
    write("full.yaml", text)
    said = groundup("run", "full.yaml")
    assert said.code == 0, said.out + said.err
    stage = tmp_path / "runs" / "full" / "sft"
    result = read_json(stage / "result.json")
    assert result["after"]["eval_loss"] < result["before"]["eval_loss"]
    (stage / "manifest.json").unlink()
    shutil.rmtree(stage / "checkpoint-000004")
    plan = read_json(stage / "plan.json")
    (stage / "plan.json").write_text(json.dumps(plan | {"layout": "packed", "layout_reason": "as planned"}))
    said = groundup("run", "full.yaml")
    assert said.code == 0 and "layout packed: as planned" in said.out


def test_a_tokenizer_larger_than_the_embedding(model, chain_text, groundup, write, tmp_path):
    folder = write_model(tmp_path / "gpt2", "gpt2", model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<one>", "<more>"])
    tokenizer.save_pretrained(folder)
    write("chain.yaml", chain_text.replace(str(model), str(folder)))
    groundup("run", "chain.yaml").refused(f"the tokenizer has {len(tokenizer)} tokens", "embedding")
