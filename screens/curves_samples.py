"""The samples of a run on Curves: what its model said, step by step.

Owns which place is looked at and how its answers are laid out. Invariant: at the newest place it follows; what comes
then is shown by itself.
"""

from __future__ import annotations

from collections.abc import Iterable

from textual.containers import Container
from textual.widget import Widget

from engine.run.metrics_log import Supersession
from screens.line import Line
from screens.text_view import Block, TextView
from workbench.run_samples import Place, RunSamples, Sample, summary_of

SHOWN_SAMPLES = 64


class SamplesPage(Container):
    """The samples of one place, with a line above that says which."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._samples: RunSamples | None = None
        self._superseded = Supersession()
        self._place: Place | None = None
        """Where in the samples; None follows the newest."""

    def compose(self) -> Iterable[Widget]:
        yield Line(id="place")
        yield TextView(id="samples-text")

    def show_run(self, samples: RunSamples | None) -> None:
        """Show another run, from its newest place on."""
        self._samples, self._place = samples, None

    def show(self, superseded: Supersession) -> None:
        """Show what there is now."""
        self._superseded = superseded
        places = self._places()
        line, page = self.query_one("#place", Line), self.query_one("#samples-text", TextView)
        if not places or self._samples is None:
            line.show(("no samples yet: they come with the probe", "$text-muted"))
            page.show([])
            return
        at = self._at(places)
        place = places[at]
        found = self._samples.at(place, superseded)
        where = f"step {place[0]:,} · {place[1]}"
        line.show((where, "bold"), f" · {at + 1} of {len(places)} · {summary_of(found)}")
        page.show(_sample_blocks(found))

    def step(self, by: int) -> None:
        """Go to another place."""
        if places := self._places():
            wanted = max(0, min(len(places) - 1, self._at(places) + by))
            self._place = None if wanted == len(places) - 1 else places[wanted]
            self.show(self._superseded)

    def _places(self) -> list[Place]:
        return [] if self._samples is None else self._samples.places(self._superseded)

    def _at(self, places: list[Place]) -> int:
        return places.index(self._place) if self._place in places else len(places) - 1


def _sample_blocks(samples: list[Sample]) -> list[Block]:
    blocks: list[Block] = []
    for sample in samples[:SHOWN_SAMPLES]:
        blocks += [
            Block(sample.prompt, "faint"), Block(sample.completion or "(nothing)", "plain", 2),
            Block(sample.figures, "accent", 2), Block(""),
        ]  # fmt: skip
    if len(samples) > SHOWN_SAMPLES:
        blocks.append(Block(f"and {len(samples) - SHOWN_SAMPLES:,} more in samples.jsonl", "faint"))
    return blocks
