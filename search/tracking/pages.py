"""MLflow's pages of a sweep: their addresses, and the views that they open with."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

_TRAINING = (  # of MLflow's two kinds of pages; the other is for language models
    "workflowType=machine_learning"
)


def page_base(tracking_uri: str | None, port: int) -> str:
    """Where MLflow's pages of a store are: at its server, or at `mmm-search ui` on this machine."""
    is_server = tracking_uri is not None and tracking_uri.startswith("http")
    return str(tracking_uri).rstrip("/") if is_server else f"http://127.0.0.1:{port}"


def list_of_sweeps(base: str, experiment: str) -> str:
    """The address of the page that lists all runs of an experiment."""
    return f"{base}/#/experiments/{experiment}/runs?{_TRAINING}"


@dataclass(frozen=True)
class Pages:
    """The pages of one sweep; `best` are the runs of the best trial of each architecture, best
    first.
    """

    experiment: str
    sweep_id: str
    metric: str
    best: Sequence[str]

    def views(self) -> dict[str, str]:
        """What MLflow's page opens by address, by key: the sweep with its trials, all trials
        ranked, and the best of each architecture, whose learning curves are compared.
        """
        mine = f"tags.`mmm.sweep_id` = '{self.sweep_id}'"
        score, started = f"metrics.`best_{self.metric}`", "attributes.start_time"
        # Sorted by a metric, MLflow's list is no tree; sorted by time, the best of many trials are
        # on no page that anyone opens.
        found = {
            self.sweep_id: (mine, started),
            f"{self.sweep_id}-ranking": (f"{mine} AND tags.`mmm.trial` != 'sweep'", score),
        }
        if self.best:
            wanted = ", ".join(f"'{run}'" for run in self.best)
            found[f"{self.sweep_id}-best"] = f"attributes.run_id IN ({wanted})", score
        columns = [
            "tags.`mmm.state`",
            score,
            "metrics.`best_epoch`",
            "params.`architecture`",
            "params.`context`",
            "params.`lr`",
            "params.`dropout`",
        ]
        view = {
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": columns,
        }
        return {
            key: json.dumps({**view, **self._charts(), "searchFilter": wanted, "orderByKey": order})
            for key, (wanted, order) in found.items()
        }

    def _charts(self) -> dict[str, object]:
        """The metric that is searched for before all others, where runs are compared; MLflow adds
        the others, by name.
        """
        section = "objective"
        line: dict[str, object] = {
            "type": "LINE",
            "metricKey": self.metric,
            "selectedMetricKeys": [self.metric],
            "xAxisKey": "step",
            "xAxisScaleType": "linear",
            "scaleType": "linear",
            "yAxisKey": "metric",
            "yAxisExpressions": [],
            "selectedXAxisMetricKey": "",
            "lineSmoothness": 0,
            "range": {},
            "ignoreOutliers": False,
            "useGlobalXaxisKey": True,
            "useGlobalLineSmoothing": True,
        }
        bar: dict[str, object] = {"type": "BAR", "metricKey": f"best_{self.metric}"}
        charts = [
            {
                "uuid": f"{section}-{place}",
                "metricSectionId": section,
                "deleted": False,
                "isGenerated": False,
                "runsCountToCompare": 10,
                **chart,
            }
            for place, chart in enumerate((line, bar))
        ]
        shown = {"uuid": section, "name": self.metric, "display": True, "isReordered": True}
        return {
            "compareRunCharts": charts,
            "compareRunSections": [shown],
            "isAccordionReordered": True,  # or sections are sorted by name
        }

    def tree(self, base: str) -> str:
        """The address of the page that lists the sweep and below it its trials."""
        return f"{list_of_sweeps(base, self.experiment)}&viewStateShareKey={self.sweep_id}"

    def ranking(self, base: str) -> str:
        """The address of the page that lists the trials, best first."""
        return f"{self.tree(base)}-ranking"

    def chart(self, base: str) -> str:
        """The address of the page with the scores and the learning curves of the best trial of each
        architecture.
        """
        return f"{self.tree(base)}-best&compareRunsMode=CHART"

    def comparison(self, base: str) -> str | None:
        """The address of MLflow's page that compares the best trial of each architecture; None
        where there are no two.
        """
        if len(self.best) < 2:
            return None
        runs, experiments = (
            quote(json.dumps(value, separators=(",", ":")))
            for value in (self.best, [self.experiment])
        )
        return f"{base}/#/compare-runs?runs={runs}&experiments={experiments}&{_TRAINING}"
