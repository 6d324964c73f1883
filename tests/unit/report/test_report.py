"""The page and the Markdown hold what the run's files say, in order, and fetch nothing."""

import re
from html.parser import HTMLParser

import pytest

from groundup.report import write_report
from groundup.report.headline import summary, tiles
from groundup.report.reading import StageRecord, read_run
from groundup.report.view import build_view
from groundup.store import Run, files


class Page(HTMLParser):
    """Collects what a page shows and what it would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.shown = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "srcset", "data", "action") and not value.startswith(
                ("#", "data:")
            ):
                self.fetched.append(value)

    def handle_data(self, data):
        self.shown += data


@pytest.fixture(scope="module")
def page(whole_run) -> Page:
    return Page(whole_run.report_html.read_text(encoding="utf-8"))


def test_the_page_fetches_nothing_and_runs_nothing(page, whole_run):
    text = whole_run.report_html.read_text(encoding="utf-8")
    assert page.fetched == []
    assert "script" not in page.tags and "iframe" not in page.tags
    assert not re.search(r"url\((?!#)|@import", text)


def test_the_page_shows_headline_models_answers_then_stages(page):
    places = [
        page.shown.index(words)
        for words in (
            "needs 1.321 bits a byte on text that it never saw (gzip 2.612, xz 2.334)",
            "loss fell from 3.121 to 1.301 and preference accuracy rose from 41.0% to 97.0%",
            "Models compared",
            "Answers side by side",
            "7,068 documents (4.9 MB) to train on",
            "one stands for 3.71 bytes",
            "Pretraining",
            "Supervised fine-tuning",
            "Preference optimisation",
            "at most 3.4e-06",
            "How to go on",
        )
    ]
    assert places == sorted(places)


def test_ids_are_unique_although_many_plots_stand_in_one_page(page):
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("svg") == 5 + 4 + 8


def test_what_people_wrote_is_shown_and_never_interpreted(page, whole_run):
    assert "<script>alert('x')</script>" in page.shown
    assert "你好，世界。" in page.shown and "مرحبا بالعالم" in page.shown
    markdown = whole_run.report_md.read_text(encoding="utf-8")
    assert "\n````text\n<script>" in markdown  # a fence longer than the one in the text


def test_every_row_is_accounted_for(page):
    for words in (
        "9,214 rows came in",
        "1,203: shorter than 50 characters",
        "577 copies",
        "2: the assistant's answer is empty",
    ):
        assert words in page.shown
    assert "do not add up" not in page.shown


def test_the_markdown_shows_every_plot_that_was_drawn(whole_run):
    linked = re.findall(r"\]\((report_files/[^)]+\.svg)\)", whole_run.report_md.read_text(encoding="utf-8"))
    assert len(linked) == 17
    assert {whole_run.root / name for name in linked} == set(whole_run.report_files.iterdir())


def test_a_run_with_one_finished_stage_has_a_report(short_run):
    page = Page(write_report(short_run).read_text(encoding="utf-8"))
    assert "loss fell from 3.120 to 1.255" in page.shown
    assert "Not finished yet: clean, tokenizer, shards, pretrain, dpo, merge, eval." in page.shown
    assert "Models compared" not in page.shown and "Answers side by side" not in page.shown
    assert "The stage's folder holds it in plan.json." in page.shown
    assert "groundup chat" in page.shown and "Go on where it stopped" in page.shown


def test_a_run_with_nothing_finished_and_one_without_a_recipe(tmp_path):
    run = Run.open(tmp_path / "run")
    assert "Nothing has run yet." in write_report(run).read_text(encoding="utf-8")
    stage = run.stage("merge")
    stage.started("f")
    stage.finish("f", {"kind": "merge", "max_logit_difference": 0.0})
    assert "folded into the base model" in write_report(run).read_text(encoding="utf-8")


def test_a_stage_of_an_unknown_kind_is_shown_with_its_curves(tmp_path):
    run = Run.open(tmp_path / "run")
    stage = run.stage("ppo")
    stage.started("f")
    for step in (1, 2):
        files.append_jsonl(stage.metrics, {"step": step, "kl": 0.1 * step})
    stage.finish("f", {"kind": "ppo", "before": {"eval_kl": 0.0}, "after": {"eval_kl": 0.2}})
    view = build_view(read_run(run))
    assert [plot.key for plot in view.sections[0].plots] == ["kl"]
    assert "ppo" in write_report(run).read_text(encoding="utf-8")


def test_a_reward_model_is_named_to_train_for(tmp_path):
    run = Run.open(tmp_path / "run")
    stage = run.stage("judge")
    stage.started("f")
    stage.finish("f", {"kind": "reward", "before": {"eval_accuracy": 0.5}, "after": {"eval_accuracy": 0.6}})
    lines = [line for _, line in build_view(read_run(run)).commands]
    assert [line for line in lines if f"{{function: model, model: {tmp_path / 'run'}/judge}}" in line]
    assert not any("groundup chat" in line for line in lines), "it writes no answers"


def test_writing_again_gives_the_same_bytes(short_run):
    first = write_report(short_run).read_bytes()
    assert write_report(short_run).read_bytes() == first


def test_rows_that_do_not_add_up_are_said(short_run):
    result = short_run.stage("sft").read_result()
    result["rows"]["kept"] = 1
    files.write_json(short_run.stage("sft").result, result)
    assert "do not add up" in write_report(short_run).read_text(encoding="utf-8")
    assert "do not add up" in short_run.report_md.read_text(encoding="utf-8")


def test_a_policys_reward_stands_beside_the_evaluation(whole_run):
    record = read_run(whole_run)
    result = {"before": {"eval_reward": 0.45}, "after": {"eval_reward": 0.875}}
    record.stages.append(StageRecord("rl", "grpo", {}, True, result, []))
    assert "preference accuracy rose from 41.0% to 97.0% and reward rose from 0.450 to 0.875." in summary(
        record
    )
    tile = next(tile for tile in tiles(record) if tile.note == "before → after rl")
    assert (tile.label, tile.before, tile.value) == ("Reward, held out", "0.450", "0.875")


def test_what_got_worse_is_said_to_be_worse(short_run):
    result = short_run.stage("sft").read_result()
    result["after"]["eval_loss"] = 4.0
    files.write_json(short_run.stage("sft").result, result)
    view = build_view(read_run(short_run))
    assert "loss rose from 3.120 to 4" in view.summary
    assert view.sections[0].table.rows[0].cells[2].verdict == "worse"


def test_the_models_that_answer_alike_share_an_answer(whole_run):
    answers = build_view(read_run(whole_run)).generations[0].answers
    assert [answer.who for answer in answers] == ["reference", "base", "sft", "dpo, merge"]


def record(metrics: list[dict]) -> StageRecord:
    return StageRecord("dpo", "dpo", {}, True, {"before": metrics[0]}, metrics)


def test_a_series_keeps_the_last_of_a_repeated_step_and_leaves_out_what_is_not_finite():
    stage = record(
        [
            {"step": 2, "loss": 9.0},
            {"step": 1, "loss": 3},
            {"step": 2, "loss": 2.0},
            {"step": 3, "loss": None},
        ]
    )
    assert stage.series("loss") == [(1, 3.0), (2, 2.0)]


def test_a_tie_is_not_an_accuracy_of_zero():
    tied = {"step": 0, "eval_rewards/margins": 0.0, "eval_rewards/accuracies": 0.0}
    stage = record([tied, {"step": 1, "eval_rewards/margins": 1.0, "eval_rewards/accuracies": 0.9}])
    assert stage.series("eval_rewards/accuracies") == [(1, 0.9)]
    assert "rewards/accuracies" not in stage.held_out("before")


def test_a_mixture_says_what_it_took_of_each_source(tmp_path):
    run = Run.open(tmp_path / "run")
    stage = run.stage("clean")
    stage.started("f")
    sizes = {"available_bytes": 40_000_000, "bytes": 12_000_000, "share": 0.75, "times": 0.3, "weight": 3.0}
    other = {"available_bytes": 4_000_000, "bytes": 4_000_000, "share": 0.25, "times": 1.0, "weight": 1.0}
    parts = {"train": 1000, "heldout": 50}
    mixed = {"books": sizes | {"left_out": 2345}, "web/*.jsonl": other | {"left_out": 0}}
    stage.finish("f", {"kind": "clean", "documents": parts, "bytes": parts, "mix": mixed})
    html = Page(write_report(run).read_text(encoding="utf-8")).shown
    for shown in (html, run.report_md.read_text(encoding="utf-8")):
        assert "75.0% of the mixture: 12.0 MB of 40.0 MB, 0.30 times, 2,345 documents left out" in shown
        assert "25.0% of the mixture: 4.0 MB of 4.0 MB, 1.00 times" in shown
        assert "books" in shown and "web/*.jsonl" in shown
