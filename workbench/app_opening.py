"""The one door from the command line to the screens.

Owns `open_app`, the only place of this package that imports `screens`; Textual is loaded here and nowhere else.
"""

from __future__ import annotations

from workbench.workspace import Workspace


def open_app(
    workspace: Workspace,
    *,
    station: str = "home",
    subject: str = "",
    annotator: str = "",
    mouse: bool = True,
    guided: bool = False,
    only: bool = False,
) -> int:
    """Run the app on a terminal until it is left; its exit code. UsageError where there is no terminal to draw on."""
    from screens import start

    return start.open_app(
        workspace, station=station, subject=subject, annotator=annotator, mouse=mouse, guided=guided, only=only
    )
