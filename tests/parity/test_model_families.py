"""Our decoder against transformers': the four families, in both directions, in float32 to 1e-4."""

import json

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from groundup.model import BaseLLM, ModelConfig, initialize, load_model, save_model

SHAPE = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
CASES = {
    "llama": {"model_type": "llama"},
    "llama-tied-biased": {
        "model_type": "llama",
        "attention_bias": True,
        "mlp_bias": True,
        "tie_word_embeddings": True,
    },
    "llama-wide-heads": {"model_type": "llama", "head_dim": 16},
    "llama-linear": {
        "model_type": "llama",
        "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0},
    },
    "llama-dynamic": {
        "model_type": "llama",
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
    },
    "llama-llama3": {"model_type": "llama", "rope_parameters": LLAMA3},
    "qwen2": {"model_type": "qwen2"},
    "qwen2-yarn": {"model_type": "qwen2", "rope_parameters": YARN},
    "qwen2-yarn-mscale": {
        "model_type": "qwen2",
        "rope_parameters": YARN | {"mscale": 0.7, "mscale_all_dim": 0.4, "beta_fast": 8, "truncate": False},
    },
    "qwen2-window": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 7,
        "max_window_layers": 1,
    },
    "qwen3": {"model_type": "qwen3", "head_dim": 16, "tie_word_embeddings": True},
    "qwen3-biased-window": {
        "model_type": "qwen3",
        "head_dim": 8,
        "attention_bias": True,
        "use_sliding_window": True,
        "sliding_window": 5,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "mistral": {"model_type": "mistral", "sliding_window": None},
    "mistral-window": {"model_type": "mistral", "sliding_window": 6},
}


class NoTokenizer:
    bos_token_id, eos_token_id, pad_token_id = 1, 2, 0

    def save_pretrained(self, folder):
        pass


@pytest.fixture(params=CASES)
def pair(request, tmp_path):
    """transformers' random model, saved by transformers, and ours, loaded from there."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(**(SHAPE | CASES[request.param]))
    theirs = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if (
                parameter.ndim == 1
            ):  # norms and biases start as ones and zeros, which would hide a missing one
                parameter.add_(torch.randn_like(parameter) * 0.3)
    theirs.save_pretrained(tmp_path / "theirs")
    return theirs, load_model(tmp_path / "theirs")


def token(count: int = 40) -> torch.Tensor:
    return torch.randint(3, 97, (count,), generator=torch.Generator().manual_seed(1))


def test_logits_equal(pair):
    theirs, ours = pair
    with torch.no_grad():
        expected = theirs(token()[None]).logits[0]
    assert expected.std() > 0.5
    torch.testing.assert_close(ours.logits(token()), expected, atol=1e-4, rtol=1e-4)


def test_decoding_token_by_token_equals_one_pass(pair):
    _, ours = pair
    decoding, steps = ours.decoding([token()[:1].tolist()], [1]), []
    for each in [*token()[1:], token()[0]]:
        steps.append(decoding.logits_BV)
        decoding.step(each[None])
    torch.testing.assert_close(torch.cat(steps), ours.logits(token()), atol=1e-4, rtol=1e-4)


def test_transformers_opens_what_we_save(pair, tmp_path):
    theirs, ours = pair
    save_model(ours, tmp_path / "ours", NoTokenizer())
    again, report = AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", output_loading_info=True, attn_implementation="eager"
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert type(again) is type(theirs)
    with torch.no_grad():
        torch.testing.assert_close(
            again(token()[None]).logits, theirs(token()[None]).logits, atol=1e-5, rtol=1e-5
        )
    for name in ("sliding_window", "layer_types", "rope_parameters", "tie_word_embeddings", "eos_token_id"):
        assert getattr(again.config, name, None) == getattr(theirs.config, name, None), name
    assert ModelConfig.from_folder(tmp_path / "ours") == ours.config


def test_older_configs_read_the_same(tmp_path):
    """transformers before 5 wrote `rope_theta` and `rope_scaling`, with `type` in the oldest."""
    plain = SHAPE | {"model_type": "llama", "rope_theta": 500.0}
    old = ModelConfig.from_hf(plain | {"rope_scaling": {"type": "linear", "factor": 4.0}})
    new = ModelConfig.from_hf(
        SHAPE
        | {
            "model_type": "llama",
            "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0},
        }
    )
    assert dict(old.rope_parameters) == dict(new.rope_parameters)
    theirs = transformers.LlamaConfig(**(plain | {"rope_scaling": {"type": "linear", "factor": 4.0}}))
    assert theirs.rope_parameters["factor"] == old.rope_parameters["factor"]
    assert theirs.rope_parameters["rope_theta"] == old.rope_parameters["rope_theta"]


def test_bfloat16_stays_near_transformers(tmp_path):
    torch.manual_seed(0)
    config = AutoConfig.for_model(**(SHAPE | {"model_type": "llama", "initializer_range": 0.1}))
    theirs = AutoModelForCausalLM.from_config(config).bfloat16().eval()
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path, "bfloat16")
    exact = load_model(tmp_path, "float32").logits(token())
    with torch.no_grad():
        their_error = (theirs(token()[None]).logits[0].float() - exact).abs().max()
    assert (ours.logits(token()) - exact).abs().max() < 1.5 * their_error
    save_model(ours, tmp_path / "saved", NoTokenizer())
    assert json.loads((tmp_path / "saved/config.json").read_text())["dtype"] == "bfloat16"
    assert torch.equal(load_model(tmp_path / "saved", "bfloat16").logits(token()), ours.logits(token()))


def test_fresh_weights_are_drawn_as_transformers_draws_them():
    config = ModelConfig.from_hf(SHAPE | {"model_type": "qwen2", "initializer_range": 0.02})
    model = initialize(BaseLLM(config), seed=3)
    again = initialize(BaseLLM(config), seed=3)
    for (name, mine), other in zip(model.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(mine, other)
        if mine.ndim == 2:
            assert abs(mine.std() - 0.02) < 0.002, name
        else:
            assert (mine == (0 if name.endswith("bias") else 1)).all(), name
