"""The domain without a terminal: workspaces, datasets, pairs, judgments, preference sets, runs and comparisons.

    import workbench as wb
    ws = wb.open("~/my-workspace")
    for row in ws.dataset("hh").rows(): ...
    ws.run("-").metrics()

Never loads torch and draws nothing. Importing it loads nothing at all: a command must be able to guard itself against
Ctrl+C before anything else is imported (`workbench.__main__`).
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing's, which takes 10 ms to import
if TYPE_CHECKING:
    from workbench.python_api import Workspace, open

__all__ = ["Workspace", "open"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from workbench import python_api

    found: object = getattr(python_api, name)
    return found
