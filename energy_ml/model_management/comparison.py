"""The promotion rule: pure functions that say, with numbers and in words, whether a candidate should become champion.

What belongs here: comparing two versions. What doesn't: making the scores and acting on the decision (``registry``).

Candidate and champion are scored on the same, newest test window. The candidate is promoted if its as-of date isn't
older, its improvement exceeds ``min_improvement`` and the one-sided p-value of "it is no better" is at most
``max_p_value``. Where there is no champion yet, the opponent is the baseline: "price stays", or holding.

The defaults ask for a better mean alone: each night's candidate comes from the same recipe, so swapping equals costs
nothing, while asking 36 hours for significance would keep a stale champion until its loss is plain. An exact tie keeps
the champion. To refresh ties too, make ``min_improvement`` negative; to demand evidence, lower ``max_p_value``.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from energy_ml.arrays import Floats
from energy_ml.config import PromotionConfig
from energy_ml.errors import PromotionError
from energy_ml.evaluation.bootstrap import BlockBootstrap
from energy_ml.evaluation.metrics import diebold_mariano

AsOf = dt.date | str | None
Numbers = dict[str, Any]
"""What a decision rests on: plain floats, ints and days."""


@dataclass(frozen=True)
class Decision:
    """Whether to promote, why in one readable sentence, and the numbers that it rests on."""

    promote: bool
    reason: str
    numbers: Numbers = field(default_factory=dict)


def compare_price_models(
    errors_candidate: npt.ArrayLike,
    errors_champion: npt.ArrayLike | None,
    *,
    errors_naive: npt.ArrayLike | None = None,
    horizon_steps: int = 1,
    as_of_candidate: AsOf = None,
    as_of_champion: AsOf = None,
    rule: PromotionConfig | None = None,
) -> Decision:
    """Decide by mean absolute error and the Diebold–Mariano test.

    Parameters
    ----------
    errors_candidate, errors_champion, errors_naive : forecast errors (currency/MWh) of the same forecasts in time
        order, shape (T,) or (T, R) for R regions; pairs in which the opponent's isn't finite are left out. None for the
        champion when there is none.
    horizon_steps : how many steps ahead was forecast, for the test's overlap.
    as_of_candidate, as_of_champion : the days they were trained for.

    Raises PromotionError when shapes differ or there is nothing to compare with.

    Examples
    --------
    >>> errors = np.tile([3.0, -1.0, 2.0, -4.0], 25)
    >>> decision = compare_price_models(0.9 * errors, errors)
    >>> decision.promote, decision.reason[:56]
    (True, 'Promoted: mean absolute error 2.25 against 2.5 of the ch')
    """
    rule = rule or PromotionConfig()

    def p_value(own: Floats, other: Floats, numbers: Numbers) -> float:
        test = diebold_mariano(own, other, horizon=horizon_steps)
        numbers["dm_statistic"] = test.statistic
        return test.p_value / 2 if test.statistic < 0 else 1 - test.p_value / 2

    return _compare(
        errors_candidate,
        errors_champion,
        errors_naive,
        days=(as_of_candidate, as_of_champion),
        rule=rule,
        least=max(rule.min_observations, horizon_steps + 1),
        summed=False,
        words=("mean absolute error", "'price stays'", "Diebold-Mariano"),
        p_value=p_value,
    )


def compare_policies(
    profit_candidate: npt.ArrayLike,
    profit_champion: npt.ArrayLike | None,
    *,
    as_of_candidate: AsOf = None,
    as_of_champion: AsOf = None,
    rule: PromotionConfig | None = None,
) -> Decision:
    """Decide by profit and a block bootstrap of its difference.

    Parameters
    ----------
    profit_candidate, profit_champion : money earned (currency, after wear and fees) at each step of the same backtest,
        shape (T,), or (T, R) for R regions or batteries, which are summed. A step may be an interval or a day; finer
        steps leave the test more to work with. None for the champion when there is none.

    The p-value is the share of resampled series (blocks of √T steps) in which the candidate earns no more. Raises
    PromotionError when shapes differ.
    """
    rule = rule or PromotionConfig()

    def p_value(own: Floats, other: Floats, numbers: Numbers) -> float:
        numbers["block"] = math.isqrt(own.size)
        draws = BlockBootstrap(own.size, numbers["block"], rule.bootstrap_samples, rule.random_state)
        return draws.p_value(own - other)

    return _compare(
        profit_candidate,
        profit_champion,
        np.zeros(np.shape(profit_candidate)),
        days=(as_of_candidate, as_of_champion),
        rule=rule,
        least=2,
        summed=True,
        words=("profit", "holding", "block bootstrap"),
        p_value=p_value,
    )


def compare_metadata(
    a: Mapping[str, object], b: Mapping[str, object]
) -> tuple[dict[str, dict[str, float | None]], dict[str, dict[str, object]]]:
    """Two versions' metadata side by side, by dotted name: every number (``a``, ``b``, ``difference``, b − a), and what
    else differs (``a``, ``b``); None where there is none."""
    first, second = dict(_leaves(a)), dict(_leaves(b))
    numbers: dict[str, dict[str, float | None]] = {}
    others: dict[str, dict[str, object]] = {}
    for name in sorted(first.keys() | second.keys()):
        x, y = first.get(name), second.get(name)
        if _is_number(x) or _is_number(y):
            m, n = x if _is_number(x) else None, y if _is_number(y) else None
            numbers[name] = {"a": m, "b": n, "difference": None if m is None or n is None else n - m}
        elif x != y:
            others[name] = {"a": x, "b": y}
    return numbers, others


def numbers_of(value: object) -> dict[str, float]:
    """Every number in nested mappings, by dotted name."""
    return {name: leaf for name, leaf in _leaves(value) if _is_number(leaf)}


def _leaves(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _compare(
    candidate: npt.ArrayLike,
    champion: npt.ArrayLike | None,
    baseline: npt.ArrayLike | None,
    *,
    days: tuple[AsOf, AsOf],
    rule: PromotionConfig,
    least: int,
    summed: bool,
    words: tuple[str, str, str],
    p_value: Callable[[Floats, Floats, Numbers], float],
) -> Decision:
    """Judge by the mean of absolute errors, or by the sum of profits where that is what is ``summed``.

    ``words``: what is compared, the baseline and the test by name; ``least``: the fewest steps that are enough.
    ``p_value`` is of one number per step of both, and may add to the numbers on record.
    """
    if refused := _too_old(*days):
        return refused
    if champion is None and not rule.require_beats_naive:
        return Decision(True, "Promoted: the first version, and the settings ask for no comparison with the baseline")
    opponent = baseline if champion is None else champion
    if opponent is None:
        raise PromotionError(
            "There is no champion and no 'price stays' errors",
            expected="the baseline, which the first version has to beat",
            remedy="give it, or set require_beats_naive to False",
        )
    x, y = np.asarray(candidate, dtype=np.float64), np.asarray(opponent, dtype=np.float64)
    if x.shape != y.shape or x.ndim not in (1, 2):
        raise PromotionError(
            f"candidate and opponent have the shapes {x.shape} and {y.shape}",
            expected="one shape, (T,) or (T, R), of the same forecasts or steps",
            remedy="score both on the same test window",
        )
    # A candidate without a finite answer where the opponent has one loses: leaving such steps out would reward it.
    if missing := int((np.isfinite(y) & ~np.isfinite(x)).sum()):
        reason = f"Not promoted: the candidate gives no finite answer at {missing:,} steps where the opponent does"
        return Decision(False, reason, {"unanswered": missing})
    what, holder, test_name = words
    of_regions, of_steps = (np.nansum, np.sum) if summed else (np.nanmean, np.mean)
    x, y = (np.atleast_2d((values if summed else np.abs(values)).T).T for values in (x, y))
    known = np.isfinite(x) & np.isfinite(y)
    own, other = (of_regions(np.where(known, v, np.nan)[known.any(axis=1)], axis=1) for v in (x, y))
    numbers: Numbers = {"steps": own.size}
    if own.size:
        numbers |= {"candidate": float(of_steps(own)), "opponent": float(of_steps(other))}
    names = ("as_of_candidate", "as_of_champion")
    numbers |= {name: _day(day) for name, day in zip(names, days, strict=True) if day is not None}
    if own.size < least:
        return Decision(
            False, f"Not promoted: only {own.size} steps to compare on, at least {least} are needed", numbers
        )
    gain = numbers["candidate"] - numbers["opponent"]
    improvement = numbers["improvement"] = _relative(gain if summed else -gain, numbers["opponent"])
    p = numbers["p_value"] = p_value(own, other, numbers)
    numbers |= {"min_improvement": rule.min_improvement, "max_p_value": rule.max_p_value}
    change = ("better" if improvement > 0 else "worse") if improvement else "no difference"
    if improvement and math.isfinite(improvement):
        change = f"{abs(improvement):.2%} {change}"
    who = holder if champion is None else "the champion"
    text = (
        f"{what} {numbers['candidate']:.4g} against {numbers['opponent']:.4g} of {who}: {change} over "
        f"{own.size:,} steps, p {p:.3g} ({test_name})"
    )
    if not improvement > rule.min_improvement:
        return Decision(False, f"Not promoted: {text}; must exceed {rule.min_improvement:.2%}", numbers)
    if not p <= rule.max_p_value:
        return Decision(False, f"Not promoted: {text}; p must be at most {rule.max_p_value:g}", numbers)
    return Decision(True, f"Promoted: {text}", numbers)


def _too_old(candidate: AsOf, champion: AsOf) -> Decision | None:
    if champion is None:
        return None
    if candidate is None:
        reason = f"Not promoted: the candidate has no as-of date, the champion is of {_day(champion)}"
        return Decision(False, reason, {"as_of_champion": _day(champion)})
    numbers = {"as_of_candidate": _day(candidate), "as_of_champion": _day(champion)}
    if _day(candidate) < _day(champion):
        reason = f"Not promoted: the candidate is of {_day(candidate)}, older than the champion of {_day(champion)}"
        return Decision(False, f"{reason}; a backfill never dethrones a newer champion", numbers)
    return None


def _relative(gain: float, base: float) -> float:
    if gain == 0:
        return 0.0
    return gain / abs(base) if base else math.copysign(math.inf, gain)


def _day(value: AsOf) -> str:
    if isinstance(value, dt.datetime):
        value = value.date()
    try:
        return (value if isinstance(value, dt.date) else dt.date.fromisoformat(str(value))).isoformat()
    except ValueError:
        raise PromotionError(
            f"{value!r} is no as-of date", expected="YYYY-MM-DD", remedy="correct the version's metadata"
        ) from None
