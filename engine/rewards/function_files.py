"""A reward function as a person names it, and the file that it lies in, read without running any of it.

    lexicon.py:positive      a file and a function of it
    mypackage.rewards:exact  a module, looked for in the current folder and where Python looks

Owns that form and what a file must be: Python source that stands alone. It is approved, frozen and run as one file, so
what it imports from beside itself would be run unapproved and would be missing in the run: that is refused here.
Invariant: nothing is imported and nothing executed. Torch-free.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from engine.errors import RewardError

EXPECTED = "FILE.py:FUNCTION or MODULE:FUNCTION, as in lexicon.py:positive"
LARGEST_BYTES = 1 << 20


@dataclass(frozen=True)
class FunctionFile:
    """A reward function that was named, and the file it lies in."""

    written: str
    """As the person wrote it."""
    name: str
    """Of the function."""
    path: Path
    """Absolute."""
    content: bytes

    @property
    def sha256(self) -> str:
        """Of the file's content."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def frozen_name(self) -> str:
        """What the copy in a run's folder is called."""
        return frozen_name(self.path, self.sha256)


def frozen_name(path: Path | str, sha256: str) -> str:
    """What the copy of a file in a run's folder is called: some of its hash, and its name. A copy of a copy is called
    as that is."""
    name = Path(path).name
    mark = f"{sha256[:12]}-"
    return mark + name.removeprefix(mark)


def find_function(written: str) -> FunctionFile:
    """The function that `written` names. Raises RewardError where there is none, or where its file cannot be one."""
    where, colon, name = written.rpartition(":")
    if not colon or not where or not name.isidentifier():
        raise RewardError(f"--reward {written}: expected {EXPECTED}")
    if where.rpartition(":")[0].endswith(".py"):
        raise RewardError(f"--reward {written}: {name} is no weight; expected {EXPECTED}, then :WEIGHT or nothing")
    path = _file_named(where, written)
    content = read_source(path)
    tree = parsed(path, content)
    there = _defined(tree)
    if there.get(name) == "async":
        raise RewardError(f"{path}: {name} is an async function: write it with def")
    if name not in there:
        functions = [one for one, kind in there.items() if kind == "def" and not one.startswith("_")]
        raise RewardError(f"{path}: no function {name}; there are: {', '.join(functions) or 'none'}")
    require_alone(path, tree)
    return FunctionFile(written, name, path, content)


def read_source(path: Path) -> bytes:
    """The content of a file that a person names as one with reward functions. Raises RewardError."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise RewardError(f"{path}: larger than {LARGEST_BYTES >> 20} MB: name a Python file that can be read")
        return path.read_bytes()
    except OSError as error:
        raise RewardError(f"{path}: cannot be read ({error.strerror}): expected {EXPECTED}") from error


def parsed(path: Path, content: bytes) -> ast.Module:
    """The source as a tree. Raises RewardError with the line where it is no Python."""
    try:
        return ast.parse(content, filename=str(path))
    except SyntaxError as error:
        raise RewardError(f"{path}, line {error.lineno}: not Python ({error.msg}): correct the file") from error
    except ValueError as error:
        raise RewardError(f"{path}: not Python source ({error}): name a .py file") from error


def source_of(content: bytes, name: str) -> tuple[int, list[str]]:
    """The first line and the lines of a function, decorators included; of the whole file where `name` is empty."""
    lines = content.decode("utf-8", "replace").splitlines()
    for node in ast.parse(content).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            return first, lines[first - 1 : node.end_lineno]
    return 1, lines


def require_alone(path: Path, tree: ast.Module) -> None:
    """Raises RewardError where the file imports something that lies beside it and is not installed."""
    for line, module in _imports(tree):
        if module.startswith("."):
            raise RewardError(
                f"{path}, line {line}: imports {module!r}, relative to itself: a file of reward functions is approved "
                "and frozen alone. Put what it needs into the file, or install it and import it by its full name"
            )
        first = module.partition(".")[0]
        beside = (path.parent / f"{first}.py").is_file() or (path.parent / first).is_dir()
        if beside and PathFinder.find_spec(first, _python_path(path.parent)) is None:
            raise RewardError(
                f"{path}, line {line}: imports {first}, which lies beside it and is not installed: a file of reward "
                "functions is approved and frozen alone. Put what it needs into the file, or install it"
            )


def _file_named(where: str, written: str) -> Path:
    if where.endswith(".py") or os.sep in where:
        path = Path(os.path.abspath(os.path.expanduser(where)))
        if not path.is_file():
            raise RewardError(f"--reward {written}: there is no file {path}; expected {EXPECTED}")
        return path
    found = _module_file(where)
    if found is None:
        raise RewardError(
            f"--reward {written}: no module {where} as a .py file in {Path.cwd()} or where Python looks; "
            f"expected {EXPECTED}"
        )
    return found


def _module_file(module: str) -> Path | None:
    """The .py file of a module. A package on the way is looked into and not imported."""
    places: list[str] | None = [str(Path.cwd()), *_python_path()]
    parts = module.split(".")
    origin: str | None = None
    for depth in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:depth]), places) if all(parts[:depth]) else None
        if spec is None:
            return None
        origin = spec.origin
        places = list(spec.submodule_search_locations) if spec.submodule_search_locations is not None else []
    return Path(os.path.abspath(origin)) if origin and origin.endswith(".py") and os.path.isfile(origin) else None


def _python_path(without: Path | None = None) -> list[str]:
    """Where the child will look for modules: not in the current folder."""
    here = {os.path.abspath(""), os.path.abspath(without) if without is not None else ""}
    installed = [one for one in sys.path if one]
    kept = [one for one in installed if os.path.abspath(one) not in here]
    # A folder that Python looks into in any case, as site-packages, counts though the file lies in it.
    return kept + [one for one in installed if one not in kept and Path(one).name in ("site-packages", "dist-packages")]


def _defined(tree: ast.Module) -> dict[str, str]:
    """Names at the top of the file: "def", "async", or "value" for what is assigned or imported."""
    found: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = "def"
        elif isinstance(node, ast.AsyncFunctionDef):
            found[node.name] = "async"
        elif isinstance(node, ast.ClassDef):
            found[node.name] = "value"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(one.asname or one.name.partition(".")[0]): "value" for one in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {one.id: "value" for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
    return found


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, module) of every import in the file, also inside functions; relative ones begin with dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, one.name) for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")
