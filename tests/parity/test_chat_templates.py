"""Real chat templates: our tokens against transformers', our choice of scored tokens against TRL's."""

import re

import pytest
from trl import chat_template_utils

from groundup.config.schema import ChatSettings, DataSettings
from groundup.data import Ledger, Message, read_conversations, read_pairs
from groundup.tokenizer import load_tokenizer, train_bpe
from groundup.tokenizer.chat import BadConversation, render, render_pair, render_prompt

CHAT = ChatSettings()
Q, A, B = Message("user", "Hi"), Message("assistant", "Hi"), Message("assistant", "Bye 12")
THOUGHTS = [
    Q,
    Message("assistant", "<think>\nold\n</think>\n\nHi"),
    Q,
    Message("assistant", "<think>\nnew\n</think>\n\nBye"),
]
CALLS = [
    Q,
    Message("assistant", "", None, ({"type": "function", "function": {"name": "f", "arguments": {"x": 1}}},)),
    Message("tool", "2"),
    B,
]


def runs(tokenizer, rendered):
    """The scored stretches as text."""
    found, before = [], False
    for token, seen in zip(rendered.token, rendered.scored):
        if seen:
            found += [] if before else [[]]
            found[-1].append(token)
        before = seen
    return [tokenizer.decode(run) for run in found]


@pytest.fixture(scope="module", params=["qwen3", "llama3", "minimind6400"])
def real(request, groundup_data):
    return load_tokenizer(groundup_data / "tokenizer" / request.param)


@pytest.fixture(scope="module")
def qwen3(groundup_data):
    return load_tokenizer(groundup_data / "tokenizer" / "qwen3")


@pytest.mark.parametrize("messages", [[Q, A], [Q, A, Q, B], THOUGHTS, [Message("system", "S"), Q, B]])
def test_tokens_are_transformers_tokens(real, messages):
    rows = [message.as_dict() for message in messages]
    whole = real.apply_chat_template(rows, return_dict=False)
    rendered = render(real, messages, CHAT)
    assert rendered.token.tolist() == whole[: len(rendered.token)]
    prompt = real.apply_chat_template(rows[:-1], add_generation_prompt=True, return_dict=False)
    assert render_prompt(real, messages[:-1], CHAT).token.tolist() == prompt


@pytest.mark.parametrize(
    ("thinking", "messages", "expected"),
    [
        (None, [Q, A, Q, A], ["Hi<|im_end|>", "<think>\n\n</think>\n\nHi<|im_end|>"]),
        (True, [Q, A, Q, A], ["Hi<|im_end|>", "<think>\n\n</think>\n\nHi<|im_end|>"]),
        (False, [Q, A, Q, A], ["Hi<|im_end|>", "Hi<|im_end|>"]),
        (None, THOUGHTS, ["Hi<|im_end|>", "<think>\nnew\n</think>\n\nBye<|im_end|>"]),
        (
            None,
            CALLS,
            [
                '<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call><|im_end|>',
                "<think>\n\n</think>\n\nBye 12<|im_end|>",
            ],
        ),
    ],
)
def test_qwen3_scores_what_it_would_have_to_write(qwen3, thinking, messages, expected):
    chat = CHAT if thinking is None else ChatSettings(chat_template_kwargs={"enable_thinking": thinking})
    assert runs(qwen3, render(qwen3, messages, chat)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama3", ["Hi<|eot_id|>", "Bye 12<|eot_id|>"]),
        ("minimind6400", ["Hi<|im_end|>", "Bye 12<|im_end|>"]),
    ],
)
def test_other_families(groundup_data, name, expected):
    tokenizer = load_tokenizer(groundup_data / "tokenizer" / name)
    assert runs(tokenizer, render(tokenizer, [Q, A, Q, B], CHAT)) == expected


# TRL marks the assistant's part inside templates of its own. Its marks also cover line ends after the end of the turn,
# which no model has to write.
FAMILIES = [
    "llama3",
    "qwen3",
    "qwen3_instruct_2507",
    "gemma3",
    "lfm2",
    "cohere",
    "cohere2",
    "glm4moe",
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("messages", [[Q, A], [Message("system", "S"), Q, A, Q, B], THOUGHTS])
def test_scored_tokens_are_trls(family, messages, tmp_path):
    source = getattr(chat_template_utils, f"{family}_training_chat_template", None)
    if source is None:
        pytest.skip(f"this TRL has no template of its own for {family}")
    tokenizer = train_bpe(["user\nassistant\nsystem\nHi Bye 12 old new\n\n"], 400)
    special = re.findall(r"<\|[^<>{}'\"]+?\|>|<(?:start|end)_of_turn>", source)
    tokenizer.add_special_tokens({"additional_special_tokens": sorted(set(special))})
    tokenizer.eos_token = "<|END_OF_TURN_TOKEN|>" if family == "cohere2" else tokenizer.eos_token
    theirs = tokenizer.apply_chat_template(
        [message.as_dict() for message in messages],
        chat_template=source,
        return_assistant_tokens_mask=True,
        return_dict=True,
    )
    token, mark = theirs["input_ids"], theirs["assistant_masks"]
    ends = {i for i in range(1, len(token)) if mark[i - 1] and token[i - 1] in tokenizer.all_special_ids}
    expected = [
        (token[i], bool(mark[i]) and not (i in ends and tokenizer.decode([token[i]]) == "\n"))
        for i in range(len(token))
    ]
    while not expected[-1][1]:
        expected.pop()
    (tmp_path / "chat.jinja").write_text(source, encoding="utf-8")
    ours = render(tokenizer, messages, ChatSettings(chat_template=str(tmp_path / "chat.jinja")))
    assert list(zip(ours.token.tolist(), ours.scored.tolist())) == expected


SETS = {
    "sft/alpaca_en_sample": 2500,
    "sft/alpaca_chinese": 10015,
    "sft/gsm8k_train": 7473,
    "sft/fastchat_dummy": 500,
    "sft/llamafactory_demo/alpaca_zh_demo.json": 1000,
    "sft/llamafactory_demo/glaive_toolcall_en_demo.json": 300,
    "sft/llamafactory_demo/reason_tool_use_demo_50.jsonl": 50,
    "sft/llamafactory_demo/v1_sft_demo.jsonl": 500,
}


@pytest.mark.parametrize("name", SETS)
def test_real_conversations(groundup_data, qwen3, name):
    ledger = Ledger()
    conversations = read_conversations(DataSettings(path=[str(groundup_data / name)]), ledger)
    assert len(conversations) == ledger.kept == SETS[name]
    assert ledger.balanced
    for conversation in conversations[:: len(conversations) // 25]:
        try:
            rendered = render(qwen3, conversation.messages, CHAT, tools=conversation.tools)
        except BadConversation as error:
            pytest.fail(f"{conversation.origin}: {error}")
        said = [message.content.strip() for message in conversation.messages if message.role == "assistant"]
        assert all(answer in run for answer, run in zip(said, runs(qwen3, rendered), strict=True))


@pytest.mark.parametrize(
    ("name", "kept"),
    [("preference/hh_rlhf_test", 4656), ("preference/llamafactory_demo/dpo_zh_demo.json", 300)],
)
def test_real_pairs(groundup_data, qwen3, name, kept):
    ledger = Ledger()
    pairs = read_pairs(DataSettings(path=[str(groundup_data / name)]), ledger)
    assert len(pairs) == ledger.kept == kept
    assert ledger.balanced
    for pair in pairs[:: kept // 25]:
        for side, rendered in zip((pair.chosen, pair.rejected), render_pair(qwen3, pair, CHAT), strict=True):
            assert pair.prompt[-1].content in rendered.text
            said = [message.content.strip() for message in side if message.role == "assistant"]
            assert all(answer in run for answer, run in zip(said, runs(qwen3, rendered), strict=True))
