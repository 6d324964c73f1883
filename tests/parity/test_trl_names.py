"""Every setting of TRL's trainers is one here, or is answered with what to write."""

import dataclasses

import pytest
from transformers import TrainingArguments
from trl import DPOConfig, GRPOConfig, KTOConfig, RewardConfig, RLOOConfig, SFTConfig

from groundup.config import foreign, words
from groundup.config.schema import STAGE_KINDS

SHARED = {field.name for field in dataclasses.fields(TrainingArguments)}


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        *(("sft", SFTConfig), ("reward", RewardConfig), ("dpo", DPOConfig), ("dpo", KTOConfig)),
        *(("grpo", GRPOConfig), ("grpo", RLOOConfig)),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_each_is_known(kind, config):
    ours = words.fields(STAGE_KINDS[kind]).keys()
    own = [field.name for field in dataclasses.fields(config) if field.name not in SHARED]
    assert len(own) > 5
    assert [name for name in own if name not in ours and not foreign.advice(name, kind)] == []
