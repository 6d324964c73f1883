"""The tokenizer stage: every setting has an effect, and the text that it learns from is bounded."""

import json

import pytest
from tokenizers import Tokenizer

from groundup.errors import UserError
from groundup.stages import tokenizer as stage
from groundup.stages.inputs import check_inputs, references
from groundup.tokenizer import load_tokenizer

DOCUMENTS = [f"Line {i} of a text about words, {i * 7} of them; 你好 {i}." for i in range(200)]


@pytest.fixture
def run(context, tmp_path):
    def made(**settings):
        stages = {"clean": {"data": "x"}, "tokenizer": {"from": "clean", "vocab_size": 400, **settings}}
        given = context(stages, "tokenizer")
        folder = given.run.stage("clean").data
        folder.mkdir(parents=True, exist_ok=True)
        for part, documents in (("train", DOCUMENTS), ("heldout", DOCUMENTS[:20])):
            lines = [json.dumps({"text": text}) + "\n" for text in documents]
            (folder / f"{part}.jsonl").write_text("".join(lines))
        return given, stage.run(given)

    return made


def test_what_it_makes(run):
    context, result = run()
    tokenizer = load_tokenizer(context.stage.final)
    assert len(tokenizer) == result["vocab_size"] <= 400
    assert result["fertility"]["tokenizer"]["bytes_per_token"] == result["bytes_per_token"] > 1
    assert tokenizer.chat_template is None


@pytest.mark.parametrize("algorithm", ["unigram", "sentencepiece_bpe"])
def test_algorithm(run, algorithm):
    context, result = run(algorithm=algorithm)
    assert result["algorithm"] == algorithm
    kind = json.loads(Tokenizer.from_file(str(context.stage.final / "tokenizer.json")).to_str())["model"]
    assert kind["byte_fallback"] and kind["type"] == {"unigram": "Unigram"}.get(algorithm, "BPE")
    assert (context.stage.final / "tokenizer.model").is_file()


def test_template_and_special_tokens(run):
    context, _ = run(chat_template="chatml", special_tokens=["<call>"])
    tokenizer = load_tokenizer(context.stage.final)
    assert "<|im_end|>" in tokenizer.chat_template
    assert {"<|im_start|>", "<|im_end|>", "<call>"} <= set(tokenizer.all_special_tokens)


def test_learns_from_a_sample(run, capsys):
    context, result = run(sample_bytes=5_000)
    path = context.run.stage("clean").data / "train.jsonl"
    assert result["sampled_share"] == pytest.approx(5_000 / path.stat().st_size)
    chosen = list(stage.sample(path, 5_000))
    assert 2_000 < sum(len(json.dumps(text)) for text in chosen) < 8_000
    assert chosen == [text for text in DOCUMENTS if text in set(chosen)]
    assert list(stage.sample(path, 10**9)) == DOCUMENTS
    assert f"from {result['sampled_share']:.1%} of the documents" in capsys.readouterr().out


def test_beside_another(run, tokenizer, tmp_path, capsys):
    tokenizer.save_pretrained(tmp_path / "other")
    context, result = run(compare_with=[str(tmp_path / "other")])
    assert list(result["fertility"]) == ["tokenizer", "other"]
    assert result["fertility"]["other"] != result["fertility"]["tokenizer"]
    assert "other: " in capsys.readouterr().out
    assert references(context.settings) == ["clean", str(tmp_path / "other")]


@pytest.mark.parametrize("settings", [{"compare_with": ["./nowhere"]}, {"chat_template": "nowhere.jinja"}])
def test_what_is_not_there_is_told_before_anything_is_made(context, write, settings):
    stages = {
        "clean": {"data": write("texts.jsonl", [{"text": "some text"}])},
        "tokenizer": {"from": "clean", **settings},
    }
    with pytest.raises(UserError, match=r"nowhere|cannot be read"):
        check_inputs(context(stages, "tokenizer").recipe, ["tokenizer"])
