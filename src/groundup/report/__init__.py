"""The report of a run: numbers read from its files, on one self-contained page and as Markdown."""

from groundup.report.write import write_report

__all__ = ["write_report"]
