"""Each finding: a small file that has it, and one that has not."""

import json

import pytest

from groundup.config.schema import DataSettings
from groundup.data.types import Conversation, Message, Origin
from groundup.stages.inspect.command import examine
from groundup.stages.inspect.sample import Sample
from groundup.stages.inspect.screen import lines
from groundup.stages.inspect.tokens import TokenSurvey, context_tokens
from groundup.tokenizer import train_bpe

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKS = CHATML.replace("assistant\n{% endif", "assistant\n<think></think>{% endif")
REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + CHATML


@pytest.fixture(scope="module")
def save(tmp_path_factory):
    """A folder with a tokenizer and nothing else."""

    def made(template=CHATML, context=200, **special):
        tokenizer = train_bpe(
            ["user assistant system What is it? It is a stone, said the river. 0123"] * 9, 340
        )
        tokens = {"additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "eos_token": "<|im_end|>"}
        tokenizer.add_special_tokens(tokens | special)
        tokenizer.chat_template = template
        folder = tmp_path_factory.mktemp("tokenizer")
        tokenizer.save_pretrained(folder)
        if context:
            (folder / "config.json").write_text(json.dumps({"max_position_embeddings": context}))
        return folder

    return made


@pytest.fixture(scope="module")
def model(save):
    return save()


@pytest.fixture
def look(tmp_path):
    def looked(
        rows, model="", max_length=None, subset=0, shown=0, name="rows.jsonl", columns=None, layout=None
    ):
        text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / name).write_text(text)
        spec = DataSettings(path=[str(tmp_path / name)], columns=columns or {}, layout=layout)
        return examine(spec, str(model), max_length, subset, None, shown)

    return looked


def chat(number, answer=None):
    return {"prompt": f"What is {number}?", "completion": answer or f"It is stone number {number}."}


def pair(number, chosen=None, rejected=None):
    return {
        "prompt": f"What is {number}?",
        "chosen": chosen or f"A stone, number {number}.",
        "rejected": rejected or f"A cloud, number {number}.",
    }


def names(summary, level=None):
    return [f["name"] for f in summary["findings"] if level in (None, f["level"])]


def finding(summary, name):
    (found,) = [f for f in summary["findings"] if f["name"] == name]
    assert found["fix"]
    return found


CHATS = [chat(n) for n in range(20)]
PAIRS = [pair(n) for n in range(20)]


@pytest.mark.parametrize("rows", [CHATS, PAIRS])
def test_good_rows_have_no_findings(look, model, rows):
    summary = look(rows, model)
    assert summary["verdict"] == "usable" and not summary["findings"]
    assert summary["ledger"]["kept"] == 20


@pytest.mark.parametrize(
    ("rows", "name", "level", "count", "line"),
    [
        ([*CHATS, {"prompt": "Why?", "completion": ""}], "unusable_row", "error", 1, 21),
        ([*CHATS, CHATS[3]], "duplicate_row", "note", 1, 21),
        ([*CHATS, *CHATS], "duplicate_row", "warning", 20, 21),
        ([*CHATS, chat(3, "It is another one.")], "duplicate_prompt", "note", 1, 21),
        ([*CHATS, *(chat(n, "I do not know.") for n in range(30, 36))], "identical_answer", "warning", 6, 21),
        ([*CHATS, chat(30, "No.")], "short_answer", "note", 1, 21),
        ([*CHATS, chat(30, "It is long. " * 400)], "long_answer", "note", 1, 21),
        ([*CHATS, chat(30, "It is a cafÃ©tiÃ¨re.")], "mojibake", "warning", 1, 21),
        ([*CHATS, chat(30, "It is a caf\ufffd.")], "replacement_character", "warning", 1, 21),
        ([*PAIRS, pair(30, "Yes, it is.", "yes,  it is.")], "sides_nearly_equal", "warning", 1, 21),
        ([*PAIRS, pair(30, "Yes, it is.", "Yes, it is.")], "unusable_row", "error", 1, 21),
        ([{"text": "It is a stone. " * 9}, {"text": "Short."}], "short_document", "note", 1, 2),
    ],
)
def test_a_finding_and_where(look, rows, name, level, count, line):
    found = finding(look(rows), name)
    assert (found["level"], found["count"]) == (level, count)
    assert found["examples"][0].endswith(f"rows.jsonl:{line}")


def test_prompts_that_differ_in_a_pair(look):
    def turns(asked, answer):
        return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]

    rows = [
        {"chosen": turns(f"a{n}", f"Yes, it is {n}."), "rejected": turns(f"a{n}", f"No, it is {n}.")}
        for n in range(9)
    ]
    assert look(rows)["verdict"] == "usable"
    rows.append({"chosen": turns("x", "Yes, it is x."), "rejected": turns("y", "No, it is not.")})
    found = finding(look(rows), "unusable_row")
    assert "differ" in found["what"] and found["examples"][0].endswith(":10")


def test_one_bad_row_in_many_is_a_warning(look):
    rows = [*(chat(n) for n in range(150)), {"prompt": "Why?", "completion": ""}]
    summary = look(rows)
    assert summary["verdict"] == "usable with warnings"
    assert finding(summary, "unusable_row")["level"] == "warning"


def test_more_bad_rows_than_a_stage_allows(look):
    assert "too_many_unusable_rows" in names(look([*CHATS, {"prompt": "Why?", "completion": ""}]), "error")


def test_length_bias(look):
    longer = [pair(n, f"A stone, and it is large, number {n}.", f"No {n} at all.") for n in range(40)]
    summary = look(longer)
    assert "longer" in finding(summary, "length_bias")["what"]
    assert summary["pairs"]["longer_chosen"] == 40
    even = [
        p if n % 2 else p | {"chosen": p["rejected"], "rejected": p["chosen"]} for n, p in enumerate(longer)
    ]
    assert "length_bias" not in names(look(even))


@pytest.mark.parametrize("more", [{}, {"answer": "42"}])
def test_questions_alone_are_for_grpo_and_ppo(look, model, more):
    for summary in (
        look([{"prompt": f"What is {n}?"} | more for n in range(5)]),
        look([{"prompt": f"What is {n}?"} | more for n in range(5)], model),
    ):
        assert summary["kind"] == "prompts" and summary["verdict"] == "usable"
        assert names(summary) == ["no_answers"] and names(summary, "note") == ["no_answers"]
        found = finding(summary, "no_answers")
        assert "grpo and ppo" in found["what"] and "column completion" in found["fix"] and found["count"] == 5


def test_rows_longer_than_max_length(look, model):
    rows = [*CHATS, chat(30, "It is a stone, said the river, and so on. " * 3)]
    summary = look(rows, model, max_length=60)
    assert finding(summary, "too_long")["count"] == summary["length"]["over"]["rows"] == 1
    longest = summary["length"]["longest"]
    assert f"max_length: {longest} keeps all" in finding(summary, "too_long")["fix"]
    assert "too_long" not in names(look(rows, model, max_length=longest))
    assert sum(bucket["rows"] for bucket in summary["length"]["histogram"]) == 21


def test_what_the_model_reads_bounds_max_length(look, model):
    assert look(CHATS, model)["length"]["max_length"] == 200
    assert names(look(CHATS, model, max_length=400), "error") == ["beyond_context"]


def test_documents_longer_than_max_length_are_cut(look, model):
    rows = [{"text": f"{n} It is a stone, said the river. " * 9} for n in range(3)]
    summary = look(rows, model, max_length=50)
    assert finding(summary, "too_long")["level"] == "note"
    assert summary["length"]["over"]["what_happens"] == "cut into pieces"
    assert summary["loss"]["trained_tokens"] == summary["loss"]["tokens"] - 3


def test_no_chat_template(look, save):
    summary = look(CHATS, save(template=None))
    assert names(summary, "error") == ["chat_template"]
    assert summary["length"]["unit"] == "characters"
    documents = look([{"text": "It is a stone. " * 9}], save(template=None))
    assert documents["verdict"] == "usable"


def test_a_template_without_end_of_turn(look, save):
    summary = look(CHATS, save(CHATML.replace("<|im_end|>", "")))
    assert "end-of-turn" in finding(summary, "chat_template")["what"]


def test_a_template_that_writes_a_message_twice(look, save):
    twice = save(CHATML.replace("{{ message.content }}", "{{ message.content }} {{ message.content }}"))
    assert finding(look(CHATS, twice), "chat_template")["level"] == "error"


def test_a_template_that_refuses_a_row(look, save):
    rows = [*CHATS, {"messages": [{"role": r, "content": "It is."} for r in ("system", "user", "assistant")]}]
    found = finding(look(rows, save(REFUSES)), "unrendered_row")
    assert found["count"] == 1 and found["examples"][0].endswith(":21")
    assert "unrendered_row" not in names(look(rows, save()))


def test_special_tokens_in_the_text(look, model):
    found = finding(look([*CHATS, chat(30, "It is a <|im_end|> stone.")], model), "unrendered_row")
    assert "special token" in found["what"] and found["examples"][0].endswith(":21")
    texts = [{"text": "It is a stone. " * 5 + end} for end in ("", "<|im_end|>")]
    assert finding(look(texts, model), "special_token")["count"] == 1


def test_a_chat_that_asks_with_other_tokens(look, save):
    assert finding(look(CHATS, save(THINKS)), "chat_prompt_differs")["count"] == 20


def test_padding_that_is_end_of_text(look, save):
    assert "pad_is_eos" in names(look(CHATS, save(pad_token="<|im_end|>")), "note")


def test_little_loss(look, model):
    long = [
        chat(n) | {"prompt": f"{n} It is a stone, said the river. " * 12, "completion": "It is."}
        for n in range(3)
    ]
    assert "little_loss" in names(look(long, model, max_length=200))


def test_the_end_of_turn_is_learned_and_the_question_is_not(look, model):
    summary = look(CHATS, model, shown=1)
    assert summary["chat"]["end_of_turn_learned"] == 20 == summary["chat"]["same_as_tokenizer"]
    pieces = summary["rows"][0]["sides"][0]["pieces"]
    assert [piece["trained"] for piece in pieces] == [False, True]
    assert pieces[0]["text"].endswith("<|im_start|>assistant\n")
    assert pieces[1]["text"] == "It is stone number 0.<|im_end|>"


def a_conversation():
    messages = (Message("user", "What is it?"), Message("assistant", "It is a stone."))
    return Conversation(messages, Origin("rows.jsonl", 1))


def test_another_rendering_than_the_tokenizers_own_is_found(save, monkeypatch):
    from groundup.config.schema import ChatSettings
    from groundup.tokenizer import load_tokenizer

    tokens = TokenSurvey(load_tokenizer(save()), ChatSettings(), "conversations")
    tokens.add(a_conversation())
    assert not tokens.places.count
    theirs = tokens.tokenizer.apply_chat_template
    monkeypatch.setattr(
        tokens.tokenizer,
        "apply_chat_template",
        lambda rows, tokenize=True, **more: (
            [1, *out]
            if tokenize and (out := theirs(rows, tokenize=tokenize, **more))
            else theirs(rows, tokenize=tokenize, **more)
        ),
    )
    tokens.add(a_conversation())
    assert tokens.places.examples("template_differs") == ("rows.jsonl:1",)


def test_an_end_of_turn_that_is_not_learned_is_found(save):
    from groundup.config.schema import ChatSettings
    from groundup.tokenizer import load_tokenizer

    tokens = TokenSurvey(load_tokenizer(save()), ChatSettings(), "conversations")
    tokens.stop = {0}
    tokens.add(a_conversation())
    assert tokens.places.examples("end_of_turn_not_learned") == ("rows.jsonl:1",)


def test_columns_and_layout_reach_the_reader(look):
    rows = [{"question_text": f"What is {n}?", "reply": f"It is {n}, I think."} for n in range(3)]
    summary = look(rows, columns={"prompt": "question_text", "completion": "reply"})
    assert summary["recognised"][0]["layout"] == "prompt_completion"
    assert look(CHATS, layout="prompt_completion")["recognised"][0]["evidence"].startswith(
        "the recipe says so"
    )


def test_a_sample_is_stated_and_the_rest_is_still_counted(look, model):
    summary = look(CHATS, model, subset=5)
    assert summary["sampled"] and summary["length"]["rows"] == 5 and summary["ledger"]["in"] == 20
    said = "\n".join("".join(text for text, _ in line) for line in lines(summary, 79, False))
    assert "5 rows drawn" in " ".join(said.split())
    assert not look(CHATS, model, subset=0)["sampled"]


def test_the_sample_is_as_large_as_asked_and_fair():
    hits = [0] * 40
    for start in range(200):
        sample = Sample(10)
        sample._draw.seed(start)
        for item in range(40):
            sample.offer(item)
        assert len(sample.items) == 10 and sample.items == sorted(set(sample.items))
        for item in sample.items:
            hits[item] += 1
    assert min(hits) > 25 and max(hits) < 80  # 50 expected


def test_the_screen_fits_and_shows_what_the_loss_sees(look, model):
    rows = [*CHATS, CHATS[0], chat(30, "It is \x1b[31m red.")]
    screen = list(lines(look(rows, model, shown=22), 79, False))
    text = ["".join(piece for piece, _ in line) for line in screen]
    head = text[: text.index("Rows as the model reads them: [[what the loss sees]] and what it does not")]
    assert len(head) < 50 and max(map(len, "\n".join(head).splitlines())) <= 79
    assert "[[It is stone number 0.<|im_end|>]]" in "\n".join(text)
    assert "\x1b" not in "\n".join(text) and "␛[31m" in "\n".join(text)
    colored = list(lines(look(rows, model, shown=1), 79, True))
    assert ("It is stone number 0.<|im_end|>", "bold green") in [piece for line in colored for piece in line]


@pytest.mark.parametrize(
    ("config", "context"),
    [
        ({"max_position_embeddings": 77}, 77),
        ({"text_config": {"max_position_embeddings": 78}}, 78),
        ({"n_positions": 79}, 79),
    ],
)
def test_the_context_of_a_folder(tmp_path, config, context):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert context_tokens(tmp_path, None) == context
