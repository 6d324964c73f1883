"""Lays the report out and writes it into the run's folder."""

from __future__ import annotations

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from groundup.report.reading import read_run
from groundup.report.view import View, build_view
from groundup.store import Run
from groundup.store.files import publish_folder, write_text


def write_report(run: Run) -> Path:
    """Writes `report.html` (one file, nothing is fetched), `report.md` and its plots; returns the page's path.

    Reads only what the finished stages left in the run folder, so it can be written again at any time.
    """
    view = build_view(read_run(run))
    publish_folder(run.report_files, lambda folder: _write_plots(folder, view))
    write_text(run.report_md, render(view, "report.md.jinja", files=run.report_files.name))
    write_text(run.report_html, render(view, "report.html.jinja"))
    return run.report_html


def render(view: View, template: str, **more: str) -> str:
    """A template of this package, filled. In HTML every text is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=template.startswith("report.html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": _table_cell, "fenced": _fenced}
    return environment.get_template(template).render(view=view, **more)


def _write_plots(folder: Path, view: View) -> None:
    for section in view.sections:
        for plot in section.plots:
            write_text(folder / f"{section.name}-{plot.key}.svg", plot.svg)


def _table_cell(text: str) -> str:
    """Text that cannot break out of a Markdown table's cell."""
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", " ".join(text.split()))


def _fenced(text: str) -> str:
    """Text as it is, between fences longer than any inside it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"
