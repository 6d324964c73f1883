"""The verbs below `groundup data`."""

from __future__ import annotations

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def data() -> None:
    """Look at data before training on it.

    \b
    Example:
      groundup data inspect chats.jsonl --model runs/base
    """


@data.command()
@click.argument("files", metavar="F...", nargs=-1, required=True)
@click.option("--model", default="", metavar="M", help="Count in its tokens, render with its chat template.")
@click.option(
    "--max-length",
    type=click.IntRange(1),
    help="Longest row, in tokens.  [default: a stage's, or what the model reads]",
)
@click.option(
    "--subset",
    type=click.IntRange(0),
    default=2000,
    show_default=True,
    help="Tokenize so many rows, drawn evenly from all; 0: all. Everything else looks at all rows.",
)
@click.option(
    "--columns",
    multiple=True,
    metavar="OURS=THEIRS",
    help="Which column of the file is which; repeatable.",
)
@click.option("--config", metavar="NAME", help="Which configuration of a hub's data set.")
@click.option("--split", metavar="S", help="Which part of a folder or data set.  [default: train]")
@click.option("--layout", metavar="NAME", help="What the rows are, if that is not clear.")
@click.option("--chat-template", metavar="FILE", help="A Jinja template in place of the model's own.")
@click.option(
    "--rows",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    help="Show so many rows as the model reads them.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def inspect(
    ctx: click.Context,
    files: tuple[str, ...],
    model: str,
    max_length: int | None,
    subset: int,
    columns: tuple[str, ...],
    config: str | None,
    split: str | None,
    layout: str | None,
    chat_template: str | None,
    rows: int,
    as_json: bool,
) -> int:
    """Say what data is, what is wrong with it, and how to put that right.

    F is a file, a folder, a glob or a hub name. Exit code 0: usable, perhaps with warnings; 1: not usable;
    2: it cannot be read at all.

    \b
    Examples:
      groundup data inspect chats.jsonl
      groundup data inspect pairs.jsonl --model runs/sft-mine --rows 5
      groundup data inspect Salesforce/wikitext --config wikitext-2-raw-v1 --split test
      groundup data inspect rows.csv --columns prompt=question --columns completion=reply --json
    """
    from groundup.stages.inspect.command import inspect_data

    mapped = {}
    for pair in columns:
        ours, equals, theirs = pair.partition("=")
        if not (ours and equals and theirs):
            raise click.BadParameter(f"`{pair}` is not OURS=THEIRS.", ctx, param_hint="--columns")
        mapped[ours] = theirs
    return inspect_data(
        files,
        model=model,
        max_length=max_length,
        subset=subset,
        columns=mapped,
        config=config,
        split=split,
        layout=layout,
        chat_template=chat_template,
        rows=rows,
        as_json=as_json,
    )
