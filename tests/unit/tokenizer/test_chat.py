"""Which tokens the loss sees, under templates that differ in everything that templates differ in."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundup.config.schema import ChatSettings
from groundup.data import Message, Origin, Pair
from groundup.errors import UserError
from groundup.tokenizer.chat import BadConversation, _score, render, render_pair, render_prompt, stop_tokens
from groundup.tokenizer.spans import Span, answer_span, answer_spans
from groundup.tokenizer.template import Template

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
    + CHATML
)
# Drops earlier reasoning, writes an empty one into the last turn; the prompt opens it when thinking is off
THINKING = (
    "{% for m in messages %}{% set said = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' and loop.last %}"
    "{% set mind = m.content.split('</think>')[0].replace('<think>', '').strip() if '</think>' in m.content else '' %}"
    "{{ '<think>\n' + mind + '\n</think>\n\n' }}{% endif %}"
    "{{ said + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if thinking is defined and not thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
ALWAYS_PROMPTS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n\n' + m.content | trim + '<|im_end|>' }}{% endfor %}"
    "{{ '<|im_start|>assistant\n\n' }}"
)
NEVER_PROMPTS = CHATML.split("{% if add")[0]
SPACED = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"
)
TWO_ENDS = CHATML.replace("'<|im_end|>\n'", "'<|reply|><|end|><|eos|>\n'")
TEMPLATES = [CHATML, DEFAULT_SYSTEM, THINKING, ALWAYS_PROMPTS, NEVER_PROMPTS, SPACED, TWO_ENDS]
CHAT = ChatSettings()


def talk(*contents: str) -> list[Message]:
    return [Message(("user", "assistant")[i % 2], content) for i, content in enumerate(contents)]


def scored(tokenizer, template: str, messages: list[Message], chat: ChatSettings = CHAT, **options) -> str:
    tokenizer.chat_template = template
    rendered = render(tokenizer, messages, chat, **options)
    assert rendered.token.dtype == "int32" and rendered.scored.dtype == bool
    assert rendered.scored[-1], "what stands after the last scored token is left out"
    assert tokenizer.decode(rendered.token) == rendered.text
    runs, before = [], False
    for token, seen in zip(rendered.token, rendered.scored):
        if seen:
            runs += [] if before else [[]]
            runs[-1].append(token)
        before = seen
    return "|".join(tokenizer.decode(run) for run in runs)


FOUR = talk("Hello", "Hello", "Hello", "Hello")
THOUGHTS = talk("q", "<think>\nold\n</think>\n\na", "q", "<think>\nnew\n</think>\n\n<b>a</b>")


@pytest.mark.parametrize(
    ("template", "messages", "expected"),
    [
        (CHATML, FOUR, "Hello<|im_end|>|Hello<|im_end|>"),
        (CHATML, talk("q", "assistant\nuser\n"), "assistant\nuser\n<|im_end|>"),
        (CHATML, talk("q", " a "), " a <|im_end|>"),
        (CHATML, talk("q", "你好 naïve 🙂"), "你好 naïve 🙂<|im_end|>"),
        (DEFAULT_SYSTEM, FOUR, "Hello<|im_end|>|Hello<|im_end|>"),
        (THINKING, FOUR, "Hello<|im_end|>|<think>\n\n</think>\n\nHello<|im_end|>"),
        (THINKING, THOUGHTS, "a<|im_end|>|<think>\nnew\n</think>\n\n<b>a</b><|im_end|>"),
        (ALWAYS_PROMPTS, talk("q", " a \n", "q", "a"), "a<|im_end|>|a<|im_end|>"),
        (NEVER_PROMPTS, FOUR, "Hello<|im_end|>|Hello<|im_end|>"),
        (SPACED, FOUR, " Hello <|eos|>| Hello <|eos|>"),
        (TWO_ENDS, talk("q", "a"), "a<|reply|><|end|><|eos|>"),
        (
            CHATML,
            [Message("assistant", "Welcome"), *FOUR],
            "Welcome<|im_end|>|Hello<|im_end|>|Hello<|im_end|>",
        ),
    ],
)
def test_the_assistant_is_scored_to_the_end_of_its_turns(tokenizer, template, messages, expected):
    assert scored(tokenizer, template, messages) == expected


def test_what_the_generation_prompt_writes_is_not_scored(tokenizer):
    off = ChatSettings(chat_template_kwargs={"thinking": False})
    messages = talk("q", "<b>", "q", "<b>")  # begins like <think>
    assert scored(tokenizer, THINKING, messages, off) == "<b><|im_end|>|<b><|im_end|>"
    prompt = render_prompt(tokenizer, messages[:-1], off)
    assert prompt.text.endswith("assistant\n<think>\n\n</think>\n\n")
    assert not prompt.scored.any()


def test_only_the_last_turn_or_only_what_follows_a_prompt(tokenizer):
    messages = talk("q", "one", "q", "two", "q", "three")
    assert scored(tokenizer, CHATML, messages, loss_on="last") == "three<|im_end|>"
    assert scored(tokenizer, CHATML, messages, scored_from=3) == "two<|im_end|>|three<|im_end|>"


def test_both_sides_of_a_pair(tokenizer):
    tokenizer.chat_template = CHATML
    chat = ChatSettings(system_prompt="Be brief.")
    prompt = tuple(talk("q", "one", "q"))
    pair = Pair(prompt, (Message("assistant", "two"),), tuple(talk("q", "no", "q", "yes")[1:]), Origin("", 1))
    chosen, rejected = render_pair(tokenizer, pair, chat)
    turns = ["system\nBe brief.", "user\nq", "assistant\none"]
    common = "".join(f"<|im_start|>{turn}<|im_end|>\n" for turn in turns)
    assert chosen.text.startswith(common) and rejected.text.startswith(common)
    assert tokenizer.decode(chosen.token[chosen.scored]) == "two<|im_end|>"
    assert tokenizer.decode(rejected.token[rejected.scored]) == "no<|im_end|>yes<|im_end|>"


def test_the_system_prompt_of_the_settings_never_replaces_another(tokenizer):
    tokenizer.chat_template = DEFAULT_SYSTEM
    chat = ChatSettings(system_prompt="Be brief.")
    assert "Be brief." in render(tokenizer, FOUR, chat).text
    own = [Message("system", "Be long."), *FOUR]
    assert render(tokenizer, own, chat).text == render(tokenizer, own, CHAT).text
    assert "Be kind." in render(tokenizer, FOUR, CHAT).text


def test_a_template_file_overrules_the_models_own(tokenizer, tmp_path):
    path = tmp_path / "chat.jinja"
    path.write_text(ALWAYS_PROMPTS)
    tokenizer.chat_template = CHATML
    assert "user\n\nHello" in render(tokenizer, FOUR, ChatSettings(chat_template=str(path))).text


def test_a_token_that_reaches_into_the_prompt_is_not_scored(tokenizer):
    assert "\n\n" in tokenizer.decode([tokenizer.encode("a\n\nb", add_special_tokens=False)[1]])
    assert scored(tokenizer, CHATML, talk("q", "\nHello")) == "Hello<|im_end|>"


def test_tokens_are_those_of_the_whole_text(tokenizer):
    tokenizer.chat_template = CHATML
    whole = tokenizer.apply_chat_template([m.as_dict() for m in FOUR], return_dict=False)
    token = render(tokenizer, FOUR, CHAT).token.tolist()
    assert token == whole[: len(token)]
    prompt = tokenizer.apply_chat_template(
        [m.as_dict() for m in FOUR[:3]], add_generation_prompt=True, return_dict=False
    )
    assert render_prompt(tokenizer, FOUR[:3], CHAT).token.tolist() == prompt


WORDS = st.lists(
    st.sampled_from(["user", "assistant", "\n", " ", "im_end", "|>", "<", "a", "é", "你", "GroundupMark0X"]),
    min_size=1,
    max_size=6,
).map("".join)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(TEMPLATES), st.lists(WORDS | st.just("a </think> b"), min_size=4, max_size=8))
def test_answers_marked_together_are_where_each_one_is_alone(tokenizer, template, contents):
    tokenizer.chat_template = template
    filled = Template.of(tokenizer, CHAT)
    rows = filled.messages(talk(*contents[: len(contents) // 2 * 2]))
    answers = list(range(1, len(rows), 2))
    try:
        text = filled.fill(rows)
        alone = [answer_span(filled, rows, index, text) for index in answers]
    except UserError as error:
        with pytest.raises(type(error), match=re.escape(error.what)):
            answer_spans(filled, rows, answers, text)
    else:
        assert answer_spans(filled, rows, answers, text) == alone


def test_many_answers_take_few_renderings(tokenizer, monkeypatch):
    tokenizer.chat_template = CHATML
    filled, calls = Template.of(tokenizer, CHAT), []
    rows = filled.messages(talk(*(f"turn {i}" for i in range(40))))
    text, fill = filled.fill(rows), Template.fill
    monkeypatch.setattr(Template, "fill", lambda *given, **more: calls.append(1) or fill(*given, **more))
    assert len(answer_spans(filled, rows, range(1, 40, 2), text)) == 20
    assert len(calls) == 21, "one for all of them, and the prompt of each"


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(WORDS.filter(lambda text: text == text.strip()), min_size=2, max_size=6))
def test_no_content_fools_it(tokenizer, contents):
    messages = talk(*contents[: len(contents) // 2 * 2])
    expected = "|".join(m.content + "<|im_end|>" for m in messages[1::2])
    assert scored(tokenizer, CHATML, messages) == expected


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (FOUR[:3], "last message"),
        ([], "last message"),
        (talk("what is <|im_end|>?", "a"), "special token inside content"),
        (talk("q", "a<|eos|>"), "special token inside content"),
        ([FOUR[0], Message("assistant", "a", reasoning_content="hm")], "reasoning_content"),
        ([FOUR[0], Message("assistant", "", tool_calls=({"function": {"name": "f"}},))], "tool calls"),
    ],
)
def test_conversations_that_cannot_be_used(tokenizer, messages, reason):
    tokenizer.chat_template = CHATML
    with pytest.raises(BadConversation, match=reason) as caught:
        render(tokenizer, messages, CHAT)
    assert "\n" not in str(caught.value), "it is a reason in a table"


def test_tools_that_the_template_leaves_out(tokenizer):
    tokenizer.chat_template = CHATML
    with pytest.raises(BadConversation, match="does not write tools"):
        render(tokenizer, FOUR, CHAT, tools=[{"type": "function", "function": {"name": "f"}}])


def test_a_template_that_refuses_says_why(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(BadConversation, match="roles must alternate"):
        render(tokenizer, FOUR, CHAT)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (None, "no chat template"),
        (CHATML.replace("'<|im_end|>\n'", "'\n'"), "end-of-turn"),
        (CHATML.replace("m.content +", "m.content + m.content +"), "2 times"),
        (CHATML.replace("m.content", "'hm'"), "not at all"),
        (
            CHATML.replace("'<|im_end|>\n'", "'<|im_end|>\n' + (m.content | length | string)"),
            "depends on the answer",
        ),
        ("{% for m in messages %}", "not valid Jinja"),
    ],
)
def test_templates_that_cannot_be_used(tokenizer, template, why):
    tokenizer.chat_template = template
    with pytest.raises(UserError, match=why) as caught:
        render(tokenizer, talk("q", "a"), CHAT)
    assert not isinstance(caught.value, BadConversation)


def test_a_missing_template_file(tokenizer, tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        render(tokenizer, FOUR, ChatSettings(chat_template=str(tmp_path / "none.jinja")))


def test_stop_tokens(tokenizer):
    ids = tokenizer.convert_tokens_to_ids
    assert stop_tokens(tokenizer, CHAT) == (ids("<|eos|>"),)
    tokenizer.chat_template = CHATML
    assert stop_tokens(tokenizer, CHAT) == (ids("<|eos|>"), ids("<|im_end|>"))
    tokenizer.chat_template = TWO_ENDS
    assert stop_tokens(tokenizer, CHAT) == (ids("<|eos|>"),)


def test_an_answer_that_begins_the_text_is_learned_from_its_second_token(tokenizer):
    """A template without headers, and a conversation that begins with its answer: no token predicts the first."""
    tokenizer.chat_template = "{% for m in messages %}{{ m.content + '<|im_end|>' }}{% endfor %}"
    for messages in ([Message("assistant", "hello")], [Message("assistant", "hello"), *talk("more", "yes")]):
        rendered = render(tokenizer, messages, CHAT)
        assert tokenizer.decode(rendered.token) == rendered.text and rendered.text.startswith("hello")
        assert not rendered.scored[0] and rendered.scored[1]


def test_a_conversation_of_which_the_loss_sees_nothing_is_refused():
    def whole(text, **_):  # a tokenizer that makes one token of all
        return {"input_ids": [7], "offset_mapping": [(0, len(text))]}

    with pytest.raises(BadConversation, match="sees no token"):
        _score(whole, "question answer", [Span(9, 15, 15)])
