"""`mmm-search export`: what ships."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmm.cli.systems import MovedSystems, name_systems
from mmm.console import console
from search.cli.results import Cache, Runs

if TYPE_CHECKING:
    from search.ledger.history import History
    from search.results.export import Options


def export(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The sweep.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to write.", show_default=False)
    ] = None,
    trial: Annotated[int | None, typer.Option(help="Trial to export \\[the best].")] = None,
    top: Annotated[
        int | None,
        typer.Option(metavar="K", help="Export the K best trials, each into a folder of its own."),
    ] = None,
    ensemble: Annotated[
        bool,
        typer.Option(
            "--ensemble", help="The --top K trials (3) as one: the mean of their probabilities."
        ),
    ] = False,
    greedy: Annotated[
        bool,
        typer.Option(
            "--greedy",
            help="An ensemble chosen greedily of all trials with weights, each as often as it"
            " helps.",
        ),
    ] = False,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Write the head as ONNX too, checked against torch.")
    ] = False,
    register: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Put it into MLflow's model registry, as champion."),
    ] = None,
    data_licence: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Licence of the data, for the card.")
    ] = None,
    run_id: Annotated[
        str | None, typer.Option(help="Instead of NAME: the bundle of this MLflow run.")
    ] = None,
    manifest: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="With --run-id: where the manifest is, to reproduce the score.",
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="With --run-id: where the features are."),
    ] = None,
    system: MovedSystems = None,
    cache: Cache = None,
    runs: Runs = Path("runs"),
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow to read from and register in \\[the sweep's].")
    ] = None,
) -> None:
    """Write the bundle of the best trial, of another one, of several, or of an MLflow run, with a
    model card.
    """
    if out is None:
        raise ValueError("--out is missing: the folder to write, for example -o best")
    if (name is None) == (run_id is None):
        raise ValueError("expected the NAME of a sweep, or --run-id and no name")
    if greedy and top is not None:
        raise ValueError("--top takes the best trials, --greedy chooses among all; take one")
    if trial is not None and (top is not None or ensemble or greedy):
        raise ValueError("--trial names one trial; --top, --ensemble and --greedy take several")
    if run_id is not None:
        taken = (
            ("--trial", trial is not None),
            ("--top", top is not None),
            ("--ensemble", ensemble),
            ("--greedy", greedy),
            ("--onnx", onnx),
            ("--data-licence", data_licence is not None),
        )
        if wrong := [option for option, given in taken if given]:
            raise ValueError(
                f"{', '.join(wrong)}: --run-id takes a bundle as it is; export from the sweep"
                " instead"
            )
    elif manifest is not None or features is not None:
        raise ValueError("--manifest and --features go with --run-id; a sweep knows its own")
    if top is not None and register is not None and not ensemble:
        raise ValueError("--register takes one model: add --ensemble, or export one trial")

    name_systems(system)
    if run_id is not None:
        from search.storage.here import features_here, manifest_here
        from search.tracking.registry import fetch_bundle

        with console.status("fetching and checking the bundle"):
            manifest_path = None if manifest is None else manifest_here(manifest, cache)
            features_path = None if features is None else features_here(features, cache)
            checked = fetch_bundle(run_id, out, runs, tracking_uri, manifest_path, features_path)
        console.say(f"bundle {out}: {checked}")
    else:
        from search.ledger.events import read_history
        from search.ledger.files import existing_sweep
        from search.results.export import Options

        assert name is not None
        folder = existing_sweep(runs, name)
        history = read_history(folder / "ledger.sqlite")
        tracking_uri = tracking_uri or history.spec.tracking_uri
        options = Options(data_licence, onnx, fresh_process=True)
        if top is not None or ensemble or greedy:
            count = None if greedy else 3 if top is None else top
            _several(history, folder, out, options, cache, count, is_ensemble=ensemble or greedy)
        else:
            _one(history, folder, trial, out, options, cache)
    if register is not None:
        from search.tracking.registry import ALIAS
        from search.tracking.registry import register as put_into_registry

        with console.status("registering"):
            version = put_into_registry(out, register, runs, tracking_uri)
        console.say(
            f"model {register!r} version {version} in MLflow's registry is its {ALIAS}; serve it"
            " with:"
        )
        from search.tracking.store import default_tracking_uri

        console.say(
            f"  MLFLOW_TRACKING_URI={tracking_uri or default_tracking_uri(runs)} mlflow models"
            f" serve -m models:/{register}@{ALIAS} --env-manager local --port 5001"
        )


def _checked(history: "History") -> str:
    """How a finished bundle was checked."""
    if history.spec.folds:
        return (
            f"trained on the rows of all {history.spec.folds} folds; a fresh process computes the"
            " same with it"
        )
    return f"a fresh process reproduced its validation {history.spec.metric}"


def _one(
    history: "History",
    folder: Path,
    number: int | None,
    out: Path,
    options: "Options",
    cache: Path | None,
) -> None:
    """A trial's bundle; where its features are not at hand, the one that the sweep's end wrote."""
    from search.results.export import chosen_trial, export_trial
    from search.results.kept import copy_kept_bundle
    from search.storage.door import StorageError
    from search.storage.here import data_here

    trial = chosen_trial(history, number).number
    try:
        with console.status("writing and checking"):
            history = data_here(history, cache, [trial], console.say)
            digest = export_trial(history, folder, trial, out, options)
    except (FileNotFoundError, StorageError) as error:
        if options.has_extras:
            raise
        if (kept := copy_kept_bundle(history, folder, trial, out)) is None:
            raise
        console.say(
            f"bundle {out} (sha256 {kept[:16]}), as it was written and checked at the sweep's end;"
            f" left out, its score computed again: {error}"
        )
    else:
        console.say(f"bundle {out} (sha256 {digest[:16]}): {_checked(history)}")


def _several(
    history: "History",
    folder: Path,
    out: Path,
    options: "Options",
    cache: Path | None,
    count: int | None,
    *,
    is_ensemble: bool,
) -> None:
    """The `count` best trials' bundles, or an ensemble of them; None: one that is chosen greedily
    of all.
    """
    from search.results.export import check_scores_ensembles, export_several
    from search.results.greedy import select_greedily
    from search.results.kept import kept_trials, top_trials
    from search.storage.here import data_here

    if is_ensemble:
        check_scores_ensembles(history)
    selection = None
    with console.status("writing and checking") as status:
        numbers = top_trials(history, folder, 1 if count is None else count)
        history = data_here(
            history,
            cache,
            kept_trials(history, folder) if count is None else numbers,
            console.say,
        )
        if count is None:
            selection = select_greedily(
                history,
                folder,
                kept_trials(history, folder),
                3,
                lambda number: status.update(f"trial {number} has answered"),
            )
            numbers = list(selection.greedy.trials)
        digest = export_several(
            history,
            folder,
            numbers,
            out,
            options,
            ensemble=is_ensemble,
            done=lambda number: status.update(f"trial {number} is written"),
            selection=None if selection is None else selection.as_facts(),
        )
    which = f"trials {', '.join(map(str, numbers))}"
    for line in selection.lines() if selection is not None else ():
        console.say(line)
    if selection is not None:
        which = selection.greedy.said
    console.say(
        f"ensemble {out} (sha256 {digest[:16]}) of {which}: {_checked(history)}"
        if is_ensemble
        else f"bundles in {out}: {which}"
    )
