"""What was counted, as plain data with stable keys: `--json` prints it, and the screen shows nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from groundup.data.findings import LEVELS, Finding, verdict
from groundup.data.survey import Survey
from groundup.stages.inspect.judge import Looked, length_votes
from groundup.stages.inspect.tokens import Side, TokenSurvey

FORMAT = 1
FIRST_BUCKET = 32


def summarize(
    looked: Looked, findings: Sequence[Finding], paths: Sequence[str], model: str
) -> dict[str, Any]:
    """Everything but the rendered rows."""
    survey, tokens = looked.survey, looked.tokens
    ledger = looked.ledger.as_dict()
    return {
        "format": FORMAT,
        "verdict": verdict(findings),
        "counts": {level: sum(f.level == level for f in findings) for level in LEVELS},
        "paths": list(paths),
        "model": model or None,
        "kind": looked.kind,
        "recognised": [
            {"path": path, "layout": found.layout, "kind": found.kind, "evidence": found.evidence}
            for path, found in looked.ledger.layouts.items()
        ],
        "splits": dict(looked.ledger.splits),
        "ledger": {key: ledger[key] for key in ("in", "kept", "filtered", "deduplicated", "quarantined")},
        "duplicates": {"rows": len(survey.copies()), "prompts": len(survey.asked_again())},
        "roles": dict(survey.roles),
        "answers_per_row": {str(turns): rows for turns, rows in sorted(survey.turns.items())},
        "rows_with_tools": survey.with_tools,
        "scripts": dict(survey.scripts.most_common()),
        "answer_characters": _spread(np.frombuffer(survey.answer_chars, dtype=np.int64)),
        "pairs": _pairs(survey) if looked.kind == "pairs" else None,
        "length": _length(looked),
        "chat": _chat(tokens) if tokens and looked.kind != "documents" else None,
        "loss": _loss(tokens) if tokens and looked.kind != "prompts" else None,
        "findings": [vars(finding) | {"examples": list(finding.examples)} for finding in findings],
    }


def _spread(values: np.ndarray) -> dict[str, Any] | None:
    if not len(values):
        return None
    quantiles = np.quantile(values, [0.5, 0.95, 0.99], method="lower").astype(int).tolist()
    named = dict(zip(("median", "p95", "p99"), quantiles, strict=True))
    return {"shortest": int(values.min()), **named, "longest": int(values.max())}


def _pairs(survey: Survey) -> dict[str, Any]:
    longer, shorter = length_votes(survey)
    return {
        "longer_chosen": longer,
        "shorter_chosen": shorter,
        "same_length": survey.rows - longer - shorter,
        "rejected_characters": _spread(np.frombuffer(survey.rejected_chars, dtype=np.int64)),
    }


def _length(looked: Looked) -> dict[str, Any]:
    """Lengths in tokens, and what is beyond the limit; in characters, where there is no tokenizer."""
    tokens = looked.tokens
    source = tokens.length_tokens if tokens else looked.survey.chars
    values = np.frombuffer(source, dtype=np.int64)
    shown: dict[str, Any] = {
        "unit": "tokens" if tokens else "characters",
        "rows": len(values),
        **(_spread(values) or {}),
        "histogram": _histogram(values),
        "max_length": looked.max_length,
        "context": looked.context_tokens,
    }
    if tokens:
        over = values[values > looked.limit_tokens]
        shown["over"] = {
            "limit": looked.limit_tokens,
            "rows": len(over),
            "tokens": int(over.sum()),
            "share_of_tokens": float(over.sum() / max(values.sum(), 1)),
            "what_happens": "cut into pieces" if looked.kind == "documents" else "dropped",
        }
    return shown


def _histogram(values: np.ndarray) -> list[dict[str, int]]:
    """Rows in buckets that double: from, to (inclusive), rows."""
    buckets: list[dict[str, int]] = []
    start, end = 0, FIRST_BUCKET
    while len(values) and start <= values.max():
        rows = int(((values >= start) & (values <= end)).sum())
        if rows or buckets:
            buckets.append({"from": start, "to": end, "rows": rows})
        start, end = end + 1, end * 2
    return buckets


def _chat(tokens: TokenSurvey) -> dict[str, Any]:
    count = tokens.places.count
    rendered = len(tokens.length_tokens)
    return {
        "rows": rendered,
        "refused": tokens.bad.count.total(),
        "compared": tokens.compared,
        "same_as_tokenizer": tokens.compared - count["template_differs"],
        "end_of_turn": [tokens.tokenizer.convert_ids_to_tokens(token) for token in sorted(tokens.stop)],
        "end_of_turn_learned": rendered - count["end_of_turn_not_learned"],
        "asked_as_in_chat": tokens.compared - count["chat_prompt_differs"],
    }


def _loss(tokens: TokenSurvey) -> dict[str, Any]:
    return {
        "tokens": tokens.all_tokens,
        "trained_tokens": tokens.scored_tokens,
        "share": tokens.scored_tokens / max(tokens.all_tokens, 1),
    }


def rendered_row(place: str, sides: Sequence[Side], tokens: TokenSurvey) -> dict[str, Any]:
    """A row as the model reads it, in pieces that are trained or masked."""
    return {
        "place": place,
        "sides": [
            {"name": side.name, "tokens": len(side.rendered.token), "pieces": _pieces(side, tokens)}
            for side in sides
        ],
    }


def _pieces(side: Side, tokens: TokenSurvey) -> list[dict[str, Any]]:
    token, scored = side.rendered.token, side.rendered.scored
    edges = [0, *(np.flatnonzero(np.diff(scored)) + 1).tolist(), len(token)]
    return [
        {
            "text": tokens.tokenizer.decode(token[start:end].tolist(), skip_special_tokens=False),
            "trained": bool(scored[start]),
            "tokens": end - start,
        }
        for start, end in pairwise(edges)
        if end > start
    ]
