"""The clean stage: every document in one place, the same bits whatever the number of processes, no leak to held-out."""

import pytest

from groundup.config import build_recipe
from groundup.errors import UserError
from groundup.stages import clean, inputs
from groundup.store.files import read_jsonl

TEXT = "Document number {0} tells of {0} rivers and of the {0} towns that lie by them, in its own words."


def numbered(count, start=0):
    return [{"text": TEXT.format(number)} for number in range(start, start + count)]


def run(context, **settings):
    made = context({"clean": {"kind": "clean", "holdout": 0.3, **settings}}, "clean")
    made.stage.root.mkdir(parents=True, exist_ok=True)
    return made.stage, clean.run(made)


def files(stage):
    return {name: (stage.data / name).read_bytes() for name in ("train.jsonl", "heldout.jsonl")}


def test_every_document_is_in_one_place(context, write):
    rows = [*numbered(40), *numbered(3), {"text": "short"}, {"text": 5}, {"text": "<html>" + TEXT.format(99)}]
    stage, result = run(context, data={"path": write("a.jsonl", rows), "max_bad_rows": 0.5}, pii=True)
    rows = result["rows"]
    assert (rows["in"], rows["kept"], rows["deduplicated"]) == (46, 41, 3)
    assert rows["filtered"] == {"shorter than 50 characters": 1}
    assert rows["notes"] == {"HTML pages turned into text": 1}
    assert sum(result["rows"]["quarantined"].values()) == 1
    assert result["documents"]["train"] + result["documents"]["heldout"] == 41
    assert result["bytes"]["train"] == sum(len(row["text"]) for row in read_jsonl(stage.data / "train.jsonl"))
    assert read_jsonl(stage.dropped) == [
        {"path": stage.dropped.parents[2].as_posix() + "/a.jsonl", "line": 44}
        | {"reason": "shorter than 50 characters", "text": "short"}
    ]
    assert result["dropped"] == [{"reason": "shorter than 50 characters", "text": "short"}]
    assert not list(stage.root.glob(".tmp-*"))


def test_same_bits_for_any_number_of_processes(context, write, monkeypatch):
    monkeypatch.setattr(clean, "BATCH_CHARS", 1000)
    rows = [*numbered(60), *numbered(20), {"text": "short"}]
    settings = {"data": write("a.jsonl", rows), "language": ["en"]}
    stage, one = run(context, **settings, workers=1)
    made = files(stage), stage.dropped.read_bytes()
    stage, two = run(context, **settings, workers=2)
    assert (files(stage), stage.dropped.read_bytes()) == made
    assert one == two


def test_near_duplicates_go_before_anything_is_held_out(context, write):
    words = [f"w{number * 7919 % 1000}" for number in range(300)]
    near = [" ".join(words[:280] + [f"end{number}"]) for number in range(30)]
    rows = [*numbered(30), *({"text": text} for text in near)]
    stage, result = run(context, data=write("a.jsonl", rows))
    assert result["rows"]["kept"] == 60
    stage, result = run(context, data=write("a.jsonl", rows), near_duplicates={"threshold": 0.8})
    kept = [
        row["text"]
        for row in read_jsonl(stage.data / "train.jsonl") + read_jsonl(stage.data / "heldout.jsonl")
    ]
    assert sum(text in near for text in kept) == 1
    assert result["rows"]["in"] == 60 == result["rows"]["kept"] + result["rows"]["deduplicated"]
    assert {line["reason"] for line in read_jsonl(stage.dropped)} == {"near duplicate"}
    assert len(read_jsonl(stage.clusters)) >= 1


def test_mixture(context, write):
    few, many = write("few.jsonl", numbered(20)), write("many.jsonl", numbered(200, 1000))
    mix = [{"path": few, "weight": 1}, {"path": many, "weight": 1}]
    _, result = run(context, mix=mix)
    assert result["mix"][few]["times"] == 1.0
    assert result["mix"][many]["share"] == pytest.approx(0.5, abs=0.03)
    left = result["rows"]["filtered"]["left out of the mix"]
    assert result["rows"]["in"] == 220 == result["rows"]["kept"] + left
    stage, result = run(context, mix=mix, mix_repeat=3)
    assert result["mix"][few]["times"] == 3.0
    train, heldout = (read_jsonl(stage.data / name) for name in ("train.jsonl", "heldout.jsonl"))
    assert len(heldout) == len({row["text"] for row in heldout})
    assert not {row["text"] for row in heldout} & {row["text"] for row in train}
    assert max(sum(row == other for other in train) for row in train) == 3


def test_subset_of_each_source(context, write):
    few, many = write("few.jsonl", numbered(20)), write("many.jsonl", numbered(200, 1000))
    _, result = run(context, mix=[{"path": few}, {"path": many, "subset": 20}])
    assert result["rows"]["in"] == 40


def test_nothing_left_says_what_took_it(context, write):
    with pytest.raises(UserError, match="too few") as error:
        run(context, data=write("a.jsonl", numbered(5)), filters=["gopher"])
    assert "5 gopher: fewer than 50 words" in error.value.why
    assert "dropped.jsonl" in error.value.fix


def test_decontamination_drops_what_is_evaluated(context, write):
    evaluation = write("eval.jsonl", [{"question": TEXT.format(3)}])
    stage, result = run(context, data=write("a.jsonl", numbered(40)), decontaminate=[evaluation])
    assert sum(count for reason, count in result["rows"]["filtered"].items() if "13 words" in reason) >= 1
    assert TEXT.format(3) not in [row["text"] for row in read_jsonl(stage.data / "train.jsonl")]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "either `data`, or `mix`"),
        ({"data": "a", "mix": [{"path": "b"}]}, "either `data`, or `mix`"),
        ({"data": "a", "mix_repeat": 2}, "mix_repeat does nothing"),
        ({"data": "a", "filters": ["gofer"]}, "gopher"),
        ({"mix": [{"path": "a", "weight": 0}]}, "above 0"),
    ],
)
def test_settings_that_cannot_be_meant(settings, problem):
    with pytest.raises(UserError) as error:
        build_recipe({"name": "t", "stages": {"clean": settings}}, ())
    assert problem in str(error.value)


def test_what_the_result_depends_on(context, write):
    data, other = write("a.jsonl", numbered(5)), write("b.jsonl", numbered(5, 10))

    def fingerprint(seed=0, **settings):
        made = context({"clean": {"kind": "clean", **settings}}, "clean", seed=seed)
        return inputs.stage_fingerprint(made)

    assert fingerprint(data=data) == fingerprint(data=data, workers=3) == fingerprint(data=data, seed=5)
    mixed = [{"path": data}, {"path": other}]
    assert fingerprint(mix=mixed) != fingerprint(mix=mixed, seed=5)
    different = [
        fingerprint(data=data),
        fingerprint(data=other),
        fingerprint(mix=mixed),
        fingerprint(mix=[{"path": data}, {"path": other, "weight": 2}]),
        fingerprint(data=data, decontaminate=[other]),
        fingerprint(data=data, pii=True),
        fingerprint(data=data, near_duplicates={"threshold": 0.7}),
    ]
    before = different[4]
    write("b.jsonl", numbered(6, 10))
    assert fingerprint(data=data, decontaminate=[other]) != before
    assert len(set(different)) == len(different)


def test_mistakes_are_found_before_anything_runs(write):
    data = write("a.jsonl", numbered(5))
    for settings, problem in (
        ({"language": ["xx"]}, "'xx'"),
        ({"decontaminate": ["./no-such.jsonl"]}, "no-such"),
    ):
        recipe = build_recipe({"name": "t", "stages": {"clean": {"data": data, **settings}}}, ())
        with pytest.raises(UserError, match=problem):
            inputs.check_inputs(recipe, ["clean"])


def test_a_source_of_which_nothing_is_left_is_named(context, write):
    few, many = write("few.jsonl", [{"text": "la"}] * 3), write("many.jsonl", numbered(200))
    with pytest.raises(UserError, match="Nothing is left of one source") as error:
        run(context, mix=[{"path": many}, {"path": few}])
    assert (
        error.value.where == few and "shorter than" in error.value.why and "dropped.jsonl" in error.value.fix
    )
