"""What Dagster's own command line is asked for, in the process that loads the definitions for it.

What belongs here: reading the options of ``dagster asset materialize`` and refusing impossible ones in one line, where
Dagster prints a traceback. What doesn't: how a run does several days (``steps``).
"""

import dagster as dg

from energy_ml.config import Settings
from energy_ml.errors import ConfigError
from energy_ml.fields import parse_date
from energy_ml.orchestration.private import ClickException, get_current_context


def backfill_policy() -> dg.BackfillPolicy | None:
    """One run per day, but for a range from the shell: Dagster starts that only where one run may hold all."""
    return dg.BackfillPolicy.single_run() if _asked("partition_range") else None


def check_asked(definitions: dg.Definitions, settings: Settings) -> None:
    """End the command with one line where it asks for assets or days that there aren't; elsewhere do nothing."""
    if not (select := _asked("select") or _asked("assets")):  # by dagster, or by dg
        return
    day, days = _asked("partition"), _asked("partition_range")
    try:
        graph = definitions.resolve_asset_graph()
        chosen = dg.AssetSelection.from_coercible(select.split(",")).resolve(graph)
        if days:
            first, dots, last = days.partition("...")
            if not dots:
                raise ConfigError(f"{days!r} isn't a range of days", expected="YYYY-MM-DD...YYYY-MM-DD")
            settings.as_of_range(parse_date(first), parse_date(last))
        elif day:
            settings.check_as_of(parse_date(day))
        elif any(graph.get(key).is_partitioned for key in chosen):
            raise ConfigError(
                "no as-of date was given",
                expected=f"{settings.first_as_of} or later",
                remedy="add --partition YYYY-MM-DD, or --partition-range YYYY-MM-DD...YYYY-MM-DD",
            )
    except dg.DagsterError as error:
        raise ClickException(f"{error} A whole group is selected by group:NAME.") from None
    except ConfigError as error:
        raise ClickException(str(error)) from None


def _asked(option: str) -> str | None:
    """The option of the Dagster command that runs in this process; None without it, and in servers and daemons."""
    context = get_current_context(silent=True)
    return context.params.get(option) if context is not None else None
