"""The command `mmm-search`."""

import sys

from mmm.console import add_commands, new_app, run_app
from search.cli.compare import compare
from search.cli.confirm import confirm
from search.cli.doctor import doctor
from search.cli.encode import encode
from search.cli.export import export
from search.cli.mlflow_server import mlflow_server
from search.cli.paper import paper
from search.cli.reproduce import reproduce
from search.cli.results import export_study, mlflow_sync, report, status, ui
from search.cli.sweeps import plan, quickstart, resume, run

app = new_app("Search over speech-and-text emotion recognisers with Ray, Optuna and MLflow.")
add_commands(
    app, quickstart, plan, run, resume, confirm, status, report, compare, reproduce, encode
)
add_commands(app, quickstart, plan, run, resume, confirm, status, report, compare, reproduce)
add_commands(app, paper, encode, export, export_study, mlflow_sync, mlflow_server, ui, doctor)


def main() -> None:
    try:
        run_app(app)
    except ModuleNotFoundError as error:
        if error.name not in ("ray", "optuna", "mlflow", "plotly", "scipy"):
            raise
        print(
            f"error: mmm-search needs {error.name}; install it with: pip install"
            " 'mmm-search[search]'",
            file=sys.stderr,
        )
        sys.exit(2)
