"""The accounts of an MLflow server that asks for a password: MLflow's own basic authentication,
with its files in one folder that only we can read.
"""

import importlib.util
import os
import secrets
from pathlib import Path

ADMIN = "admin"
PASSWORD_FILE = "admin-password"  # noqa: S105, where it is
_DATABASE, _SECRET_FILE, _CONFIG = "accounts.db", "secret-key", "basic-auth.ini"
# By MLflow's own default whoever has an account reads everybody's runs.
_SETTINGS = """[mlflow]
default_permission = NO_PERMISSIONS
database_uri = sqlite:///{database}
admin_username = {admin}
"""


def accounts_environment(folder: Path) -> dict[str, str]:
    """What MLflow's server reads its accounts by, those of `folder`, which is made where it is
    missing. The administrator's first password is MLFLOW_AUTH_ADMIN_PASSWORD, or a random one that
    is kept in a file there; MLflow itself refuses the one that its earlier versions came with.

    Raises ValueError where a package of it is missing.
    """
    if importlib.util.find_spec("flask_wtf") is None:
        raise ValueError(
            "--auth needs Flask-WTF, which is not installed; run: pip install 'mmm-search[server]'"
        )
    folder = folder.absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    database = folder / _DATABASE
    config = folder / _CONFIG
    # configparser reads % as its own.
    settings = _SETTINGS.format(database=str(database).replace("%", "%%"), admin=ADMIN)
    _write(config, settings)
    password = os.environ.get("MLFLOW_AUTH_ADMIN_PASSWORD") or _kept(folder / PASSWORD_FILE)
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN,
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": _kept(folder / _SECRET_FILE),
    }


def _kept(path: Path) -> str:
    """The secret of a file, made where it is missing."""
    if not path.exists():
        _write(path, secrets.token_urlsafe(24))
    return path.read_text().strip()


def _write(path: Path, text: str) -> None:
    """For our eyes alone, from its first byte."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    part.replace(path)
