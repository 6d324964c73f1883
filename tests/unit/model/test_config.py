"""What a config may say, and what is refused."""

import pytest

from groundup.errors import UserError
from groundup.model import ModelConfig

RAW = {
    "model_type": "llama",
    "vocab_size": 31,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def test_missing_keys_mean_what_transformers_takes_them_for():
    config = ModelConfig.from_hf(RAW)
    assert (config.num_key_value_heads, config.head_dim, config.max_position_embeddings) == (4, 4, 2048)
    assert config.rope_parameters == {"rope_type": "default", "rope_theta": 10000.0}
    assert not config.tie_word_embeddings and config.window_L == (None, None)
    assert ModelConfig.from_hf(RAW | {"model_type": "mistral", "num_attention_heads": 8}).window_L == (
        4096,
        4096,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2"}, "llama, mistral, qwen2, qwen3"),
        ({"vocab_size": None}, "lacks vocab_size"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"quantization_config": {"bits": 4}}, "quantized"),
        ({"num_key_value_heads": 3}, "not a multiple"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "longrope"),
        ({"rope_scaling": {"rope_type": "linear"}}, "lack factor"),
        (
            {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
            "partial_rotary_factor",
        ),
        (
            {"model_type": "qwen2", "num_key_value_heads": 2, "use_sliding_window": True, "layer_types": []},
            "layer_types",
        ),
    ],
)
def test_what_cannot_be_exact_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        ModelConfig.from_hf(RAW | change)


def test_a_folder_without_config(tmp_path):
    with pytest.raises(UserError, match="not a model folder"):
        ModelConfig.from_folder(tmp_path)
