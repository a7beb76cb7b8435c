"""How prices and times are written for people: their currency, their time zone.

What belongs here: the words, and which of them a reader gets. What doesn't: numbers and instants themselves, which stay
as they are, in UTC.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import zoneinfo
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class Display:
    """A reader's currency and IANA time zone.

    >>> paris = Display("EUR", "Europe/Paris")
    >>> paris.price, paris.minute(dt.datetime(2026, 7, 1, 22, 30, tzinfo=dt.UTC))
    ('EUR/MWh', '2026-07-02 00:30')
    """

    currency: str = "currency"
    zone: str = "UTC"

    @property
    def price(self) -> str:
        """Unit of prices."""
        return f"{self.currency}/MWh"

    def local(self, moment: dt.datetime) -> dt.datetime:
        """The same instant (aware) on the reader's clock."""
        return moment.astimezone(zoneinfo.ZoneInfo(self.zone))

    def minute(self, moment: dt.datetime | str | None) -> str | None:
        """Date and minute of an aware instant, or of its ISO text, on the reader's clock; None stays None."""
        if moment is None:
            return None
        return f"{self.local(dt.datetime.fromisoformat(moment) if isinstance(moment, str) else moment):%Y-%m-%d %H:%M}"


def shown_names(names: Iterable[str], most: int = 12) -> str:
    """Names in order, of very many the first few and how many follow.

    >>> shown_names(["b", "c", "a"], most=2)
    'a, b and 1 more'
    """
    every = sorted(map(str, names))
    more = f" and {len(every) - most:,} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


_shown: ContextVar[Display] = ContextVar("display")


def shown() -> Display:
    """What the present reader gets; UTC and "currency" where nobody said."""
    return _shown.get(Display())


@contextlib.contextmanager
def showing(display: Display) -> Iterator[None]:
    """Write for this reader within the block."""
    token = _shown.set(display)
    try:
        yield
    finally:
        _shown.reset(token)
