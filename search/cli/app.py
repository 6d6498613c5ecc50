"""The command `mmm-search`."""

import sys

import typer

from mmm.console import run_app
from search.cli.encode import encode
from search.cli.results import (
    export,
    export_study,
    mlflow_sync,
    report,
    status,
    ui,
)
from search.cli.sweeps import plan, quickstart, resume, run

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Search over speech-and-text emotion recognisers with Ray, Optuna and MLflow.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    quickstart,
    plan,
    run,
    resume,
    status,
    report,
    encode,
    export,
    export_study,
    mlflow_sync,
    ui,
):
    app.command()(command)


def main() -> None:
    try:
        run_app(app)
    except ModuleNotFoundError as error:
        if error.name not in ("ray", "optuna", "mlflow", "scipy"):
            raise
        print(
            f"error: mmm-search needs {error.name}; install it with: pip install"
            " 'mmm-search[search]'",
            file=sys.stderr,
        )
        sys.exit(2)
