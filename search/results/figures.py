"""Figures of one trial: for the report and for MLflow's pages."""

from matplotlib.axes import Axes

from mmm.metrics import Metrics
from mmm.page import draw_matrix, picture
from search.ledger.history import History
from search.ledger.trial import Trial

BLUE = "#4477aa"
_SIZE, _SQUARE = (5.6, 3.6), (4.8, 4.4)  # inches


def draw_confusion(axes: Axes, metrics: Metrics) -> None:
    """Counts of an epoch's confusion matrix, shaded by the share of the true class."""
    counts = metrics["confusion_matrix"]
    shares = [[value / max(1, sum(row)) for value in row] for row in counts]
    draw_matrix(axes, list(metrics["per_class"]), shares, counts)
    axes.set(xlabel="predicted", ylabel="true")


def draw_learning_curve(axes: Axes, trial: Trial, metric: str) -> None:
    """Training loss and validation score by epoch, the best epoch marked."""
    epochs = [entry.epoch for entry in trial.epochs]
    best = trial.best(metric)
    axes.plot(
        epochs,
        list(trial.scores(metric).values()),
        color=BLUE,
        marker=".",
        label=f"validation {metric}",
    )
    if best is not None:
        axes.axvline(best[0], color=BLUE, linewidth=1, linestyle=":")
    axes.set(xlabel="epoch", ylabel=f"validation {metric}")
    losses = axes.twinx()
    losses.plot(
        epochs,
        [entry.train_loss for entry in trial.epochs],
        color="#bbb",
        marker=".",
        label="training loss",
    )
    losses.set(ylabel="training loss")
    losses.spines[["top"]].set_visible(False)
    axes.spines[["top"]].set_visible(False)
    axes.legend(
        *[
            a + b
            for a, b in zip(
                axes.get_legend_handles_labels(), losses.get_legend_handles_labels(), strict=True
            )
        ],
        frameon=False,
        fontsize=8,
        loc="center right",
    )


def figures_of(history: History, trial: Trial) -> dict[str, str]:
    """SVG by name, whose letters the browser draws: labels are of any script. Of a trial that has a
    score.
    """
    metric = history.spec.metric
    best = trial.best(metric)
    assert best is not None
    curve = picture(lambda axes: draw_learning_curve(axes, trial, metric), "learning curve", _SIZE)
    found = {"learning_curve": curve.svg}
    metrics = trial.metrics(best[0])
    if "confusion_matrix" in metrics:

        def draw(axes: Axes) -> None:
            draw_confusion(axes, metrics)
            axes.set_title(f"validation, epoch {best[0]}", fontsize=9)

        found["confusion_matrix"] = picture(draw, "confusion", _SQUARE).svg
    return found
