"""Curves of a training stage as SVG, in colors that read on light and on dark paper."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from groundup.report import wording
from groundup.report.reading import Points, StageRecord

BLUE, ORANGE, GREEN, RED, VIOLET, GREY = "#3a7fc1", "#dd7a2a", "#2b9c70", "#cf4c5e", "#8a69bd", "#808890"
THEME = {BLUE: "blue", ORANGE: "orange", GREEN: "green", RED: "red", VIOLET: "violet", GREY: "soft"}
"""Color: the page's variable that stands for it, so that a dark page brightens it."""

MANY_POINTS = 60  # from here on a noisy curve is drawn faint, with its running mean


@dataclass(frozen=True)
class Line:
    metric: str
    label: str
    color: str


@dataclass(frozen=True)
class Panel:
    key: str
    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Plot:
    """`svg` is a whole file; `inline` the same to stand in a page, with the page's colors."""

    key: str
    title: str
    alt: str
    svg: str
    main: bool = True
    """Of the panels below; the other metrics' curves are many, and folded away."""

    @property
    def inline(self) -> str:
        text = self.svg[self.svg.index("<svg") :]
        for color, variable in THEME.items():
            text = text.replace(color, f"var(--{variable})")
        return text


def _pair(metric: str) -> tuple[Line, ...]:
    """Chosen and rejected, in training and held out."""
    return tuple(
        Line(f"{prefix}{metric}/{side}", f"{side}{words}", color)
        for side, color in (("chosen", GREEN), ("rejected", RED))
        for prefix, words in (("", ""), ("eval_", ", held out"))
    )


def _train_and_held_out(metric: str) -> tuple[Line, ...]:
    return Line(metric, "training", BLUE), Line(f"eval_{metric}", "held out", ORANGE)


PANELS = (
    Panel("loss", "Loss", _train_and_held_out("loss")),
    Panel("bits_per_byte", "Bits per byte", _train_and_held_out("bits_per_byte")),
    Panel("rewards", "Rewards", _pair("rewards")),
    Panel("margins", "Preference margin", _train_and_held_out("rewards/margins")),
    Panel("accuracies", "Preference accuracy", _train_and_held_out("rewards/accuracies")),
    Panel("logps", "Log-probabilities", _pair("logps")),
    Panel("accuracy", "Pairs scored right", _train_and_held_out("accuracy")),
    Panel("margin", "Reward margin", _train_and_held_out("margin")),
    Panel("reward", "Reward", _train_and_held_out("reward")),
    Panel(
        "kl",
        "KL from the reference",
        (Line("kl", "a token (KTO: an answer)", BLUE), Line("objective/kl", "an answer", ORANGE)),
    ),
    Panel("entropy", "Entropy", (Line("entropy", "", BLUE), Line("policy/entropy_avg", "", BLUE))),
    Panel("length", "Tokens of an answer", _train_and_held_out("completions/mean_length")),
    Panel("learning_rate", "Learning rate", (Line("learning_rate", "", VIOLET),)),
    Panel("grad_norm", "Gradient norm, before clipping", (Line("grad_norm", "", VIOLET),)),
    Panel("tokens_per_second", "Tokens a second", (Line("tokens_per_second", "", VIOLET),)),
)
NO_CURVES = frozenset({"step", "epoch", "num_tokens", "elapsed_seconds"})


def draw_curves(stage: StageRecord) -> list[Plot]:
    """A plot of each panel that has at least two points, then of every other metric that was logged."""
    known = {line.metric for panel in PANELS for line in panel.lines} | NO_CURVES
    logged = {name for line in stage.metrics for name in line}
    others = sorted({name.removeprefix("eval_") for name in logged - known} - known)
    panels = PANELS + tuple(
        Panel(re.sub(r"\W", "_", name), wording.metric(name).label, _train_and_held_out(name))
        for name in others
    )
    drawn = []
    for panel in panels:
        series = {line: stage.series(line.metric) for line in panel.lines}
        if any(len(points) > 1 for points in series.values()):
            drawn.append(_draw(stage.name, panel, series, main=panel in PANELS))
    return drawn


def _draw(stage_name: str, panel: Panel, series: dict[Line, Points], main: bool) -> Plot:
    style: Any = {
        "svg.fonttype": "none",  # letters stay letters: small, sharp, in the page's font
        "svg.hashsalt": f"{stage_name}-{panel.key}",  # equal input, equal file; ids differ between the page's plots
        "font.size": 9,
        "axes.edgecolor": GREY,
        "text.color": GREY,
        "xtick.color": GREY,
        "ytick.color": GREY,
        "axes.labelcolor": GREY,
    }
    with matplotlib.rc_context(style):
        labelled = len({line.label for line in panel.lines}) > 1
        figure = Figure(figsize=(4.6, 2.8))
        axes = figure.add_axes(
            (0.14, 0.17, 0.84, 0.66 if labelled else 0.78)
        )  # the same in all: axes line up
        for line, points in series.items():
            if points:
                _draw_line(axes, line, points)
        _dress(axes, panel, labelled)
        text = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    return Plot(panel.key, panel.title, _in_words(panel, series), _tidy(text.getvalue()), main)


def _draw_line(axes: Axes, line: Line, points: Points) -> None:
    steps, values = zip(*points, strict=True)
    held_out = line.metric.startswith("eval_")
    if held_out or len(points) < MANY_POINTS:
        dashes, marker = ("--", "o") if held_out else ("-", "o" if len(points) < 3 else "")
        axes.plot(
            steps, values, color=line.color, label=line.label, linestyle=dashes, marker=marker, markersize=4
        )
        return
    axes.plot(steps, values, color=line.color, linewidth=0.8, alpha=0.4)
    window = len(points) // 20
    means = [
        sum(part) / len(part)
        for i in range(len(values))
        if (part := values[max(0, i - window) : i + window + 1])
    ]
    axes.plot(steps, means, color=line.color, label=line.label)


def _dress(axes: Axes, panel: Panel, labelled: bool) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=GREY, alpha=0.22, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=3)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if wording.metric(panel.lines[0].metric).form == "percent":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("step")
    if labelled:
        axes.legend(loc="lower left", bbox_to_anchor=(-0.03, 0.99), ncols=2, frameon=False, handlelength=1.6)


def _in_words(panel: Panel, series: dict[Line, Points]) -> str:
    """For those who cannot see the plot."""
    parts = [
        f"{line.label} from {wording.value(line.metric, points[0][1])}"
        f" to {wording.value(line.metric, points[-1][1])}"
        for line, points in series.items()
        if points
    ]
    return f"{panel.title}: " + "; ".join(parts).strip()


def _tidy(svg: str) -> str:
    """Without a fixed size and without the ids that every figure repeats."""
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r' id="(?:figure|axes|patch|line2d|text|matplotlib\.axis|xtick|ytick|legend)_\d+"', "", svg)
    svg = svg.replace("<svg ", '<svg style="stroke-linejoin: round" ', 1)
    svg = re.sub(
        r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL
    )  # it would style the page
    return re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", svg)
