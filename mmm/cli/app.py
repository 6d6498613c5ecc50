"""The command `mmm`."""

import sys

import typer

import mmm
from mmm.cli.encode import encode
from mmm.cli.predict import demo, predict
from mmm.cli.prepare import corpus_report, demo_corpus, prepare
from mmm.cli.profile import profile
from mmm.cli.train import baselines, test, train
from mmm.console import run_app
from mmm.training.malloc import restart_reusing_holes

# Modules that import torch are imported inside the commands: --help and typing errors must not wait
# for them.
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=mmm.__doc__,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(prepare, name="prepare")
for command in (demo_corpus, corpus_report, encode, train, test, predict, demo, profile, baselines):
    app.command()(command)


def main() -> None:
    if sys.argv[1:2] in (["train"], ["profile"]):
        restart_reusing_holes()
    run_app(app)
