"""Which regions a region is compared with: all others of a small market, its zone's and the nearest few of a large one.

What belongs here: choosing, and laying a choice out for the regions of a panel. What doesn't: the comparisons.

A market of thousands of nodes can't compare all pairs. Its nodes are put into zones, those that ``nodes.parquet`` names
or those that move together, and each is given the few of its zone whose prices are nearest on a sample. A choice is
a text: it is part of a model and goes with its features, so that live and batch rows compare the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from threadpoolctl import threadpool_limits

from energy_ml.arrays import Booleans, Floats, Integers

HANDFUL = 16
"""Up to so many regions each is compared with all others, and nothing is chosen."""
NEAREST = 8
LARGEST_ZONE, LARGEST_FOUND = 512, 128
"""Nodes of a named zone and of one that is found; larger ones are halved."""
SAMPLE_DAYS, SAMPLE = 2, 300
"""A choice looks at so many instants, evenly spread over the first days of what it is made for: what is judged later
must not choose."""
ATTRIBUTE = "neighbours"
"""Where a features frame keeps its choice, in ``attrs``."""


@dataclass(frozen=True)
class Compared:
    """Which of R regions are compared: ``peers`` (R,) may be others at all; ``order`` (R,) are their places zone by
    zone, zone z from ``bounds[z]`` on; ``candidates`` (R, K) for the nearest, ascending, -1 behind the last."""

    peers: Booleans
    order: Integers
    bounds: Integers
    candidates: Integers

    @classmethod
    def all_pairs(cls, peers: Booleans) -> Compared:
        """Everyone with every other one that is a peer."""
        every = [np.flatnonzero(peers & (np.arange(len(peers)) != own)) for own in range(len(peers))]
        return cls(peers, np.arange(len(peers)), np.array([0, len(peers)]), _padded(every))

    @property
    def zones(self) -> list[Integers]:
        """Places of each zone's regions."""
        return np.split(self.order, self.bounds[1:-1])


def _padded(lists: Sequence[Integers]) -> Integers:
    out = np.full((len(lists), max(map(len, lists), default=0)), -1, dtype=np.int64)
    for row, places in zip(out, lists, strict=True):
        row[: len(places)] = places
    return out


@lru_cache(maxsize=64)
def compared(regions: tuple[str, ...], peers: tuple[str, ...] | None, choice: str | None) -> Compared:
    """The layout of a ``choice`` (None: all pairs) for ``regions``; ``peers`` are those that count as others (None:
    all). A region that the choice doesn't know has no others."""
    others = set(regions if peers is None else peers)
    mask = np.array([name in others for name in regions], dtype=bool)
    if choice is None:
        return Compared.all_pairs(mask)
    place = {name: number for number, name in enumerate(regions)}
    zones: list[list[int]] = []
    nearest: list[Integers] = [np.empty(0, dtype=np.int64)] * len(regions)
    for names, near in json.loads(choice):
        here = [place.get(name, -1) for name in names]
        for own, others in zip(here, near, strict=True):
            if own >= 0:
                nearest[own] = np.array(sorted(here[n] for n in others if here[n] >= 0 and mask[here[n]]), np.int64)
        zones.append(sorted(own for own in here if own >= 0))
    known = {own for zone in zones for own in zone}
    zones = [zone for zone in zones if zone] + [[own] for own in range(len(regions)) if own not in known]
    bounds = np.cumsum([0, *map(len, zones)])
    return Compared(mask, np.array([own for zone in zones for own in zone]), bounds, _padded(nearest))


def choose(prices: Floats, regions: Sequence[str], zone_of: Mapping[str, str] | None = None) -> str | None:
    """The choice for ``regions`` by their ``prices`` (T, R), NaN where unknown; None for a handful of regions.

    ``zone_of`` names zones; the nodes it doesn't name, and zones with one node, are put into zones that are found.
    """
    if len(regions) <= HANDFUL:
        return None
    from scipy.spatial.distance import cdist  # here, so that a forecast for a handful doesn't load scipy

    sample = prices[np.unique(np.linspace(0, len(prices) - 1, SAMPLE).astype(np.int64))]
    known = np.isfinite(sample)
    number = known.sum(axis=1, keepdims=True)
    middle = np.where(known, sample, 0.0).sum(axis=1, keepdims=True) / np.maximum(number, 1)
    sample = np.where(known, sample, middle)
    groups: dict[str, list[int]] = {}
    for own, name in enumerate(regions):
        groups.setdefault((zone_of or {}).get(name, ""), []).append(own)
    alone = [zone for zone, members in groups.items() if zone and len(members) == 1]
    rest = sorted([own for zone in ["", *alone] for own in groups.pop(zone, [])])
    zones = [half for zone in groups.values() for half in _halved(sample, np.array(zone), LARGEST_ZONE)]
    zones += _halved(sample, np.array(rest), LARGEST_FOUND) if rest else []
    found = []
    for zone in sorted(zones, key=lambda places: int(places[0])):
        distance = cdist(sample[:, zone].T, sample[:, zone].T, "cityblock")
        np.fill_diagonal(distance, np.inf)
        order = np.argsort(distance, axis=1, kind="stable")[:, : min(NEAREST, len(zone) - 1)]
        found.append(([regions[own] for own in zone], np.sort(order, axis=1).tolist()))
    return json.dumps(found, separators=(",", ":"))


def _halved(sample: Floats, places: Integers, most: int) -> list[Integers]:
    """``places`` in parts of at most ``most``, halved along what best tells their prices apart."""
    if len(places) <= most:
        return [places]
    from scipy.linalg import eigh

    own = sample[:, places] - sample[:, places].mean(axis=1, keepdims=True)
    own = own - own.mean(axis=0)
    own /= np.maximum(own.std(axis=0), 1e-9)
    # The first principal component of correlations.
    with threadpool_limits(1, user_api="blas"):
        _, vectors = eigh(own @ own.T, subset_by_index=[len(own) - 1, len(own) - 1])
        side = np.argsort(vectors[:, 0] @ own, kind="stable")
    halves = (np.sort(places[side[: len(side) // 2]]), np.sort(places[side[len(side) // 2 :]]))
    return [part for half in halves for part in _halved(sample, half, most)]
