"""A search by Ray Tune's stock objects, to have faults done to it as they are done to ours.

    python -m benchmarks.stock_faults STORAGE EPOCHS_LOG [--address A] [--restore]

Four trials of ten epochs of 0.3 s, two at a time: a class `Trainable` with a checkpoint every
epoch, `ASHAScheduler`, `OptunaSearch`, `FailureConfig` at its default. Each epoch that was trained
is a line of EPOCHS_LOG, which is not below STORAGE; the last lines printed say which trials ended
as ERROR and how many ended either way.
"""

import argparse
import os
import time
from collections import Counter
from pathlib import Path

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

TRIALS, EPOCHS, EPOCH_S = 4, 10, 0.3
NAME = "stock"
_WEIGHTS = 300_000  # bytes of a checkpoint


class Training(tune.Trainable):
    """Epochs that take their time and nothing else."""

    def setup(self, config: dict[str, object]) -> None:
        self.rate = float(str(config["rate"]))

    def step(self) -> dict[str, float]:
        time.sleep(EPOCH_S)
        with Path(os.environ["STOCK_EPOCHS_LOG"]).open("a") as log:
            log.write(f"{self.trial_id} {self.iteration + 1}\n")
        return {"score": self.rate * (self.iteration + 1), "done": self.iteration + 1 >= EPOCHS}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / "weights").write_bytes(bytes(_WEIGHTS))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        assert (Path(checkpoint_dir) / "weights").stat().st_size == _WEIGHTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("storage", type=Path)
    parser.add_argument("log", type=Path)
    parser.add_argument("--address", default="local")
    parser.add_argument("--restore", action="store_true")
    options = parser.parse_args()
    variables = {"STOCK_EPOCHS_LOG": str(options.log), "PYTHONPATH": str(Path.cwd())}
    cores = {"num_cpus": 2, "include_dashboard": False} if options.address == "local" else {}
    ray.init(options.address, runtime_env={"env_vars": variables}, **cores)
    space = {"rate": tune.uniform(0.1, 1.0)}
    if options.restore:
        where = str(options.storage / NAME)
        tuner = tune.Tuner.restore(where, trainable=Training, param_space=space)
    else:
        tuner = tune.Tuner(
            Training,
            param_space=space,
            tune_config=tune.TuneConfig(
                metric="score",
                mode="max",
                num_samples=TRIALS,
                max_concurrent_trials=2,
                search_alg=OptunaSearch(),
                scheduler=ASHAScheduler(grace_period=5, max_t=EPOCHS),
            ),
            run_config=tune.RunConfig(
                name=NAME,
                storage_path=str(options.storage),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1),
            ),
        )
    results = tuner.fit()
    ends = Counter("ERROR" if result.error else "ended" for result in results)
    reported = [result.metrics for result in results if result.error and result.metrics]
    print("ERROR OF", *(metrics["trial_id"] for metrics in reported))
    print(f"TRIALS {ends['ended']} {ends['ERROR']}", flush=True)


if __name__ == "__main__":
    main()
