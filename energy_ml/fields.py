"""Settings declared as dataclass fields: default, range, environment name and sentence on the field itself.

What belongs here: the declaration, the check by it, and the reader of layered sources (defaults < file < environment).
What doesn't: which settings there are (``config``).
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import datetime as dt
import difflib
import functools
import numbers
import os
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from energy_ml.errors import ConfigError

_T = TypeVar("_T")
_PREFIX = "ENERGY_ML_"
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True)
class Meaning:
    """What a field says of itself beside its type and default: limits are (sign, number) pairs."""

    sentence: str
    limits: tuple[tuple[str, float], ...] = ()
    choices: tuple[str, ...] = ()
    env: str | None = None
    secret: bool = False
    elsewhere: bool = False
    """Read with another table, under the name ``env``."""


def setting(
    default: _T,
    sentence: str,
    limits: str = "",
    *,
    choices: tuple[str, ...] = (),
    env: str | None = None,
    secret: bool = False,
    elsewhere: bool = False,
) -> _T:
    """A dataclass field that is a setting; ``limits`` as in ``"> 0, <= 1"``."""
    pairs = tuple((sign, float(number)) for sign, number in (part.split() for part in limits.split(",") if part))
    meta = {"setting": Meaning(sentence, pairs, choices, env, secret, elsewhere)}
    if isinstance(default, list):
        return field(default_factory=functools.partial(copy.copy, default), metadata=meta)
    return field(default=default, metadata=meta, repr=not secret)


def again(kind: type, name: str) -> Any:
    """The setting ``name`` of another dataclass once more, None where it isn't given."""
    return field(default=None, metadata={"setting": settings_of(kind)[name]})


def settings_of(kind: type, *, here: bool = False) -> dict[str, Meaning]:
    """The settings among the fields of a dataclass, in order; ``here`` leaves out those read with another table."""
    every = {f.name: f.metadata["setting"] for f in dataclasses.fields(kind) if "setting" in f.metadata}
    return {name: meaning for name, meaning in every.items() if not (here and meaning.elsewhere)}


def variable(kind: type, name: str) -> str:
    """Environment variable of a field: the class's ``ENV`` and the field's name, or the field's own; "" in a list."""
    if is_list(kind):
        return ""
    return _PREFIX + (settings_of(kind)[name].env or (kind.ENV + name).upper())  # type: ignore[attr-defined]


def is_list(kind: type) -> bool:
    """Whether the settings file holds a list of such entries (``[[name]]``) instead of one table."""
    return kind.ENV is None  # type: ignore[attr-defined]


def _default(kind: type, name: str) -> object:
    """The declared default of a field, lists made anew."""
    declared = next(f for f in dataclasses.fields(kind) if f.name == name)
    make = declared.default_factory
    return declared.default if make is dataclasses.MISSING else make()


def text_of(value: object) -> str:
    """A setting's value as the environment would give it; "none" for None."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else "none" if value is None else str(value)


def default_text(kind: type, name: str) -> str:
    """The default as Markdown."""
    value = _default(kind, name)
    return f"`{text_of(value)}`" if value not in (None, (), []) else "none"


def refuse(kind: type, name: str, value: object, expected: str, remedy: str | None = None) -> typing.NoReturn:
    """Raise the ConfigError that names field, variable, value and what would be right."""
    shown = f"has {len(str(value))} characters" if settings_of(kind)[name].secret else f"is {value!r}"
    where = variable(kind, name)
    named, both = (f"{name} ({where})", f"{name} or {where}") if where else (name, name)
    raise ConfigError(f"{named} {shown}", expected=expected, remedy=remedy or f"correct {both}")


@functools.cache
def _type_of(kind: type, name: str) -> tuple[type, type | None, bool]:
    """(type, item type of a list or tuple, whether None is allowed)."""
    hint = typing.get_type_hints(kind)[name]
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    (main,) = (option for option in options if option is not type(None))
    items = typing.get_args(main)
    return typing.get_origin(main) or main, items[0] if items else None, type(None) in options


def _words(kind: type, name: str) -> str:
    """What the field may be, in words."""
    main, item, optional = _type_of(kind, name)
    meaning = settings_of(kind)[name]
    one = {int: "a whole number", float: "a number", bool: "true or false", dt.date: "a date as YYYY-MM-DD"}
    said = one.get(main, "text")
    if item is not None:
        said = "distinct whole numbers with commas between" if item is int else "names with commas between"
    if meaning.choices:
        said = f"{'some' if item else 'one'} of {', '.join(meaning.choices)}"
    signs = {">": "above", ">=": "at least", "<": "below", "<=": "at most"}
    limits = " and ".join(f"{signs[sign]} {number:g}" for sign, number in meaning.limits)
    return said + (f", {limits}" if limits else "") + (", or none" if optional else "")


def _within(value: float, limits: tuple[tuple[str, float], ...]) -> bool:
    tests = {">": value.__gt__, ">=": value.__ge__, "<": value.__lt__, "<=": value.__le__}
    return all(tests[sign](number) for sign, number in limits)


def check(config: object) -> None:
    """Refuse a field whose value its declaration doesn't allow; None becomes the default where None means nothing."""
    kind: Any = type(config)
    for name, meaning in settings_of(kind).items():
        main, item, optional = _type_of(kind, name)
        value = getattr(config, name)
        if value is None:
            if optional:
                continue
            value = _default(kind, name)
            object.__setattr__(config, name, value)
        of = item or main
        values = list(value) if item is not None and not isinstance(value, str) else [value]
        number = {int: numbers.Integral, float: numbers.Real}.get(of)
        right = all(isinstance(v, number) and not isinstance(v, bool) for v in values) if number else True
        right = right and (of is not bool or isinstance(value, bool))
        right = right and (not number or all(_within(float(v), meaning.limits) for v in values))
        right = right and (not meaning.choices or set(values) <= set(meaning.choices))
        right = right and (item is None or len(set(values)) == len(values))
        if not right:
            refuse(kind, name, value, _words(kind, name))


def parse_date(text: str) -> dt.date:
    """A date as YYYY-MM-DD; ConfigError otherwise."""
    with contextlib.suppress(ValueError):
        date = dt.date.fromisoformat(text)
        if str(date) == text:  # Python knows more forms, partitions don't
            return date
    raise ConfigError(f"{text!r} isn't a date", expected="YYYY-MM-DD")


def _from_text(kind: type, name: str, text: str) -> object:
    main, item, optional = _type_of(kind, name)
    if optional and text.lower() in ("none", "all"):
        return None
    try:
        if item is not None:
            return main(item(part.strip()) for part in text.split(",") if part.strip())
        if main is bool:
            return _TRUTH[text.lower()]
        if main is dt.date:
            return dt.date.fromisoformat(text)
        if main is int and float(text) == int(float(text)):
            return int(float(text))
        return main(text)
    except (ValueError, KeyError, OverflowError):
        refuse(kind, name, text, _words(kind, name))


def _from_file(kind: type, name: str, value: object) -> object:
    main, item, _ = _type_of(kind, name)
    if item is not None and isinstance(value, list):
        return main(value)
    if main is dt.date and isinstance(value, str):
        return _from_text(kind, name, value)
    good: Any = {float: (int, float), int: int, bool: bool, str: str, dt.date: dt.date}.get(main)
    if good is None or not isinstance(value, good) or (isinstance(value, bool) and main is not bool):
        refuse(kind, name, value, _words(kind, name), f"correct {name} in the settings file")
    return value


def read_file(path: Path, tables: Mapping[str, type], renamed: Mapping[str, str]) -> dict[str, Any]:
    """The tables of a settings file, lists of them for ``[[name]]``; a single table may have its former name.

    Raises ConfigError naming an unknown entry and the nearest known one.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        both = [f"; beside [[{old}]] the table [{old}] is [{new}]" for old, new in renamed.items() if old in str(e)]
        raise ConfigError(
            f"the settings file {path} can't be read: {e}",
            remedy=f"correct it or unset ENERGY_ML_CONFIG{''.join(both)}",
        ) from e
    for old, new in renamed.items():
        if isinstance(found.get(old), dict):
            found[new] = found.pop(old) | found.get(new, {})
    for table, entries in found.items():
        _known(path, table, list(tables), "table")
        several = is_list(tables[table])
        shape = f"[[{table}]]" if several else f"[{table}]"
        every = entries if isinstance(entries, list) else [entries]
        if isinstance(entries, list) != several or not all(isinstance(one, dict) for one in every):
            raise ConfigError(f"{table} in {path} is {entries!r}", expected=f"a table {shape}", remedy="correct it")
        names = list(settings_of(tables[table], here=True))
        for one in every:
            for name in one:
                _known(path, name, names, f"entry of {shape}" + (f" {one.get('name')!r}" if several else ""))
    return found


def _known(path: Path, name: str, names: list[str], what: str) -> None:
    if name not in names:
        near = difflib.get_close_matches(name, names, 1, 0.0)
        raise ConfigError(
            f"{name!r} in {path} is no {what}", expected=", ".join(names), remedy=f"did you mean {near[0]!r}?"
        )


def given(kind: type, entries: Mapping[str, object], environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The values that file (``entries``) and environment set, the latter first; what is unset keeps its default."""
    env = os.environ if environ is None else environ
    values = {}
    for name in settings_of(kind, here=True):
        if text := env.get(variable(kind, name), "").strip():
            values[name] = _from_text(kind, name, text)
        elif name in entries:
            values[name] = _from_file(kind, name, entries[name])
    return values


def table_schema(kind: type) -> dict[str, object]:
    """JSON schema of one table: type, range, choices and sentence of each entry."""
    types_ = {int: "integer", float: "number", bool: "boolean"}
    limits = {">": "exclusiveMinimum", ">=": "minimum", "<": "exclusiveMaximum", "<=": "maximum"}
    entries: dict[str, object] = {}
    for name, meaning in settings_of(kind, here=True).items():
        main, item, _ = _type_of(kind, name)
        one: dict[str, object] = {"type": types_.get(item or main, "string")}
        one |= {limits[sign]: number for sign, number in meaning.limits}
        if meaning.choices:
            one["enum"] = list(meaning.choices)
        entry = one if item is None else {"type": "array", "items": one, "uniqueItems": True}
        entries[name] = entry | {"description": meaning.sentence}
    return {"type": "object", "additionalProperties": False, "properties": entries}
