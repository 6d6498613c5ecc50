"""What decided the score: importances with the number of trials behind each, and what each of the
winner's settings is expected to be worth.
"""

from collections.abc import Sequence

from plotly.graph_objects import Bar, Figure

from search.results.importance import Ablation, Importance
from search.results.page.plots import BLUE, GREY, Plot, text


def importance_plot(found: Sequence[Importance]) -> Plot | None:
    """Bars of both kinds, the most important parameter first, and how many trials each rests on."""
    if not found:
        return None
    names = [
        f"{text(one.name)} ({one.num_trials}{' that have it' if one.is_conditional else ''})"
        for one in found
    ]
    bars = [
        Bar(
            name=name,
            x=[getattr(one, kind) for one in found],
            y=names,
            orientation="h",
            marker={"color": colour},
            text=[f"{getattr(one, kind):.2f}" for one in found],
            textposition="outside",
            cliponaxis=False,
            hoverinfo="skip",
        )
        for name, kind, colour in (("fANOVA", "fanova", BLUE), ("PED-ANOVA", "ped_anova", GREY))
    ]
    largest = max(max(one.fanova, one.ped_anova) for one in found)
    figure = Figure(bars)
    figure.update_layout(
        barmode="group",
        xaxis={"title": {"text": "share"}, "range": (0, 1.15 * largest)},
        yaxis={"autorange": "reversed"},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    )
    caption = (
        "Which parameters decided the final score: their share of its variance (fANOVA), and of"
        " what tells the best tenth from the others (PED-ANOVA), each over so many trials. All"
        " trials that reached a rung are in it, those that were stopped with the score that the"
        " sweep's model of learning curves expected of them. A parameter that only some trials have"
        " is compared among these alone."
    )
    return Plot("importances", figure, caption, 140 + 40 * len(found))


def ablation_plot(path: Ablation | None) -> Plot | None:
    """What each setting on the way to the winner is expected to be worth."""
    if path is None:
        return None
    names = [f"{text(step.name)}: {text(step.first)} → {text(step.then)}" for step in path.steps]
    figure = Figure(
        Bar(
            x=[step.gain for step in path.steps],
            y=names,
            orientation="h",
            marker={"color": BLUE},
            error_x={"array": [step.deviation for step in path.steps], "color": GREY},
            customdata=[step.expected for step in path.steps],
            hovertemplate="%{x:+.4f}, expected then: %{customdata:.4f}<extra></extra>",
        )
    )
    figure.update_layout(
        xaxis={"title": {"text": "gain of the expected final score"}, "zeroline": True},
        yaxis={"autorange": "reversed"},
    )
    caption = (
        f"From trial {path.first}, the first of this system (expected: {path.expected:.4f}), to the"
        f" winner, trial {path.winner} ({path.steps[-1].expected:.4f}), one setting after the"
        " other, each time the one of which the sweep's model expects most. Not trained: the"
        " whiskers are one standard deviation of the model's."
    )
    return Plot("ablation", figure, caption, 130 + 30 * len(path.steps))
