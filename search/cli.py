"""The command line `mmm-search`: sweeps, their reports and bundles."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import MofNCompleteColumn, Progress

from mmm import cli_encode as shared
from mmm.cli import console, run_app

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  help="Search over speech-and-text emotion recognisers with Ray, Optuna and MLflow.",
                  context_settings={"help_option_names": ["-h", "--help"]})  # fmt: skip

Runs = Annotated[Path, typer.Option("--runs", help="Folder of all sweeps and of the MLflow store they share.")]
TimeBudget = Annotated[str | None, typer.Option(help="Stop after this long, all sessions together, for example 2h.")]
ComputeBudget = Annotated[str | None, typer.Option(help="Stop after so much training, summed over workers, for example 10h.")]
GpuHours = Annotated[float | None, typer.Option(help="Stop after so many hours of GPUs in training.")]
Target = Annotated[float | None, typer.Option(help="Stop when the best validation score reaches this.")]
Patience = Annotated[int | None, typer.Option(help="Stop after so many ended trials without a better score.")]
Enqueue = Annotated[
    list[Path] | None, typer.Option(metavar="FILE", help="JSON of points to try next: parameters, or a trial's settings.")
]
Packs = Annotated[
    str | None,
    typer.Option(metavar="auto|off|N", help="Trials of one shape that a worker trains as one model [auto, one worker: off]."),
]
SweepName = Annotated[str, typer.Argument(metavar="NAME", help="The sweep.", show_default=False)]


@app.command()
def quickstart(
    runs: Runs = Path("runs"),
    workers: Annotated[int | None, typer.Option(help="Trials at a time [one a core].")] = None,
) -> None:
    """The whole way on a generated corpus: encode, search all four systems, report, export, predict."""
    if workers is not None and workers < 1:
        raise ValueError(f"--workers {workers} is too small; expected at least 1")
    from search.quickstart import quickstart as run_quickstart

    run_quickstart(runs, console, workers)


@app.command()
def run(
    space: Annotated[str, typer.Argument(help="quick, full, paper, or path/to/file.py:function", show_default=False)],
    manifest: Annotated[Path, typer.Argument(help="manifest.csv", show_default=False)],
    features: Annotated[Path, typer.Option("--features", help="Folder of feature stores.", show_default=False)],
    name: Annotated[str, typer.Option(help="Name of the sweep.", show_default=False)],
    trials: Annotated[int, typer.Option(help="Settings to try.")] = 40,
    epochs: Annotated[int, typer.Option(help="Epochs of a trial that is not stopped early.")] = 27,
    workers: Annotated[int | None, typer.Option(help="Trials at a time [one a core, or a GPU share].")] = None,
    gpus_per_trial: Annotated[float, typer.Option(help="GPUs of a trial; 0.25 lets four share one.")] = 0.0,
    runs: Runs = Path("runs"),
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow's tracking URI [SQLite in the runs folder].")] = None,
    system_metrics: Annotated[
        bool, typer.Option("--system-metrics", help="Send CPU, GPU and memory use to MLflow, too.")
    ] = False,
    metric: Annotated[str, typer.Option(help="Validation metric to maximise.")] = "macro_f1",
    time_budget: TimeBudget = None,
    compute_budget: ComputeBudget = None,
    gpu_hours: GpuHours = None,
    target: Target = None,
    patience: Patience = None,
    max_parameters: Annotated[int | None, typer.Option(help="Larger models fail without training.")] = None,
    max_ms_per_utterance: Annotated[float | None, typer.Option(help="Trials that validate slower fail.")] = None,
    max_memory_mb: Annotated[float | None, typer.Option(help="Trials that hold more memory fail.")] = None,
    enqueue: Enqueue = None,
    warm_start: Annotated[list[str] | None, typer.Option(metavar="OTHER", help="A finished sweep to learn from.")] = None,
    repeats: Annotated[
        str, typer.Option(help="Settings that were trained: new-seed, or reuse what the ledger has.")
    ] = "new-seed",
    seed: Annotated[int, typer.Option(help="Of the sampler and of the trials.")] = 1,
    first_rung: Annotated[int, typer.Option(help="ASHA: first epoch at which trials are stopped.")] = 5,
    factor: Annotated[int, typer.Option(help="ASHA: one in so many goes on.")] = 3,
    keep: Annotated[int, typer.Option(help="Trials whose weights stay on disk.")] = 20,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join, for example auto [a local one].")] = None,
    packs: Packs = None,
    precision: Annotated[str, typer.Option(help="Of training: float32, bf16, or auto: what is fast there.")] = "auto",
) -> None:
    """Run a sweep."""
    from search.config import SweepSpec, check_name, parse_duration, parse_packs

    check_name(name)
    time_s = None if time_budget is None else parse_duration(time_budget)
    compute_s = None if compute_budget is None else parse_duration(compute_budget)
    if not manifest.is_file():
        raise FileNotFoundError(f"{manifest}: no such manifest; make one with: mmm prepare csv FILE -o manifest.csv")
    if not features.is_dir():
        raise FileNotFoundError(f"{features}: no such features folder; run: mmm encode {manifest} --features {features}")
    if address is not None and workers is None:
        raise ValueError("--address without --workers: say how many trials the cluster is to run at a time")
    from search.enqueue import read_points
    from search.plan import default_workers
    from search.run import command_line, start

    path, _, function = space.rpartition(":")
    spec = SweepSpec(
        name=name, space=f"{Path(path).resolve()}:{function}" if path.endswith(".py") else space, manifest=str(manifest.resolve()),
        features=str(features.resolve()), trials=trials, epochs=epochs,
        workers=workers if workers is not None else default_workers(gpus_per_trial),
        gpus_per_trial=gpus_per_trial, metric=metric, time_budget_s=time_s, seed=seed, first_rung=first_rung, factor=factor,
        tracking_uri=tracking_uri, address=address, keep=keep, command=command_line(),
        compute_budget_s=compute_s, gpu_hours=gpu_hours, target=target, patience=patience, max_parameters=max_parameters,
        max_ms_per_utterance=max_ms_per_utterance, max_memory_mb=max_memory_mb, repeats=repeats,
        system_metrics=system_metrics, packs=parse_packs(packs), precision=precision,
    )  # fmt: skip
    points = [point for file in enqueue or [] for point in read_points(file)]
    _finish(start(spec, runs, console, points, warm_start or []))


@app.command()
def resume(
    name: SweepName,
    runs: Runs = Path("runs"),
    trials: Annotated[int | None, typer.Option(help="Settings to try in all, those before included.")] = None,
    workers: Annotated[int | None, typer.Option(help="Trials at a time.")] = None,
    time_budget: TimeBudget = None,
    compute_budget: ComputeBudget = None,
    gpu_hours: GpuHours = None,
    target: Target = None,
    patience: Patience = None,
    enqueue: Enqueue = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join.")] = None,
    packs: Packs = None,
) -> None:
    """Go on with a sweep that was stopped or killed, or give it more trials or another budget."""
    from search.config import parse_duration, parse_packs
    from search.enqueue import read_points
    from search.run import resume as resume_sweep

    changes: dict[str, Any] = {"trials": trials, "workers": workers, "address": address, "gpu_hours": gpu_hours, "target": target,
                               "patience": patience}  # fmt: skip
    changes["time_budget_s"] = None if time_budget is None else parse_duration(time_budget)
    changes["compute_budget_s"] = None if compute_budget is None else parse_duration(compute_budget)
    points = [point for file in enqueue or [] for point in read_points(file)]
    given = {key: value for key, value in changes.items() if value is not None}
    if packs is not None:
        given["packs"] = parse_packs(packs)
    _finish(resume_sweep(runs, name, given, console, points))


def _finish(history: Any) -> None:
    """Exit status 1 where nothing came of it, so that scripts notice."""
    if all(trial.state == "failed" for trial in history.trials.values()) and history.trials:
        reasons = {trial.reason for trial in history.trials.values()}
        print(f"error: every trial failed; the first reason: {sorted(reasons)[0]}", file=sys.stderr)
        sys.exit(1)


@app.command()
def encode(
    manifest: shared.ManifestPath,
    features: shared.FeaturesDir,
    audio_encoder: shared.AudioEncoder = "fbank",
    text_encoder: shared.TextEncoderName = "char-ngram",
    context: shared.Contexts = "1,2,3,4,5",
    audio_feature: shared.AudioFeatures = "hidden_state,extract_feature",
    layer: shared.Layer = "last",
    frame_rate: shared.FrameRate = 25.0,
    num_mels: shared.NumMels = 64,
    text_width: shared.TextWidth = 256,
    max_tokens: shared.MaxTokens = 128,
    audio_revision: shared.AudioRevision = None,
    text_revision: shared.TextRevision = None,
    precision: shared.Precision = "auto",
    batch_seconds: shared.BatchSeconds = None,
    chunk_seconds: shared.ChunkSeconds = shared.DEFAULT_CHUNK_S,
    skip_bad: shared.SkipBad = False,
    workers: Annotated[
        int | None, typer.Option(help="Actors, a core each, the model loaded once in each [one a core].")
    ] = None,
    gpus: Annotated[float, typer.Option(help="GPUs that the actors share; 0 encodes on CPUs.")] = 0.0,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join, for example auto [a local one].")] = None,
) -> None:
    """What `mmm encode` does, on a Ray cluster: the same batches, one store, the same bytes. All nodes need to see the audio."""
    if workers is not None and workers < 1:
        raise ValueError(f"--workers {workers} is too small; expected at least 1")
    if gpus < 0:
        raise ValueError(f"--gpus {gpus:g} is negative")
    if address is not None and workers is None:
        raise ValueError("--address without --workers: say how many actors the cluster is to run at a time")
    checked = shared.manifest_to_encode(manifest, skip_bad)
    if gpus and precision == "auto":
        precision = "bf16"  # of the cluster's GPUs, which this machine need not have
    options = shared.check_options(
        audio_encoder=audio_encoder, text_encoder=text_encoder, context=context, audio_feature=audio_feature, layer=layer,
        frame_rate=frame_rate, num_mels=num_mels, text_width=text_width, max_tokens=max_tokens, audio_revision=audio_revision,
        text_revision=text_revision, precision=precision, batch_seconds=batch_seconds, chunk_seconds=chunk_seconds,
        device="cuda" if gpus else "cpu",
    )  # fmt: skip
    from mmm.encoding import default_threads
    from search.encode import connect, disconnect, run_on_ray

    speech, text = options.make_speech(), options.make_text()
    options = options.pinned(speech, text)
    num_actors = workers or (max(1, int(gpus)) if gpus else default_threads())
    connect(address, num_actors, gpus)
    try:
        shared.encode_manifest(checked, features, options, speech, text, run_on_ray(options, "speech", num_actors, gpus),
                               run_on_ray(options, "text", num_actors, gpus))  # fmt: skip
    finally:
        disconnect()


@app.command()
def plan(
    space: Annotated[str, typer.Argument(help="quick, full, paper, or path/to/file.py:function", show_default=False)],
    manifest: Annotated[Path, typer.Argument(help="manifest.csv", show_default=False)],
    features: Annotated[Path, typer.Option("--features", help="Folder of feature stores.", show_default=False)],
    trials: Annotated[int, typer.Option(help="Settings to try.")] = 40,
    epochs: Annotated[int, typer.Option(help="Epochs of a trial that is not stopped early.")] = 27,
    workers: Annotated[int | None, typer.Option(help="Trials at a time [one a core, or a GPU share].")] = None,
    gpus_per_trial: Annotated[float, typer.Option(help="GPUs of a trial; 0.25 lets four share one.")] = 0.0,
    metric: Annotated[str, typer.Option(help="Validation metric to maximise.")] = "macro_f1",
    seed: Annotated[int, typer.Option(help="Of the sampler and of the trials.")] = 1,
    first_rung: Annotated[int, typer.Option(help="ASHA: first epoch at which trials are stopped.")] = 5,
    factor: Annotated[int, typer.Option(help="ASHA: one in so many goes on.")] = 3,
    keep: Annotated[int, typer.Option(help="Trials whose weights stay on disk.")] = 20,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the same as JSON to this file.")] = None,
) -> None:
    """What `run` would do with the same options: space, rungs, hours, memory, disk, what it would refuse. Runs no trial."""
    from mmm.files import write_json
    from search.config import SweepSpec
    from search.forecast import forecast, show
    from search.plan import default_workers

    path, _, function = space.rpartition(":")
    spec = SweepSpec(
        name="plan", space=f"{Path(path).resolve()}:{function}" if path.endswith(".py") else space, manifest=str(manifest.resolve()),
        features=str(features.resolve()), trials=trials, epochs=epochs,
        workers=workers if workers is not None else default_workers(gpus_per_trial),
        gpus_per_trial=gpus_per_trial, metric=metric, seed=seed, first_rung=first_rung, factor=factor, keep=keep,
    )  # fmt: skip
    found = forecast(spec, console)
    show(found, console)
    if json_file is not None:
        write_json(json_file, found.as_json())


@app.command()
def status(
    name: SweepName,
    runs: Runs = Path("runs"),
    rows: Annotated[int, typer.Option(help="Rows of the leaderboard.")] = 20,
) -> None:
    """Trials by state and the leaderboard so far; also of a sweep that is running."""
    from search.config import existing_sweep
    from search.ledger import read_history
    from search.view import counts, leaderboard_table

    history = read_history(existing_sweep(runs, name) / "ledger.sqlite")
    assert history.spec is not None
    console.print(
        leaderboard_table(history, history.spec.metric, rows, f"{name}, validation {history.spec.metric}", console.width)
    )
    states = ", ".join(f"{number} {state}" for state, number in counts(history).items() if number)
    ended = history.last_close["why"] if history.last_close else "running, or killed"
    console.print(
        f"{len(history.trials)} of {history.spec.trials} trials: {states or 'none yet'}; session: {ended}", highlight=False
    )
    for trial in history.trials.values():
        if trial.state == "failed":
            console.print(f"trial {trial.number} failed: {trial.reason}", highlight=False, soft_wrap=True)


@app.command()
def report(name: SweepName, runs: Runs = Path("runs")) -> None:
    """Write report.html and leaderboard.csv again, from the ledger."""
    from search.config import existing_sweep
    from search.leaderboard import write_leaderboard
    from search.ledger import read_history
    from search.report import write_report
    from search.searcher import load_space

    folder = existing_sweep(runs, name)
    history = read_history(folder / "ledger.sqlite")
    assert history.spec is not None
    try:
        space = load_space(history.spec.space)
    except (ValueError, FileNotFoundError):
        space = None  # the space's file is gone; all but the importances comes from the ledger
    write_leaderboard(folder / "leaderboard.csv", history, history.spec.metric)
    write_report(folder / "report.html", history, space)
    console.print(f"wrote {folder / 'report.html'} and {folder / 'leaderboard.csv'}", highlight=False, soft_wrap=True)


@app.command()
def export(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The sweep.", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write.", show_default=False)] = None,
    trial: Annotated[int | None, typer.Option(help="Trial to export [the best].")] = None,
    top: Annotated[
        int | None, typer.Option(metavar="K", help="Export the K best trials, each into a folder of its own.")
    ] = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="The --top K trials (3) as one: the mean of their probabilities.")
    ] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Write the head as ONNX too, checked against torch.")] = False,
    register: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Put it into MLflow's model registry, as champion.")
    ] = None,
    data_licence: Annotated[str | None, typer.Option(metavar="TEXT", help="Licence of the data, for the card.")] = None,
    run_id: Annotated[str | None, typer.Option(help="Instead of NAME: the bundle of this MLflow run.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="With --run-id: where the manifest is, to reproduce the score.")] = None,
    features: Annotated[Path | None, typer.Option(help="With --run-id: where the features are.")] = None,
    runs: Runs = Path("runs"),
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow to read from and register in [the sweep's].")] = None,
) -> None:
    """Write the bundle of the best trial, of another one, of several, or of an MLflow run, with a model card."""
    if out is None:
        raise ValueError("--out is missing: the folder to write, for example -o best")
    if (name is None) == (run_id is None):
        raise ValueError("expected the NAME of a sweep, or --run-id and no name")
    if trial is not None and (top is not None or ensemble):
        raise ValueError("--trial names one trial; --top and --ensemble take the best ones")
    if run_id is not None:
        taken = (("--trial", trial is not None), ("--top", top is not None), ("--ensemble", ensemble), ("--onnx", onnx),
                 ("--data-licence", data_licence is not None))  # fmt: skip
        if wrong := [option for option, given in taken if given]:
            raise ValueError(f"{', '.join(wrong)}: --run-id takes a bundle as it is; export from the sweep instead")
    elif manifest is not None or features is not None:
        raise ValueError("--manifest and --features go with --run-id; a sweep knows its own")
    if top is not None and register is not None and not ensemble:
        raise ValueError("--register takes one model: add --ensemble, or export one trial")

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    if run_id is not None:
        from search.registry import fetch_bundle

        with console.status("fetching and checking the bundle"):
            checked = fetch_bundle(run_id, out, runs, tracking_uri, manifest, features)
        say(f"bundle {out}: {checked}")
    else:
        from search.config import existing_sweep
        from search.export import Options, export_several, export_trial, top_trials
        from search.ledger import read_history

        assert name is not None
        folder = existing_sweep(runs, name)
        history = read_history(folder / "ledger.sqlite")
        assert history.spec is not None
        tracking_uri = tracking_uri or history.spec.tracking_uri
        options = Options(data_licence, onnx, fresh_process=True)
        checked = f"a fresh process reproduced its validation {history.spec.metric}"
        with console.status("writing and checking") as status:
            if top is None and not ensemble:
                digest = export_trial(history, folder, trial, out, options)
                said = f"bundle {out} (sha256 {digest[:16]}): {checked}"
            else:
                numbers = top_trials(history, folder, top if top is not None else 3)
                digest = export_several(history, folder, numbers, out, options, ensemble=ensemble,
                                        done=lambda number: status.update(f"trial {number} is written"))  # fmt: skip
                which = f"trials {', '.join(map(str, numbers))}"
                said = (
                    f"ensemble {out} (sha256 {digest[:16]}) of {which}: {checked}" if ensemble else f"bundles in {out}: {which}"
                )
        say(said)
    if register is not None:
        from search.registry import ALIAS
        from search.registry import register as put_into_registry

        with console.status("registering"):
            version = put_into_registry(out, register, runs, tracking_uri)
        say(f"model {register!r} version {version} in MLflow's registry is its {ALIAS}; serve it with:")
        from search.tracking import default_tracking_uri

        say(f"  MLFLOW_TRACKING_URI={tracking_uri or default_tracking_uri(runs)} mlflow models serve "
            f"-m models:/{register}@{ALIAS} --env-manager local --port 5001")  # fmt: skip


@app.command("export-study")
def export_study(
    name: SweepName,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="SQLite file to write.", show_default=False)],
    runs: Runs = Path("runs"),
) -> None:
    """Write the sweep as an Optuna storage, which optuna-dashboard opens."""
    from search.config import existing_sweep
    from search.ledger import read_history
    from search.study import export_study as write_study

    write_study(read_history(existing_sweep(runs, name) / "ledger.sqlite"), out)
    console.print(
        f"study {name!r} in {out}; look at it with: optuna-dashboard sqlite:///{out}", highlight=False, soft_wrap=True
    )


@app.command("mlflow-sync")
def mlflow_sync(
    name: SweepName,
    runs: Runs = Path("runs"),
    tracking_uri: Annotated[str | None, typer.Option(help="Where to [where the sweep went].")] = None,
) -> None:
    """Send a whole sweep to MLflow again, or to another one; what is there already stays as it is."""
    from search.config import check_tracking_uri, existing_sweep, without_password
    from search.ledger import read_history
    from search.lock import is_held
    from search.tracking import default_tracking_uri, page_base, sync

    folder = existing_sweep(runs, name)
    spec = read_history(folder / "ledger.sqlite").spec
    assert spec is not None
    if is_held(folder / "lock"):
        raise ValueError(f"sweep {name!r} is running and sends what happens by itself; wait until it has ended")
    uri = tracking_uri or spec.tracking_uri
    if uri is not None:
        check_tracking_uri(uri)
    shown = without_password(uri or default_tracking_uri(runs))
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console, transient=True) as progress:
        task = progress.add_task("sending runs")
        done = sync(runs, name, uri, lambda sent, total: progress.update(task, completed=sent, total=total))
    console.print(f"sent {done.num_runs} runs ({done.made} of them new) and {done.points} points of sweep {name} to {shown}",
                  highlight=False, soft_wrap=True)  # fmt: skip
    if (page := done.comparison(page_base(uri, 5000))) is not None:
        console.print(f"compare the best of each architecture: {page}", highlight=False, soft_wrap=True)


@app.command()
def ui(
    runs: Runs = Path("runs"),
    port: Annotated[int, typer.Option(help="Port on this machine alone (127.0.0.1).")] = 5000,
) -> None:
    """Open MLflow's pages over all sweeps of a runs folder."""
    if not (runs / "mlflow.db").is_file():
        raise FileNotFoundError(
            f"{runs}/mlflow.db: no MLflow store yet; run a sweep first, for example: mmm-search quickstart --runs {runs}"
        )
    from search.tracking import page_of_runs, serve

    console.print(f"{page_of_runs(runs, port)}  (this machine only; Ctrl-C ends it)", highlight=False, soft_wrap=True)
    sys.exit(serve(runs, port))


def main() -> None:
    try:
        run_app(app)
    except ModuleNotFoundError as error:
        if error.name not in ("ray", "optuna", "mlflow", "matplotlib", "scipy"):
            raise
        print(f"error: mmm-search needs {error.name}; install it with: pip install 'mmm-search[search]'", file=sys.stderr)
        sys.exit(2)
