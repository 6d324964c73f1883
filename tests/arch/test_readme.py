"""What the documentation tells people to type and to look at exists."""

import re
from pathlib import Path

import pytest

from groundup.cli import cli

ROOT = Path(__file__).parents[2]
PAGES = [page for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")] if page.name != "CHANGELOG.md"]
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)


def code(page):
    return "\n".join(CODE.findall(page.read_text(encoding="utf-8")))


def options_of(command):
    """Its own, and those of the commands below it."""
    below = getattr(command, "commands", {}).values()
    own = {option for parameter in command.params for option in parameter.opts}
    return own.union(*map(options_of, below))


def test_the_pages_are_there():
    assert {"README.md", "README.zh-CN.md"} <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_verb_and_target_exists(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bgroundup ([a-z]+)\b", code(page))) <= set(cli.commands)
    assert set(re.findall(r"\bmake ([a-z-]+)\b", code(page))) <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_exists(page):
    for verb, rest in re.findall(r"\bgroundup ([a-z]+)\b([^\n`]*)", code(page)):
        known = options_of(cli.commands[verb])
        assert set(re.findall(r"(?<!\S)--[a-z-]+", rest.partition("#")[0])) <= known | {"--help"}, verb


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_linked_file_exists(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]
