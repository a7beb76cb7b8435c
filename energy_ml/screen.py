"""What is seen of a run while it is under way: on a terminal bars and the time left, elsewhere a line for each step.

What belongs here: drawing. What doesn't: running, and which steps there are.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from energy_ml.progress import ProgressLog


@contextlib.contextmanager
def own_screen() -> Iterator[Console]:
    """A console on a duplicate of descriptor 2, which Dagster turns to a step's log while the step runs.

    On a terminal, descriptor 2 itself is turned away for as long: what steps and Dagster's helpers write there would
    tear the bars, and lies in the steps' logs.
    """
    with os.fdopen(os.dup(2), "w") as own, contextlib.ExitStack() as stack:
        console = Console(file=own, highlight=False)
        if console.is_terminal:
            away = os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, away)
            stack.callback(os.dup2, own.fileno(), 2)
            os.dup2(away, 2)
        yield console


class NightScreen(Progress):
    """The steps of one run: ``with NightScreen(...) as screen: ... screen.step(name, state)``.

    Parameters
    ----------
    console
        Where to draw.
    title
        What the bar of the whole run says.
    steps
        Name of each step to its share of the time, in any unit, and the model whose progress tells how far it is.
    log
        Where models tell their progress.
    """

    def __init__(
        self, console: Console, title: str, steps: Mapping[str, tuple[float, str | None]], log: ProgressLog
    ) -> None:
        self._steps, self._log, self._mark = steps, log, ""
        self._rows: dict[str, tuple[TaskID, float]] = {}
        self._done = dict.fromkeys(steps, 0.0)
        super().__init__(
            TextColumn("{task.description:<36}"),
            BarColumn(24),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal or console.is_dumb_terminal,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            refresh_per_second=4,
            speed_estimate_period=3600,
        )
        self._whole = self.add_task(title, total=sum(share for share, _ in steps.values()))

    def step(self, name: str, state: str) -> None:
        """A step is ``running``, ``completed`` or ``failed``."""
        if state == "running":
            told = self._steps[name][1]
            self._rows[name] = self.add_task(f"  {_path(name)}", total=1.0 if told else None), time.monotonic()
        elif name in self._rows:
            row, began = self._rows.pop(name)
            self.remove_task(row)
            self._advance(name, 1.0)
            failed = "  failed" if state == "failed" else self._note(name)
            self.console.print(f"{_path(name):<36}{time.monotonic() - began:7.1f} s{failed}", soft_wrap=True)

    def get_renderables(self) -> Iterable[RenderableType]:
        """The rows, moved on by what the models have told since."""
        events, self._mark = self._log.read(self._mark)
        name_of = {told: name for name, (_, told) in self._steps.items()}
        for event in events:
            name = name_of.get(event.model_id)
            if name in self._rows:
                self.update(self._rows[name][0], completed=event.progress)
                self._advance(name, event.progress)
        yield from super().get_renderables()

    def _advance(self, name: str, done: float) -> None:
        self._done[name] = done
        self.update(self._whole, completed=sum(self._steps[name][0] * done for name, done in self._done.items()))

    def _note(self, name: str) -> str:
        event = self._log.latest().get(self._steps[name][1] or "")
        numbers = event.metrics.items() if event else ()
        return "".join(f"  {key} {value:.3g}" for key, value in numbers if isinstance(value, float | int))


def _path(name: str) -> str:
    return name.replace("__", "/")
