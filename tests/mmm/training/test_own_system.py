"""A system of the user's own: what is asked of its class, its settings, its training in packs, and
the command that checks it.
"""

from pathlib import Path
from typing import Any

import pytest

from mmm.training.checkpoint import load_checkpoint
from mmm.training.config import ConfigError, TrainConfig, make_config, new_params
from mmm.training.contract import trains_in_packs
from mmm.training.own_system import OwnSystem, UnnamedSystem, load_system
from mmm.training.run import Run, begin
from tests.conftest import Corpus, save_checkpoint
from tests.mmm.training.test_pack import MEMBERS, assert_each_as_alone
from tests.own_system_parts import write_system
from tests.sweep_parts import call_inside

SEQUENCE = """
from torch import cat, nn
from mmm.models.layers import keep_all, keep_real

class Recurrent(nn.Module):
    is_pooled = False

    def __init__(self, *, speech_width, text_width, num_classes, {more}):
        super().__init__()
        self.gru = nn.GRU(speech_width, 8, batch_first=True)
        self.out = nn.Linear(8 + text_width, num_classes)

    def forward(self, speech, speech_mask, text, text_mask, drop=keep_all):
        turns = keep_real(self.gru(keep_real(speech, speech_mask))[0], speech_mask).sum(dim=1)
        return self.out(cat([turns, keep_real(text, text_mask).sum(dim=1)], dim=-1))
"""


@pytest.fixture
def product(tmp_path: Path) -> OwnSystem:
    return load_system(write_system(tmp_path))


def sequence(folder: Path, more: str = "depth=2, kind='a', is_deep=False") -> str:
    (folder / "recurrent.py").write_text(SEQUENCE.replace("{more}", more))
    return f"{folder / 'recurrent.py'}:Recurrent"


def begun(corpus: Corpus, product: OwnSystem, **changes: Any) -> Run:
    small = {"width": 8, "classifier_hidden": 12, "batch_size": 6, "context": 2, "epochs": 3}
    config = make_config({**new_params(product.reference), **small, "in_packs": True, **changes})
    return begin(config, corpus.features(config.audio_feature, config.context))


def test_settings_of_its_own_are_completed_and_made_again(product: OwnSystem) -> None:
    config = make_config({"architecture": product.reference, "own.earlier": 1})
    assert (config.architecture, config.system_sha256) == ("Product", product.sha256)
    assert config.params()["own.earlier"] == 1.0
    assert make_config(config.params()) == config
    assert config.is_pooled
    assert make_config({"architecture": product.reference}).params()["own.earlier"] == 0.5
    assert new_params(product.reference)["width"] == 64


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"own.earlier": "x"}, "own.earlier='x' is not like its default 0.5 (float)"),
        ({"own.earlier": True}, "own.earlier=True is not like its default 0.5 (float)"),
        ({"own.late": 1}, "unknown setting 'own.late' of Product; known: own.earlier"),
        ({"heads": 2}, "heads does not apply to Product, which does not take it"),
        ({"masked": False}, "masked does not apply to Product, which does not take it"),
        ({"late": 1}, "unknown setting 'late'; known: architecture, context"),
    ],
)
def test_settings_that_it_does_not_have_are_refused(
    product: OwnSystem, settings: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        make_config({"architecture": product.reference, **settings})
    assert fault in str(refused.value)


def test_a_system_of_ours_has_no_settings_of_its_own() -> None:
    with pytest.raises(ConfigError, match=r"own\.x does not apply to mlp_mixer, one of ours"):
        make_config({"architecture": "mlp_mixer", "own.x": 1})


def test_settings_alone_load_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnnamedSystem, match="only loaded where a command or a space names it"):
        make_config({"architecture": sequence(tmp_path)})


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (SEQUENCE.replace("{more}", "depth"), "depth of its constructor is none of speech_width,"),
        (SEQUENCE.replace("{more}", "depth=None"), "it has the default None; expected one that is"),
        (SEQUENCE.replace("{more}", "**rest"), "its constructor takes **rest"),
        (SEQUENCE.replace("is_pooled = False", ""), "add a line to the class, is_pooled = True"),
        ("def Recurrent(): pass", "no torch.nn.Module, but <function Recurrent"),
        ("1 / 0", "cannot be loaded as a system: ZeroDivisionError"),
    ],
)
def test_a_class_that_cannot_be_one_of_ours_is_refused(
    tmp_path: Path, text: str, fault: str
) -> None:
    (tmp_path / "wrong.py").write_text(text.replace("{more}", "depth=1"))
    with pytest.raises(ValueError) as refused:
        load_system(f"{tmp_path / 'wrong.py'}:Recurrent")
    assert fault in str(refused.value)


def test_members_of_a_pack_get_the_numbers_that_they_would_get_alone(
    corpus: Corpus, product: OwnSystem
) -> None:
    alone, together = ([begun(corpus, product, **member) for member in MEMBERS] for _ in range(2))
    assert_each_as_alone(alone, together)


def test_what_cannot_be_packed_trains_alone(tmp_path: Path, product: OwnSystem) -> None:
    def config(system: OwnSystem) -> TrainConfig:
        return make_config({"architecture": system.reference})

    assert trains_in_packs(config(product))
    assert not trains_in_packs(config(load_system(sequence(tmp_path))))


def test_a_run_goes_on_from_its_checkpoint(
    corpus: Corpus, product: OwnSystem, tmp_path: Path
) -> None:
    save_checkpoint(begun(corpus, product), tmp_path / "checkpoint")
    load_checkpoint(begun(corpus, product), tmp_path / "checkpoint")
    with pytest.raises(ValueError, match=r"own\.earlier"):
        load_checkpoint(begun(corpus, product, **{"own.earlier": 0.1}), tmp_path / "checkpoint")


@pytest.mark.slow  # torch's exporter traces and translates
def test_the_command_says_of_each_claim_whether_it_holds(tmp_path: Path) -> None:
    done = call_inside("mmm", "check-architecture", write_system(tmp_path), "--own", "earlier=1")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("Product takes one vector an utterance; file ")
    assert len(lines) == 12
    assert {line.split()[0] for line in lines[1:]} == {"ok"}


@pytest.mark.slow
def test_the_command_fails_where_the_contract_is_broken(tmp_path: Path) -> None:
    text = SEQUENCE.replace("{more}", "depth=1").replace("keep_real(text, text_mask)", "text")
    (tmp_path / "leaky.py").write_text(text)
    reference = f"{tmp_path / 'leaky.py'}:Recurrent"
    done = call_inside("mmm", "check-architecture", reference, status=1)
    said = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert said["failed"].startswith(
        "failed  what is missing or padding changes neither logits nor gradients: 7 in padding"
    )
    assert "keep_real(values, mask)" in said["failed"]
    assert "it will be trained alone" in done.stdout


def test_a_copy_of_the_file_is_the_same_system_in_another_place(
    tmp_path: Path, product: OwnSystem
) -> None:
    (tmp_path / "copy").mkdir()
    copied = load_system(write_system(tmp_path / "copy"))
    assert (copied.sha256, copied.make) == (product.sha256, product.make)
    assert copied.reference == f"{tmp_path / 'copy' / 'my_system.py'}:Product"
    assert make_config({"architecture": copied.reference}).system == copied.reference
