"""`NewsGate`: many changes upstream, one run downstream."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, BaseSensorOperator, PokeReturnValue
from airflow.sdk.exceptions import AirflowSkipException

from pinloom.settings import get_settings

if TYPE_CHECKING:
    from airflow.sdk import Context

UNDER_WAY = ["queued", "running"]
DAY_S = 24 * 3600.0
SHORT_S = 60.0
"""Looks closer together than this keep the worker: rescheduled so soon, a task runs again before the scheduler has
heard that it ended, which then takes it for one that was lost."""


class NewsGate(BaseSensorOperator):
    """First task of a DAG that `source` triggers: waits until upstream is done, then asks whether there is news.

    A backfill of 30 days is 30 events of `source`. The first starts a run, which waits here until no run of
    `upstream` is queued or running, and so sees all 30. Airflow folds the other events into one more run
    (`max_active_runs=1`); that one finds that the newest event of `product` covers them, and is skipped.
    So is a run by the clock when nothing happened since the last. A manual run neither waits nor is skipped.

    What is costly to make may last: a run that an event triggers is skipped too while the newest `product` is younger
    than `lasts`, whatever the news. A run by the clock is not.

    What else `product` is made of (`beside`) must be there, and is news as well.

    The task returns {"covers": times of the newest events of `source` and `beside`, "result": that of `source`,
    "dataset": its data set}; the last two are '' in a manual run, which reads the latest. Whoever makes `product`
    passes `covers` on in its event's extra.
    """

    def __init__(
        self,
        *,
        upstream: Sequence[str],
        source: Asset,
        product: Asset,
        beside: Sequence[Asset] = (),
        lasts: timedelta = timedelta(0),
        **kwargs: Any,
    ) -> None:
        interval = kwargs.setdefault("poke_interval", get_settings().airflow.settle_interval_s)
        kwargs.setdefault("timeout", DAY_S)
        mode = "poke" if interval < SHORT_S else "reschedule"
        super().__init__(mode=mode, inlets=[source, product, *beside], **kwargs)
        self.upstream = list(upstream)
        self.source, self.product, self.beside, self.lasts = source, product, list(beside), lasts

    def poke(self, context: Context) -> PokeReturnValue:
        manual = context["dag_run"].run_type == "manual"
        by_asset = context["dag_run"].run_type == "asset_triggered"
        if not manual and any(self._under_way(context, dag_id) for dag_id in self.upstream):
            return PokeReturnValue(is_done=False)
        found = {asset.name: self._newest(context, asset) for asset in (self.source, *self.beside)}
        news, missing = found[self.source.name], [name for name, event in found.items() if event is None]
        covers = " ".join(event.timestamp.isoformat() for event in found.values() if event)
        made = self._newest(context, self.product)
        if not manual and missing:
            raise AirflowSkipException(f"there is no '{missing[0]}' yet")
        if not manual and made and made.extra.get("covers") == covers:
            raise AirflowSkipException(f"nothing new: the latest '{self.product.name}' covers '{self.source.name}'")
        if by_asset and made and self.lasts and context["dag_run"].run_after - made.timestamp < self.lasts:
            raise AirflowSkipException(f"the latest '{self.product.name}' is younger than {self.lasts.days} days")
        made_of = news.extra if news and not manual else {}
        handed_on = {name: made_of.get(name, "") for name in ("result", "dataset")}
        return PokeReturnValue(is_done=True, xcom_value={"covers": covers, **handed_on})

    def _under_way(self, context: Context, dag_id: str) -> bool:
        count = context["ti"].get_dr_count(dag_id=dag_id, states=UNDER_WAY)
        if count:
            self.log.info("%d runs of '%s' are under way", count, dag_id)
        return count > 0

    def _newest(self, context: Context, asset: Asset) -> Any:
        events = context["inlet_events"][asset].ascending(False).limit(1)
        return events[0] if len(events) else None
