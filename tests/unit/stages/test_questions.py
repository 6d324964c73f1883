"""Beginnings of texts as a policy's prompts."""

import pytest
from tokenizers import Tokenizer as Core
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from groundup.data.prompts import Task
from groundup.data.types import Message, Origin
from groundup.rollout.answers import Question, answer_text
from groundup.stages.questions import read_questions

TEXT = "question answer question answer la la la 0123456789"


@pytest.fixture
def asked(context, write, tokenizer):
    def read(rows, *settings):
        stage = {
            "from": "model",
            "data": write("texts.jsonl", rows),
            "rewards": [{"function": "length", "max_length": 5}],
            "prompt_tokens": 4,
            "holdout": 0.3,
        }
        found = read_questions(context({"ppo": stage}, "ppo", settings), tokenizer)
        return [*found.train, *found.heldout], found.ledger

    return read


def test_the_first_tokens_of_a_text_stand_without_a_template(asked, tokenizer):
    questions, _ = asked([{"text": f"{number} {TEXT}", "label": 1} for number in range(8)])
    whole = {
        question.task.text: tokenizer.encode(f"{question.task.text[0]} {TEXT}") for question in questions
    }
    assert len(whole) == 8
    for question in questions:
        assert list(question.token) == whole[question.task.text][:5], (
            "what stands before a text, and four tokens"
        )
        assert question.token[0] == tokenizer.bos_token_id
        assert tokenizer.decode(question.token[1:]) == question.task.text
        assert question.task.columns == {"label": 1}


def test_texts_that_begin_alike_are_one_prompt(asked):
    """Else one could be trained on and another one held out."""
    questions, ledger = asked([{"text": f"{n % 3} {TEXT} {n}"} for n in range(9)])
    assert len(questions) == 3 and ledger["deduplicated"] == 6


def test_no_character_is_cut_and_no_text_becomes_a_special_token(asked, tokenizer):
    questions, _ = asked(
        [{"text": "a€€"}, {"text": "b"}, {"text": "<|im_end|>" + TEXT}], "ppo.prompt_tokens=3"
    )
    by_text = {question.task.text: question.token for question in questions}
    assert by_text.keys() >= {"a", "b"}, "the euro sign has three bytes, so three tokens here"
    assert len(by_text["b"]) == 2
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert not any(end in token for token in by_text.values())


class Pieces:
    """As SentencePiece's decoders do: the first space of what is decoded is dropped."""

    def decode(self, token, skip_special_tokens=True, clean_up_tokenization_spaces=True):
        return "".join(token).removeprefix(" ")


@pytest.mark.parametrize(("continued", "text"), [(True, " film"), (False, "film")])
def test_an_answer_that_goes_on_keeps_its_space(continued, text):
    task = Task((Message("user", "A good"),), {}, False, Origin("made up", 1), continued)
    assert answer_text(Pieces(), Question((" A", " good"), task), [" film"]) == text


def test_an_answer_that_goes_on_loses_no_letter_where_a_decoder_tidies_spaces():
    words = {"it": 0, "'": 1, "s": 2, "good": 3, ".": 4}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Core(WordLevel(words, unk_token="it")), clean_up_tokenization_spaces=True
    )
    assert tokenizer.decode([0, 1, 2, 3, 4]) == "it's good."
    task = Task((Message("user", "it '"),), {}, False, Origin("made up", 1), continued=True)
    assert answer_text(tokenizer, Question((0, 1), task), [2, 3, 4]) == " s good ."
