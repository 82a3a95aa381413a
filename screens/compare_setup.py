"""What is compared: the models, the prompts, and the few settings, as three lists.

Owns the picks while they are made. It asks nobody: it says `Asked` where the person wants the answers. Which setups can
be asked at all is `workbench.side_by_side`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from textual import on
from textual.containers import Vertical
from textual.events import Resize
from textual.message import Message
from textual.widget import Widget

from screens.line import Line
from screens.modals import AskText
from screens.row_list import Column, Row, RowList
from workbench.known_models import KnownModel
from workbench.side_by_side import FEWEST, MOST, MOST_PROMPTS, PromptChoice, Setup

MODELS = (Column(""), Column("model", longest=44), Column("what", flexible=True), Column("from", longest=24, drop=1))
PROMPTS = (Column(""), Column("prompts", longest=44), Column("rows", right=True), Column("what", flexible=True))
SETTINGS = (Column("setting"), Column("value", longest=12), Column("what", flexible=True))
LIMITS: dict[str, tuple[str, Callable[[str], Any], float, float, str]] = {
    "count": ("prompts", int, 1, MOST_PROMPTS, "the first ones are asked"),
    "temperature": ("temperature", float, 0, 100, "0 is greedy: always the likeliest token"),
    "max_new_tokens": ("longest answer", int, 1, 10**6, "tokens; a longer answer is cut off"),
    "seed": ("seed", int, 0, 2**31, "the same seed gives the same answers"),
}
"""Setting → what it is called, its kind, least, most, and what it means."""


class Settings(RowList):
    """The settings; a filter is about models and prompts, so these rows stay."""

    def filter(self, text: str) -> None:
        pass


class SetupPane(Vertical):
    """The picks, and the row that asks."""

    DEFAULT_CSS = """
    SetupPane > #settings { height: 5; }
    """

    class Asked(Message):
        """The person wants the answers."""

    class Changed(Message):
        """Another setup was picked."""

    lists: ClassVar[tuple[str, ...]] = ("models", "prompts", "settings")

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.setup = Setup()
        self._models: tuple[KnownModel, ...] = ()
        self._prompts: tuple[PromptChoice, ...] = ()

    def compose(self) -> Iterable[Widget]:
        yield Line(id="models-title")
        yield RowList(MODELS, titles=False, empty="no models are here", waits=True, id="models")
        yield Line(id="prompts-title")
        yield RowList(
            PROMPTS,
            titles=False,
            empty="nothing here has prompts; add a dataset at the data station",
            waits=True,
            id="prompts",
        )
        yield Line(id="settings-title")
        yield Settings(SETTINGS, titles=False, empty="", id="settings")

    def on_resize(self, event: Resize) -> None:
        self._fit()

    def offer(self, models: Sequence[KnownModel], prompts: Sequence[PromptChoice]) -> None:
        """What there is to choose from."""
        self._models, self._prompts = tuple(models), tuple(prompts)
        self._draw()

    def take(self, setup: Setup) -> None:
        """Pick this."""
        self.setup = setup
        self._draw()
        self.post_message(self.Changed())

    def focus_first(self) -> None:
        """Put the focus where the person goes on: at "ask" where all is picked, else at what is missing."""
        if not self.setup.problem():
            self.query_one("#settings", RowList).move_to("ask")
            self.query_one("#settings").focus()
        else:
            ready = len(self.setup.models) >= FEWEST
            self.query_one("#prompts" if ready else "#models").focus()

    def pick(self) -> None:
        """Pick, or put back, what is under the cursor."""
        focused = self.screen.focused
        if isinstance(focused, RowList) and focused.id in self.lists and focused.key:
            self._chosen(focused.id or "", focused.key)

    def add_model(self, written: str) -> None:
        """Pick a model that was typed."""
        name = written.strip()
        if name and name not in self.setup.models:
            known = {model.name for model in self._models}
            if name not in known:
                self._models = (*self._models, KnownModel(name, "named here", ""))
            self.take(replace(self.setup, models=(*self.setup.models, name)))

    @on(RowList.Opened)
    def _opened(self, event: RowList.Opened) -> None:
        event.stop()
        self._chosen(event.rows.id or "", event.key)

    def on_descendant_focus(self) -> None:
        self._draw_titles()

    def on_descendant_blur(self) -> None:
        self._draw_titles()

    def _chosen(self, which: str, key: str) -> None:
        if which == "models":
            picked = self.setup.models
            models = tuple(name for name in picked if name != key) if key in picked else (*picked, key)
            self.take(replace(self.setup, models=models))
        elif which == "prompts":
            self.take(replace(self.setup, prompts=key))
        elif key == "ask":
            self.post_message(self.Asked())
        else:
            self._ask_setting(key)

    def _ask_setting(self, key: str) -> None:
        name, kind, least, most, what = LIMITS[key]

        def check(text: str) -> str:
            try:
                value = kind(text.strip())
            except ValueError:
                value = None
            return "" if value is not None and least <= value <= most else f"a number from {least:g} to {most:,}"

        def take(answer: str | None) -> None:
            if answer is not None:
                self.take(replace(self.setup, **{key: kind(answer.strip())}))

        question = AskText(f"{name}: {what}", value=f"{getattr(self.setup, key)}", check=check)
        self.app.push_screen(question, take)

    def _draw(self) -> None:
        if not self.is_mounted:
            return
        picked = self.setup.models
        self.query_one("#models", RowList).show(
            [
                Row(
                    model.name,
                    (_mark(model.name, picked), model.name, model.what, model.origin),
                    _tone(model.name, picked),
                )
                for model in self._models
            ]
        )
        self.query_one("#prompts", RowList).show(
            [
                Row(one.name, ("●" if one.name == self.setup.prompts else "○", one.name, f"{one.rows:,}", one.what))
                for one in self._prompts
            ]
        )
        rows = [Row(key, (name, str(getattr(self.setup, key)), what)) for key, (name, _, _, _, what) in LIMITS.items()]
        problem = self.setup.problem()
        asks = f"{len(picked)} models, the first {self.setup.count:,} prompts of {self.setup.prompts}"
        rows.append(Row("ask", ("ask", "", problem or asks), "faint" if problem else "busy"))
        self.query_one("#settings", RowList).show(rows)
        self._fit()
        self._draw_titles()

    def _fit(self) -> None:
        """Each list as high as it is long; where that is too much, the models have the larger share."""
        room = self.size.height - len(self.lists) - len(LIMITS) - 1
        models, prompts = max(1, len(self._models)), max(1, len(self._prompts))
        gap = 1 if models + prompts + 2 <= room else 0
        room -= 2 * gap
        prompts_least = min(prompts, max(2, room * 2 // 5))
        models = max(1, min(models, room - prompts_least))
        for name, high in (("models", models), ("prompts", max(1, min(prompts, room - models)))):
            rows = self.query_one(f"#{name}", RowList)
            rows.styles.height, rows.styles.margin = high, (0, 0, gap, 0)

    def _draw_titles(self) -> None:
        if not self.is_mounted:
            return
        count = len(self.setup.models)
        titles = {
            "models": ("models", f" · {count} picked" if count else "", f" · space picks {FEWEST} to {MOST}"),
            "prompts": ("prompts", f" · {self.setup.prompts}" if self.setup.prompts else "", ""),
            "settings": ("settings", "", " · enter changes one"),
        }
        for name, (title, state, hint) in titles.items():
            here = self.query_one(f"#{name}").has_focus
            style = "bold $primary" if here else "$text-muted"
            mark = "▸ " if here else "  "
            self.query_one(f"#{name}-title", Line).show((mark + title, style), state, (hint, "$text-muted"))


def _mark(name: str, picked: Sequence[str]) -> str:
    """The place of a pick, which is its column among the answers."""
    return f"● {picked.index(name) + 1}" if name in picked else "○  "


def _tone(name: str, picked: Sequence[str]) -> str:
    return "good" if name in picked else ""
