"""Read, count, tokenize a sample, judge, show."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from groundup import console
from groundup.config.schema import ChatSettings, DataSettings, PretrainSettings, SftSettings
from groundup.data import recognise_first
from groundup.data.files import PYTHON_DOCS, ROW_SUFFIXES, files_of, suffix_of
from groundup.data.layouts import BY_NAME, Kind, Record
from groundup.data.read import read_records
from groundup.data.survey import LookingLedger, Survey
from groundup.errors import UserError
from groundup.hub import resolve_tokenizer
from groundup.infer.origin import chat_settings, run_of
from groundup.stages.inspect.judge import Looked, judge
from groundup.stages.inspect.sample import Sample
from groundup.stages.inspect.screen import show
from groundup.stages.inspect.summary import rendered_row, summarize
from groundup.stages.inspect.tokens import Side, TokenSurvey, context_tokens
from groundup.store.files import to_json
from groundup.tokenizer import load_tokenizer


def inspect_data(
    paths: Sequence[str],
    *,
    model: str = "",
    max_length: int | None = None,
    subset: int = 2000,
    columns: Mapping[str, str] | None = None,
    layout: str | None = None,
    config: str | None = None,
    split: str | None = None,
    chat_template: str | None = None,
    rows: int = 2,
    as_json: bool = False,
) -> int:
    """Prints one screen, or JSON, about the data. Returns the exit code: 1 where it is not usable.

    subset: rows that are tokenized, 0 for all. rows: how many are shown as the model reads them. Raises UserError for
    files and models that cannot be read at all.
    """
    if layout and layout not in BY_NAME:
        near = difflib.get_close_matches(layout, BY_NAME, 1)
        fix = f"did you mean {near[0]}?" if near else f"take one of {', '.join(BY_NAME)}"
        raise UserError(f"There is no layout {layout}.", where="--layout", fix=fix)
    named: Any = {
        "path": list(paths),
        "columns": dict(columns or {}),
        "layout": layout or None,
        "config": config,
        "split": split,
    }
    spec = DataSettings.model_validate(named)
    with redirect_stdout(sys.stderr if as_json else sys.stdout):
        summary = examine(spec, model, max_length, subset, chat_template, rows)
    if as_json:
        console.say(to_json(summary, indent=2))
    else:
        show(summary)
    return int(summary["verdict"] == "not usable")


def examine(
    spec: DataSettings, model: str, max_length: int | None, subset: int, chat_template: str | None, rows: int
) -> dict[str, Any]:
    """The summary, with `sampled` and the rendered `rows`."""
    kind = _kind(spec)
    where, tokenizer, chat = _load(model, chat_template)
    unrendered: UserError | None = None
    tokens: TokenSurvey | None = None
    if tokenizer is not None:
        try:
            tokens = TokenSurvey(tokenizer, chat, kind)
        except UserError as error:
            unrendered = error
    ledger, survey, sample = LookingLedger(), Survey(), Sample[Record](subset or sys.maxsize)
    with console.progress("Reading", unit="row") as bar:
        for record in read_records(spec, ledger, kind):
            survey.add(record)
            sample.offer(record)
            ledger.keep()
            bar.advance()
    for _ in range(len(survey.copies())):
        ledger.deduplicate_kept()
    shown: list[dict[str, Any]] = []
    if tokens:
        tokens, unrendered = _tokenize(tokens, sample.items, rows, shown)
    settings = PretrainSettings if kind == "documents" else SftSettings
    longest = max_length or int(settings.model_fields["max_length"].default)
    context = context_tokens(where, tokenizer) if where else None
    if max_length is None and context:
        longest = min(longest, context)
    looked = Looked(kind, ledger, survey, tokens, unrendered, longest, context)
    summary = summarize(looked, judge(looked), spec.path, model)
    return summary | {"sampled": tokens is not None and tokens.rows < survey.rows, "rows": shown}


def _kind(spec: DataSettings) -> Kind:
    """What the rows are; plain text is documents."""
    names = [
        name
        for name in spec.path
        if name != PYTHON_DOCS and any(suffix_of(file) in ROW_SUFFIXES for file in files_of(name, spec).files)
    ]
    return recognise_first(spec.model_copy(update={"path": names})).kind if names else "documents"


def _load(model: str, chat_template: str | None) -> tuple[Path | None, Any, ChatSettings]:
    """Where the tokenizer lies, the tokenizer, and the chat settings: the run's, if the model is of one."""
    if not model:
        return None, None, ChatSettings(chat_template=chat_template)
    where = resolve_tokenizer(model)
    chat = chat_settings(run_of(where))
    if chat_template:
        chat = chat.model_copy(update={"chat_template": chat_template})
    return where, load_tokenizer(where), chat


def _tokenize(
    tokens: TokenSurvey, records: Sequence[Record], rows: int, shown: list[dict[str, Any]]
) -> tuple[TokenSurvey | None, UserError | None]:
    """All of the sample; the first ones are shown. An error where the template cannot be used at all."""
    with console.progress("Tokenizing", total=len(records), unit="row") as bar:
        for record in records:
            try:
                sides: list[Side] = tokens.add(record)
            except UserError as error:
                error.where = error.where or str(record.origin)
                return None, error
            if sides and len(shown) < rows:
                shown.append(rendered_row(str(record.origin), sides, tokens))
            bar.advance()
    return tokens, None
