"""Which trials are rehearsed before a sweep that measures how many share a GPU."""

from collections.abc import Iterator, Sequence

from mmm.manifest_csv import manifest_text
from mmm.training.config import TrainConfig
from search.engine.pack_sizes import PackSizes
from search.plan.checks import Checked
from search.plan.cost import relative_size
from search.plan.rehearsal import Case, Job
from search.space.sampling import draw
from search.space.settings import precision_of, sweep_precisions, trial_config

_NUM_DRAWS = 300


def job_of(checked: Checked, device: str = "cuda") -> Job:
    """The smallest and the largest settings of each system, to be rehearsed."""
    spec, check = checked.spec, checked.settings_check
    precisions = sweep_precisions(spec)
    manifest = check.manifest
    return Job(
        manifest=spec.manifest,
        manifest_text=manifest_text(manifest),
        manifest_sha256=manifest.sha256,
        classes=manifest.classes,
        features=spec.features,
        fold=1 if spec.folds else None,
        device=device,
        cases=tuple(
            Case(
                config.params(),
                spec.features_key(config),
                precision_of(precisions, config.architecture),
                *PackSizes(spec).at_first(config.params()),
            )
            for config in _ends(list(_drawn(checked)), checked)
        ),
    )


def _drawn(checked: Checked) -> Iterator[TrainConfig]:
    for _, _, settings in draw(checked.space, _NUM_DRAWS):
        try:
            yield trial_config(settings, checked.spec)
        except ValueError:
            continue  # such trials end failed


def _ends(configs: Sequence[TrainConfig], checked: Checked) -> Iterator[TrainConfig]:
    """The smallest and the largest of each system, by what a batch of them computes."""

    def size(config: TrainConfig) -> float:
        return config.batch_size * relative_size(config, checked.settings_check.features(config))

    for architecture in dict.fromkeys(config.architecture for config in configs):
        ordered = sorted(
            (config for config in configs if config.architecture == architecture), key=size
        )
        yield from dict.fromkeys((ordered[0], ordered[-1]))
