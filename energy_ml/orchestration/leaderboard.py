"""The leaderboard asset: all as-of dates at a glance.

What belongs here: gathering and showing. What doesn't: figures (``evaluation.leaderboard``), the page (``reports``).

It has no partitions, being about all of them, and so is no part of the partitioned jobs; a run of ``'*'`` includes it.
"""

import dagster as dg

from energy_ml.artifacts import write_atomically
from energy_ml.evaluation.charts import skill_over_time
from energy_ml.evaluation.leaderboard import leaderboard as gather
from energy_ml.evaluation.leaderboard import succession
from energy_ml.evaluation.reports import render_leaderboard
from energy_ml.orchestration.metadata import to_metadata
from energy_ml.orchestration.resources import RegistryResource, ResultsResource

LEADERBOARD = dg.AssetKey(["evaluation", "leaderboard"])
PAGE = "leaderboard.html"


def leaderboard_asset(report: dg.AssetKey) -> dg.AssetsDefinition:
    """The leaderboard, made after ``report``."""

    @dg.asset(
        key=LEADERBOARD,
        deps=[report],
        group_name="evaluation",
        kinds={"html"},
        owners=["team:evaluation"],
    )
    def leaderboard(results: ResultsResource, registry: RegistryResource) -> dg.MaterializeResult:
        """Over all as-of dates: forecast skill by horizon, share of the optimum by region, who was champion when.

        A backfill fills it; ``results/leaderboard.html`` is the same as a page.
        """
        store, models = results.store(), registry.registry()
        listed = models.list_models()
        frame, unreadable = gather(store, listed)
        reigns = succession(listed, models.history())
        page = store.root / PAGE
        write_atomically(str(page), render_leaderboard(frame, reigns).encode())
        skill = frame[frame["metric"] == "rmae"]
        shares = frame[frame["metric"] == "share"]
        by_horizon = skill.pivot_table(index="as_of", columns="horizon_minutes", values="value").add_suffix(" min")
        by_region = shares.pivot_table(index="as_of", columns="region", values="value")
        return dg.MaterializeResult(
            metadata=to_metadata(
                {
                    "as_of_dates": int(frame["as_of"].nunique()),
                    "skill_over_time": skill_over_time(skill.rename(columns={"value": "rmae"})),
                    "error_relative_to_price_stays": by_horizon.sort_index(ascending=False).reset_index(),
                    "share_of_optimum": by_region.sort_index(ascending=False).reset_index(),
                    "champions": reigns.drop(columns=["who"]),
                    "page": dg.MetadataValue.path(str(page)),
                    "unreadable": "; ".join(unreadable) or "none",
                }
            )
        )

    return leaderboard
