"""A reward function is found, read and refused without a line of it being run."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from engine.errors import RewardError
from engine.rewards.function_files import find_function, source_of

TRAP = 'open("ran", "w").close()\n'
SOURCE = f"import re\n{TRAP}\ndef positive(prompts, completions):\n    return [0.0 for _ in completions]\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("where", ["lexicon.py", "./lexicon.py", "lexicon"])
def test_a_file_and_a_module_of_the_current_folder(here: Path, where: str) -> None:
    (here / "lexicon.py").write_text(SOURCE)
    found = find_function(f"{where}:positive")
    assert (found.name, found.path, found.content) == ("positive", here / "lexicon.py", SOURCE.encode())
    assert found.sha256 == hashlib.sha256(SOURCE.encode()).hexdigest()
    assert not (here / "ran").exists()


def test_a_module_of_a_package_is_found_without_importing_the_package(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = here / "lib" / "judges"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(TRAP)
    (package / "exact.py").write_text(SOURCE)
    monkeypatch.setattr(sys, "path", [*sys.path, str(here / "lib")])
    assert find_function("judges.exact:positive").path == package / "exact.py"
    assert "judges" not in sys.modules
    assert not (here / "ran").exists()


@pytest.mark.parametrize(
    ("written", "content", "says"),
    [
        ("lexicon.py", SOURCE, "expected FILE.py:FUNCTION or MODULE:FUNCTION"),
        ("lexicon.py:", SOURCE, "expected FILE.py:FUNCTION"),
        ("gone.py:positive", SOURCE, "there is no file"),
        ("lexicon.py:positive:half", SOURCE, "half is no weight"),
        ("no.such.module:positive", SOURCE, r"no module no\.such\.module as a \.py file"),
        ("lexicon.py:negative", SOURCE, "no function negative; there are: positive"),
        ("lexicon.py:f", "async def f(prompts, completions): ...\n", "async function: write it with def"),
        ("lexicon.py:f", "def f(:\n", "line 1: not Python"),
        ("lexicon.py:f", "from .words import x\ndef f(): ...\n", "line 1: imports '.words', relative to itself"),
        ("lexicon.py:f", "def f():\n    import words\n", "line 2: imports words, which lies beside it"),
        ("lexicon.py:f", "import words.list\ndef f(): ...\n", "imports words, which lies beside it"),
    ],
)
def test_what_cannot_be_one_is_refused_with_what_to_do(here: Path, written: str, content: str, says: str) -> None:
    (here / "lexicon.py").write_text(content)
    (here / "words.py").write_text(TRAP)
    with pytest.raises(RewardError, match=says):
        find_function(written)
    assert not (here / "ran").exists()


def test_what_is_installed_may_be_imported_though_a_file_of_that_name_lies_beside_it(here: Path) -> None:
    (here / "lexicon.py").write_text("import orjson\n" + SOURCE)
    (here / "orjson.py").write_text(TRAP)
    assert find_function("lexicon.py:positive").name == "positive"


def test_the_source_of_a_function_is_shown_with_its_decorators() -> None:
    content = b"import functools\n\n@functools.cache\ndef f():\n    return 1\n\ndef g(): ...\n"
    assert source_of(content, "f") == (3, ["@functools.cache", "def f():", "    return 1"])
    assert source_of(content, "") == (1, content.decode().splitlines())
