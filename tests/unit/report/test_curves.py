"""Curves are drawn for what was logged, once, in colors that the page can change."""

from groundup.report.curves import BLUE, ORANGE, draw_curves
from groundup.report.reading import StageRecord


def stage(metrics: list[dict]) -> StageRecord:
    return StageRecord("sft", "sft", {}, True, {}, metrics)


def test_only_what_has_two_points_is_a_curve():
    assert draw_curves(stage([{"step": 1, "loss": 2.0}])) == []
    plots = draw_curves(
        stage([{"step": n, "loss": 2.0 / n, "epoch": n, "eval_loss": 3.0 / n} for n in (1, 2)])
    )
    assert [plot.key for plot in plots] == ["loss"]
    assert plots[0].alt == "Loss: training from 2 to 1; held out from 3 to 1.500"


def test_a_plot_stands_alone_and_takes_the_pages_colors_inside_it():
    (plot,) = draw_curves(stage([{"step": n, "loss": 2.0 / n, "eval_loss": 3.0 / n} for n in (1, 2, 3)]))
    assert BLUE in plot.svg and ORANGE in plot.svg and plot.svg.startswith("<?xml")
    assert BLUE not in plot.inline and "var(--blue)" in plot.inline and plot.inline.startswith("<svg")
    assert "<style" not in plot.inline and "DejaVu" not in plot.svg


def test_a_long_noisy_curve_gets_its_running_mean():
    few = draw_curves(stage([{"step": n, "loss": 1.0 + n % 2} for n in range(50)]))[0].svg
    many = draw_curves(stage([{"step": n, "loss": 1.0 + n % 2} for n in range(100)]))[0].svg
    faint = "stroke-opacity: 0.4;"
    assert faint not in few and many.count(faint) == 1 and many.count(BLUE) == few.count(BLUE) + 1


def test_a_metric_that_nobody_foresaw_is_drawn_too():
    plots = draw_curves(
        stage([{"step": n, "num_tokens": n, "surprise": n, "eval_surprise": n} for n in (1, 2)])
    )
    assert [(plot.key, plot.title, plot.main) for plot in plots] == [("surprise", "surprise", False)]


def test_what_a_reward_model_learns_stands_in_front():
    lines = [{"step": n, "accuracy": 0.5, "margin": n, "eval_margin": n, "grad_norm": 1.0} for n in (1, 2)]
    plots = draw_curves(stage(lines))
    assert [(plot.key, plot.main) for plot in plots] == [
        ("accuracy", True),
        ("margin", True),
        ("grad_norm", True),
    ]
