"""The launch files of `deploy/`, as far as they can be checked without what they launch on: they
parse, Ray takes its own, and no command in them has an option that does not exist.
"""

import importlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import mlflow.cli
import pytest
import ray.scripts.scripts
import typer
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from mmm.version import VERSION

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
_SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
_COMMAND = re.compile(r"(?<![\w./-])(?:\S+/)?(mmm-search|mmm|ray|mlflow) ([a-z][a-z-]*) ")
# Options of these and of what they hand theirs to.
_HANDS_ON = {"ray symmetric-run": "ray start"}


def documents(name: str) -> list[Any]:
    return [*yaml.safe_load_all((DEPLOY / name).read_text("utf-8"))]


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (text for inner in value.values() for text in strings(inner))
    elif isinstance(value, list):
        yield from (text for inner in value for text in strings(inner))
    elif isinstance(value, str):
        yield value


def texts(file: Path) -> Iterator[str]:
    """What may be a command in a file, on one line each: strings of YAML, lines of others, and the
    commands that a comment gives.
    """
    text = file.read_text("utf-8")
    lines = re.sub(r" *\\\n#? *", " ", text).splitlines()
    if file.suffix == ".yaml":
        yield from (one for document in documents(file.name) for one in strings(document))
        lines = [line.lstrip("# ") for line in lines if line.startswith("#   ")]
    yield from lines


def groups() -> dict[str, click.Group]:
    found: dict[str, Any] = {"ray": ray.scripts.scripts.cli, "mlflow": mlflow.cli.cli}
    for program, entry in _SCRIPTS.items():
        found[program] = typer.main.get_command(importlib.import_module(entry.split(":")[0]).app)
    return found


def options_of(command: click.Command) -> set[str]:
    return {name for one in command.params for name in (*one.opts, *one.secondary_opts)}


def wrong_in(text: str, programs: dict[str, Any]) -> list[str]:
    """Commands and options in a text that do not exist."""
    wrong, found = [], [*_COMMAND.finditer(text)]
    ends = [*(match.start() for match in found), len(text)][1:]
    for match, end in zip(found, ends, strict=True):
        program, name = match.groups()
        commands = programs[program].commands
        # A program's other names are those of functions.
        command = commands.get(name) or commands.get(name.replace("-", "_"))
        if command is None:
            wrong.append(f"{program} {name}")
            continue
        known = options_of(command)
        if (other := _HANDS_ON.get(f"{program} {name}")) is not None:
            known |= options_of(programs[program].commands[other.split()[1]])
        said = text[match.end() : end]
        wrong += [
            f"{program} {name} {option}"
            for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", said.split(" -- ")[0])
            if option not in known
        ]
    return wrong


FILES = sorted(DEPLOY.iterdir())


def test_these_are_the_launch_files() -> None:
    assert [file.name for file in FILES] == [
        "Dockerfile",
        "compose.yaml",
        "kuberay-rayjob.yaml",
        "ray-cluster.yaml",
        "slurm.sbatch",
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.name))
def test_every_command_and_option_in_it_exists(file: Path) -> None:
    programs = groups()
    found = [*texts(file)]
    assert file.name == "Dockerfile" or any(_COMMAND.search(text) for text in found)
    assert [wrong for text in found for wrong in wrong_in(text, programs)] == []


def test_the_check_sees_what_is_wrong() -> None:
    programs = groups()
    assert wrong_in("/x/bin/ray start --head --blok && mmm-search run q --trial 3", programs) == [
        "ray start --blok",
        "mmm-search run --trial",
    ]
    assert wrong_in("ray symmetric-run --min-nodes 2 --num-cpus=1 -- true --any", programs) == []
    assert wrong_in("mmm-search serve x --port 1", programs) == ["mmm-search serve"]
    assert wrong_in("mlflow server --hosts 0.0.0.0", programs) == ["mlflow server --hosts"]


def test_ray_up_takes_its_file() -> None:
    (config,) = documents("ray-cluster.yaml")
    validate_config(prepare_config(config))
    commands = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    starts = [command for command in commands if "ray start" in command]
    assert len(starts) == 2
    assert all(command.startswith("RAY_AUTH_MODE=token ") for command in starts)
    with pytest.raises(Exception, match="'head_commands' was unexpected"):
        validate_config(prepare_config({**config, "head_commands": []}))


def test_the_job_of_kubernetes_asks_for_a_token_and_starts_from_no_machine() -> None:
    claim, job = documents("kuberay-rayjob.yaml")
    assert (claim["kind"], job["kind"], job["apiVersion"]) == (
        "PersistentVolumeClaim",
        "RayJob",
        "ray.io/v1",
    )
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["rayVersion"] == ray.__version__
    assert cluster["enableInTreeAutoscaling"] is True
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] == 0
    for group in (cluster["headGroupSpec"], workers):
        pod = group["template"]["spec"]
        claims = [volume.get("persistentVolumeClaim") for volume in pod["volumes"]]
        assert {"claimName": claim["metadata"]["name"]} in claims
        (container,) = pod["containers"]
        assert container["image"].endswith(f"/mmm-search:{VERSION}")
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_the_composition_opens_one_door_on_this_machine_and_has_no_secret_in_it() -> None:
    (composed,) = documents("compose.yaml")
    services = composed["services"]
    assert services.keys() == {"postgres", "s3", "mlflow", "ray-head", "ray-worker"}
    ports = [port for one in services.values() for port in one.get("ports", [])]
    assert ports == ["127.0.0.1:5000:5000"]
    for name in ("ray-head", "ray-worker"):
        assert services[name]["environment"]["RAY_AUTH_MODE"] == "token"
    for one in services.values():
        assert ":" in one["image"]  # a version
        for variable, value in one.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|KEY|URI$", variable):
                assert "${" in value, variable
        assert not re.search("PASSWORD|SECRET|TOKEN", str(one.get("command")))


def test_the_image_has_the_tested_versions() -> None:
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    assert f"ray[default]=={ray.__version__}" in text
    assert "--constraint /source/constraints.txt" in text
    assert re.search(r"^FROM python:3\.\d+\.\d+-", text, re.MULTILINE)
    assert f"-t mmm-search:{VERSION} " in text
    for copied in re.findall(r"^COPY (.+) /source", text, re.MULTILINE):
        assert all((ROOT / name).exists() for name in copied.split())


# What Slurm gives, for one machine: its commands, and the variables of a job.
_SLURM = {
    "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "scontrol": "echo 127.0.0.1",
}


def slurm_environment(folder: Path) -> dict[str, str]:
    for name, text in _SLURM.items():
        write_program(folder / name, text)
    python = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": f"{folder}:{python}:{os.environ['PATH']}",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "here",
        "SLURM_NNODES": "1",
        "SLURM_CPUS_PER_TASK": "3",
        "SPACE": "quick",
        "MANIFEST": "m.csv",
        "FEATURES": "f",
        "NAME": "big",
    }


def write_program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


def test_the_batch_script_hands_slurms_signal_to_the_sweep_and_its_status_on(
    tmp_path: Path,
) -> None:
    environment = slurm_environment(tmp_path)
    environment |= {"RUNS": str(tmp_path / "runs"), "RAY_TMPDIR": str(tmp_path / "temporary")}
    write_program(tmp_path / "ray", 'while [[ $1 != -- ]]; do shift; done; shift; "$@"')
    write_program(
        tmp_path / "mmm-search",
        'trap "echo ended in good order; exit 7" TERM; echo trains; while true; do read -t 1; done',
    )
    with subprocess.Popen(
        ["bash", str(DEPLOY / "slurm.sbatch")],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "trains\n"
        script.send_signal(signal.SIGTERM)
        assert script.stdout.read() == "ended in good order\n"
    assert script.returncode == 7


def test_the_batch_script_is_bash() -> None:
    subprocess.run(["bash", "-n", str(DEPLOY / "slurm.sbatch")], check=True)


@pytest.mark.parametrize("is_there", [False, True], ids=["new", "again"])
@pytest.mark.parametrize("gpus", [None, "a100:2"])
def test_the_batch_script_starts_the_sweep_or_goes_on_with_it(
    tmp_path: Path, is_there: bool, gpus: str | None
) -> None:
    environment = slurm_environment(tmp_path) | {"RUNS": str(tmp_path / "runs")}
    environment["RAY_TMPDIR"] = str(tmp_path / "temporary")
    if gpus is not None:
        environment["SLURM_GPUS_PER_TASK"] = gpus
    if is_there:
        (tmp_path / "runs" / "big").mkdir(parents=True)
        (tmp_path / "runs" / "big" / "ledger.sqlite").touch()
    told = tmp_path / "told"
    write_program(tmp_path / "ray", f'printf "%q " "$@" > {told}')
    subprocess.run(["bash", str(DEPLOY / "slurm.sbatch")], env=environment, check=True)
    command = told.read_text()
    assert wrong_in(f"ray {command}", groups()) == []
    ray_part, _, sweep = command.partition(" -- ")
    assert shlex.split(ray_part)[-3:] == [
        "--num-cpus=3",
        f"--num-gpus={2 if gpus else 0}",
        "--include-dashboard=false",
    ]
    words = shlex.split(sweep)
    words = words[words.index("mmm-search") :]
    assert wrong_in(sweep, groups()) == []
    assert words[1:3] == (["resume", "big"] if is_there else ["run", "quick"])
    assert words[words.index("--workers") + 1] == ("8" if gpus else "3")
    assert ("--gpus-per-trial" in words) == (gpus is not None and not is_there)
    address = shlex.split(ray_part)[2]
    assert words[words.index("--address") + 1] == address
