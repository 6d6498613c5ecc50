"""The command `mmm`."""

import sys

import mmm
from mmm.cli.corpus_report import corpus_report
from mmm.cli.demo_corpus import demo_corpus
from mmm.cli.encode import encode
from mmm.cli.features import features
from mmm.cli.predict import demo, predict
from mmm.cli.prepare import prepare
from mmm.cli.profile import profile
from mmm.cli.systems import check_architecture
from mmm.cli.train import baselines, test, train
from mmm.console import add_commands, new_app, run_app
from mmm.training.malloc import restart_reusing_holes

# Modules that import torch are imported inside the commands: --help and typing errors must not wait
# for them.
app = new_app(" ".join((mmm.__doc__ or "").split()))
app.add_typer(prepare, name="prepare")
add_commands(
    app,
    *(demo_corpus, corpus_report, encode, features, train, test, predict, demo, profile, baselines),
    check_architecture,
)


def main() -> None:
    command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    if command in ("train", "profile"):
        restart_reusing_holes()
    run_app(app)
