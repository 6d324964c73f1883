"""The documentation that Python carries, from source in a made-up library and in the real one."""

import sys
import sysconfig

import pytest

from groundup.config.schema import DataSettings
from groundup.data import stdlib
from groundup.data.files import PYTHON_DOCS, files_of
from groundup.errors import UserError

MODULE = '''"""About the module."""
raise SystemExit  # importing would end the test

class Shape:
    """A shape.

    Like this:
        circle
    """
    def area(self):
        """Return the area."""

async def wait(): """Wait."""
def silent(): pass
'''
LONG, SHORT, OTHER = "paragraph one\n\nparagraph two", "paragraph two", "something else"


@pytest.fixture
def library(tmp_path, monkeypatch):
    files = {
        "shape.py": MODULE,
        "broken.py": "def (",
        "empty.py": "x = 1",
        "test/test_shape.py": '"""A test."""',
        "site-packages/six.py": '"""Somebody else\'s."""',
        "pydoc_data/topics.py": f"topics = {{'a': {SHORT!r}, 'b': {LONG!r}, 'c': {OTHER!r}}}",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    return tmp_path


def test_docstrings_stand_under_their_names(library):
    texts = {document.origin.path: document.text for document in stdlib.read_python_docs()}
    expected = (
        "About the module.\n\n"
        "Shape\nA shape.\n\nLike this:\n    circle\n\n"
        "Shape.area\nReturn the area.\n\n"
        "wait\nWait."
    )
    assert texts[str(library / "shape.py")] == expected
    assert {name.rsplit("/", 1)[-1] for name in texts} == {"shape.py", "topics.py"}


def test_topics_that_a_longer_one_contains_are_left_out(library):
    assert [d.text for d in stdlib.read_python_docs() if d.origin.path.endswith("topics.py")] == [LONG, OTHER]


def test_files_that_count_for_the_fingerprint(library):
    names = [
        path.relative_to(library).as_posix()
        for path in files_of(PYTHON_DOCS, DataSettings(path=[PYTHON_DOCS])).files
    ]
    assert names == ["broken.py", "empty.py", "pydoc_data/topics.py", "shape.py"]


def test_a_python_without_its_source(tmp_path, monkeypatch):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(UserError, match="standard library"):
        stdlib.stdlib_files()


def test_the_real_library_has_prose_and_is_not_imported():
    names = {"turtle.py", "topics.py", "antigravity.py"}
    files = [path for path in stdlib.stdlib_files() if path.name in names]
    assert len(files) == len(names)
    assert "antigravity" not in sys.modules
