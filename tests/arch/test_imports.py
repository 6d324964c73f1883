"""Who may import whom: DESIGN in code. The layers themselves stand in pyproject.toml."""

import ast
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "groundup"

# Import rules that a list of layers cannot say: a library, and the only rooms that know it
ONLY_IN = {
    "transformers": {"model", "tokenizer", "export", "eval"},
    "tokenizers": {"tokenizer"},
    "torch.distributed": {"engine"},
    "huggingface_hub": {"hub", "stages"},  # stages: doctor looks at the cache
    "matplotlib": {"report"},
    "click": {"cli", "data_verbs", "fetch_verb", "look_verbs", "policy_verbs", "shell", "stage_verbs"},
    "rich": {"console"},
}
# Of use to tests, never to the software
NEVER = {"trl", "peft", "accelerate", "datasets"}


def imports(file: Path) -> set[str]:
    """Dotted names that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Attribute):
            found.add(ast.unparse(node))
    return found


def importers(library: str) -> dict[str, Path]:
    """Rooms that import a library, each with a file that does."""
    return {
        file.relative_to(SOURCE).parts[0].removesuffix(".py"): file
        for file in sorted(SOURCE.rglob("*.py"))
        if any(name == library or name.startswith(library + ".") for name in imports(file))
    }


def test_rooms_import_only_rooms_below_them(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert lint_imports(no_cache=True) == 0, capsys.readouterr().out


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_stays_in_its_rooms(library):
    strangers = {room: file for room, file in importers(library).items() if room not in ONLY_IN[library]}
    assert not strangers


@pytest.mark.parametrize("library", sorted(NEVER))
def test_what_only_tests_need_is_not_imported(library):
    assert not importers(library)
