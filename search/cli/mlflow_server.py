"""The command `mmm-search mlflow-server`: one MLflow store for sweeps of several machines."""

import os
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from mmm.console import console


def mlflow_server(
    artifacts: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Where bundles are kept: a folder, or for example s3://bucket/mlflow.",
        ),
    ],
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="URI",
            help="Where runs are kept, for example postgresql://mlflow@host/mlflow"
            " \\[MLFLOW_BACKEND_STORE_URI].",
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="Port on this machine alone (127.0.0.1).")] = 5000,
    auth: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Ask for a name and a password; the accounts are kept in this folder, admin's"
            " first password in its file admin-password \\[MLFLOW_AUTH_ADMIN_PASSWORD].",
        ),
    ] = None,
) -> None:
    """Run MLflow's server over a database, for `--tracking-uri http://127.0.0.1:5000`. It answers
    this machine alone: others come by `ssh -L 5000:127.0.0.1:5000 HOST`. Without `--auth` it asks
    for no password.
    """
    uri = backend or os.environ.get("MLFLOW_BACKEND_STORE_URI")
    if uri is None:
        raise ValueError(
            "--backend is missing; expected for example postgresql://mlflow@host/mlflow or"
            " sqlite:////data/mlflow.db"
        )
    if backend is not None and urlsplit(backend).password is not None:
        raise ValueError(
            "--backend with a password in it would be seen by everyone on this machine; keep it in"
            " ~/.pgpass (only readable for you), or set MLFLOW_BACKEND_STORE_URI"
        )
    if "://" not in uri:
        raise ValueError(
            f"--backend {uri!r} is no URI; expected for example sqlite:////data/mlflow.db"
        )
    from search.tracking.server import serve_backend

    console.say(f"http://127.0.0.1:{port}  (this machine only; Ctrl-C ends it)")
    sys.exit(serve_backend(uri, artifacts, port, auth))
