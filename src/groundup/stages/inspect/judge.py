"""From numbers to findings: what is wrong, how much, where, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from groundup.config.schema import CleanSettings, DataSettings
from groundup.data.findings import Finding, Level, fix_for
from groundup.data.survey import LookingLedger, Survey
from groundup.errors import UserError
from groundup.stages.inspect.tokens import TokenSurvey

MOST_REASONS = 6
MANY_TOO_LONG = 0.01  # a share of rows lost that one would want to know of, as of broken ones
SAME_ANSWER = 0.02
SAME_ANSWER_ROWS = 5
SHORT_ANSWER_CHARS = 10
VERY_LONG_TIMES, VERY_LONG_CHARS = 20, 4_000
"""An answer of 20 times the median and 4,000 characters is more often a pasted page than an answer."""
LENGTH_BIAS = 0.6
"""Share of pairs. That preference training learns length from data: Singhal et al. 2023, arXiv 2310.03716; that DPO
makes more of it than the data has: Park et al. 2024, arXiv 2403.19159. Where to warn is our choice."""
SIGMAS = 3.0
LITTLE_LOSS = 0.05


@dataclass(frozen=True)
class Looked:
    """All that was counted. tokens: None without a model, or where `no_template` says why not."""

    kind: str
    ledger: LookingLedger
    survey: Survey
    tokens: TokenSurvey | None
    unrendered: UserError | None
    max_length: int
    context_tokens: int | None

    @property
    def limit_tokens(self) -> int:
        """The longest row that a stage would keep, or the longest piece of a document."""
        return min(self.max_length, self.context_tokens or self.max_length)


def judge(looked: Looked) -> list[Finding]:
    """Errors first, then warnings, then notes; within a level in the order in which one would work through them."""
    found = [*_rows(looked), *_copies(looked), *_answers(looked), *_pairs(looked), *_texts(looked)]
    if looked.unrendered:
        found.append(_unrendered(looked.unrendered))
    if looked.tokens:
        found += [*_lengths(looked, looked.tokens), *_chat(looked, looked.tokens)]
    order: dict[Level, int] = {"error": 0, "warning": 1, "note": 2}
    return sorted(found, key=lambda finding: order[finding.level])


def _rows(looked: Looked) -> Iterator[Finding]:
    ledger, survey = looked.ledger, looked.survey
    bad = ledger.quarantined.total()
    level: Level = "error" if bad > _most_bad() * ledger.rows_in or not survey.rows else "warning"
    for reason, count in ledger.quarantined.most_common(MOST_REASONS):
        what = f"{_rows_of(count, ledger.rows_in)} cannot be used: {reason}"
        yield Finding(level, "unusable_row", what, fix_for(reason), count, ledger.bad.examples(reason))
    if bad and level == "error":
        yield Finding(
            "error",
            "too_many_unusable_rows",
            f"a stage stops here: {bad / ledger.rows_in:.1%} of the rows are unusable, {_most_bad():.0%} are allowed",
            "repair the file, or set data: {path: …, max_bad_rows: 0.5} if you mean to lose them",
            bad,
        )
    elif not survey.rows:
        yield Finding("error", "no_rows", "no row is left to train on", "look at what was filtered")
    for reason, count in ledger.filtered.most_common():
        what = f"{_rows_of(count, ledger.rows_in)} are left out: {reason}"
        yield Finding("note", "filtered_row", what, "nothing to do if that is meant", count)
    if looked.kind == "prompts" and survey.rows:
        what = "questions without answers: grpo and ppo train on them; sft and dpo need answers"
        yield Finding(
            "note", "no_answers", what, "for sft add the answers as a column completion", survey.rows
        )


def _copies(looked: Looked) -> Iterator[Finding]:
    survey = looked.survey
    if count := len(copies := survey.copies()):
        what = f"{_rows_of(count, survey.rows)} are copies of earlier ones (but for case and white space)"
        fix = "nothing to do: a stage keeps the first of them, and counts the rest"
        level: Level = "warning" if count > 0.1 * survey.rows else "note"
        if level == "warning":
            fix = "look at how the file was made; a stage keeps the first of them, and counts the rest"
        yield Finding(level, "duplicate_row", what, fix, count, survey.examples(copies))
    if count := len(again := survey.asked_again()):
        what = f"{_rows_of(count, survey.rows)} ask what an earlier one asks, and answer otherwise"
        fix = "keep the best answer, unless several are meant; all of them stay on one side of the hold-out"
        yield Finding("note", "duplicate_prompt", what, fix, count, survey.examples(again))


def _answers(looked: Looked) -> Iterator[Finding]:
    survey = looked.survey
    count, places = survey.commonest_answer()
    if count >= SAME_ANSWER_ROWS and count > SAME_ANSWER * survey.rows:
        what = f"{_rows_of(count, survey.rows)} have one and the same answer"
        fix = "keep a few of them: a model learns to say it to everything; labels to choose from are fine"
        yield Finding("warning", "identical_answer", what, fix, count, places)
    chars = np.frombuffer(survey.answer_chars, dtype=np.int64)
    if len(chars):
        short = np.flatnonzero(chars < SHORT_ANSWER_CHARS)
        if len(short):
            what = (
                f"{_rows_of(len(short), survey.rows)} have an answer of under {SHORT_ANSWER_CHARS} characters"
            )
            fix = "look at them: fine for labels and numbers, else they teach to be curt"
            yield Finding("note", "short_answer", what, fix, len(short), survey.examples(short))
        long = np.flatnonzero(chars > max(VERY_LONG_TIMES * float(np.median(chars)), VERY_LONG_CHARS))
        if len(long):
            what = f"{_rows_of(len(long), survey.rows)} have an answer over {VERY_LONG_TIMES} times the median's length"
            fix = "look at them: often a pasted page, or a loop of the model that wrote it"
            yield Finding("note", "long_answer", what, fix, len(long), survey.examples(long))
    for name, said, fix in (
        ("begins_with_answer", "begin with an answer", "give them a question, if one was lost"),
        (
            "same_role_twice",
            "have the same role twice in a row",
            "join the turns; some templates refuse them",
        ),
    ):
        if count := survey.places.count[name]:
            what = f"{_rows_of(count, survey.rows)} {said}"
            yield Finding("note", name, what, fix, count, survey.places.examples(name))


def _pairs(looked: Looked) -> Iterator[Finding]:
    survey = looked.survey
    if looked.kind != "pairs" or not survey.rows:
        return
    if count := survey.places.count["sides_nearly_equal"]:
        what = f"in {_rows_of(count, survey.rows)} chosen and rejected differ by case and white space only"
        fix = "remove the rows: there is nothing to prefer"
        places = survey.places.examples("sides_nearly_equal")
        yield Finding("warning", "sides_nearly_equal", what, fix, count, places)
    longer, shorter = length_votes(survey)
    votes = longer + shorter
    share = longer / votes if votes else 0.5
    if max(share, 1 - share) >= LENGTH_BIAS and abs(share - 0.5) * 2 * math.sqrt(votes) > SIGMAS:
        which = "longer" if share > 0.5 else "shorter"
        what = (
            f"the {which} answer is chosen in {max(share, 1 - share):.0%} of the pairs: DPO will learn length"
        )
        fix = "leave out pairs whose lengths differ most until it is near 50%, or watch the length of answers in eval"
        yield Finding("warning", "length_bias", what, fix, max(longer, shorter))


def _texts(looked: Looked) -> Iterator[Finding]:
    survey = looked.survey
    for name, said, fix in (
        (
            "replacement_character",
            "hold the character U+FFFD: text was lost when it was decoded",
            "make the file again from its source, with the right encoding",
        ),
        (
            "mojibake",
            "look like UTF-8 that was read in another encoding (such as Ã© for é)",
            "repair them with ftfy.fix_text; a clean stage does so by itself",
        ),
    ):
        if count := survey.places.count[name]:
            what = f"{_rows_of(count, survey.rows)} {said}"
            level: Level = "note" if name == "mojibake" and looked.kind == "documents" else "warning"
            yield Finding(level, name, what, fix, count, survey.places.examples(name))
    if looked.kind == "documents":
        least = int(CleanSettings.model_fields["min_chars"].default)
        short = np.flatnonzero(np.frombuffer(survey.chars, dtype=np.int64) < least)
        if len(short):
            what = (
                f"{_rows_of(len(short), survey.rows)} have under {least} characters: a clean stage drops them"
            )
            fix = "nothing to do, or set min_chars lower"
            yield Finding("note", "short_document", what, fix, len(short), survey.examples(short))


def _lengths(looked: Looked, tokens: TokenSurvey) -> Iterator[Finding]:
    lengths = np.frombuffer(tokens.length_tokens, dtype=np.int64)
    limit, context = looked.limit_tokens, looked.context_tokens
    if context and looked.max_length > context:
        what = f"max_length {looked.max_length:,} is beyond the {context:,} tokens that the model reads"
        yield Finding("error", "beyond_context", what, f"set max_length to {context} or less")
    over = int((lengths > limit).sum())
    if not over:
        return
    share = over / len(lengths)
    if looked.kind == "documents":
        what = f"{_rows_of(over, len(lengths))} are longer than {limit:,} tokens: they become several pieces"
        fix = "nothing to do: nothing is lost, but a piece does not see the one before it"
        yield Finding("note", "too_long", what, fix, over)
        return
    what = f"{_rows_of(over, len(lengths))} are longer than {limit:,} tokens, and set aside"
    what += "; so many stop a stage" if share > MANY_TOO_LONG else ""
    level: Level = "error" if share == 1 else "warning" if share > MANY_TOO_LONG else "note"
    yield Finding(level, "too_long", what, _longer(lengths, limit, context), over)


def _longer(lengths: np.ndarray, limit: int, context: int | None) -> str:
    """What max_length would keep more of them."""
    most, nearly = int(lengths.max()), math.ceil(float(np.quantile(lengths, 0.99)))
    if context and limit >= context:
        return f"shorten or split them: the model reads {context:,} tokens at most"
    if context and most > context:
        kept = (lengths <= context).mean()
        return f"max_length: {context}, all that the model reads, keeps {kept:.1%}; shorten or split the rest"
    keeps_nearly = f"max_length: {nearly} keeps 99%, and " if limit < nearly < most else ""
    return f"{keeps_nearly}max_length: {most} keeps all, for more memory; or shorten them"


def _unrendered(error: UserError) -> Finding:
    why = f" ({error.why})" if error.why else ""
    where = (error.where,) if error.where else ()
    what = error.what[:1].lower() + error.what[1:].rstrip(".") + why
    return Finding("error", "chat_template", what, error.fix or "use another template", 0, where)


def _chat(looked: Looked, tokens: TokenSurvey) -> Iterator[Finding]:
    rows, places = tokens.rows, tokens.places
    refused = tokens.bad.count.total()
    level: Level = "error" if refused > _most_bad() * rows else "warning"
    for reason, count in tokens.bad.count.most_common(MOST_REASONS):
        what = f"{_rows_of(count, rows)} cannot be rendered: {reason}"
        yield Finding(level, "unrendered_row", what, fix_for(reason), count, tokens.bad.examples(reason))
    for name, said, fix in (
        (
            "template_differs",
            "are rendered otherwise by the tokenizer's own apply_chat_template",
            "set chat.chat_template to a template that writes each message once, in order",
        ),
        (
            "end_of_turn_not_learned",
            "teach no end of turn: the model would not learn to stop",
            "end assistant turns of the template with a special token, such as eos_token",
        ),
    ):
        if count := places.count[name]:
            of = tokens.compared if name == "template_differs" else rows
            what = f"{_rows_of(count, of)} {said}"
            yield Finding("error", name, what, fix, count, places.examples(name))
    if count := places.count["chat_prompt_differs"]:
        what = f"{_rows_of(count, tokens.compared)} learn an answer behind other tokens than a chat would put there"
        fix = "see what the template adds before an answer, such as an empty <think>; or set chat_template_kwargs"
        yield Finding("note", "chat_prompt_differs", what, fix, count, places.examples("chat_prompt_differs"))
    if count := places.count["special_token_in_document"]:
        what = f"{_rows_of(count, rows)} spell a special token; it stays text, and never becomes that token"
        places_of = places.examples("special_token_in_document")
        yield Finding(
            "note", "special_token", what, "remove it if it is left from another format", count, places_of
        )
    share = tokens.scored_tokens / max(tokens.all_tokens, 1)
    if looked.kind != "prompts" and tokens.all_tokens and share < LITTLE_LOSS:
        what = f"the loss sees {share:.1%} of the tokens: most of the computing goes into prompts"
        yield Finding("note", "little_loss", what, "shorten the prompts where they say what no answer needs")
    pad, eos = tokens.tokenizer.pad_token_id, tokens.tokenizer.eos_token_id
    if pad is not None and pad == eos:
        what = f"padding and end of text are one token, {tokens.tokenizer.eos_token}"
        fix = "nothing to do here: rows have no padding; a trainer that masks by pad id would never learn to stop"
        yield Finding("note", "pad_is_eos", what, fix)


def length_votes(survey: Survey) -> tuple[int, int]:
    """In how many pairs the longer answer is chosen, and in how many the shorter."""
    chosen = np.frombuffer(survey.answer_chars, dtype=np.int64)
    rejected = np.frombuffer(survey.rejected_chars, dtype=np.int64)
    return int((chosen > rejected).sum()), int((chosen < rejected).sum())


def _most_bad() -> float:
    return float(DataSettings.model_fields["max_bad_rows"].default)


def _rows_of(count: int, total: int) -> str:
    return f"{count:,} of {total:,} rows ({count / max(total, 1):.1%})"
