"""What the pooled systems see of speech: mean, deviation, one layer, the mean of all, learned
weights.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import WhisperModel

from mmm.bundle.evaluate import evaluate_bundle
from mmm.bundle.onnx_head import export_onnx
from mmm.bundle.read import load_bundle
from mmm.bundle.write import save_run_bundle
from mmm.encoders import at_layer
from mmm.encoders.extract import encode_speech, encode_text
from mmm.encoders.make import make_speech_encoder
from mmm.features.named import encoders_in
from mmm.features.recipe import LAYERS
from mmm.features.store import open_store
from mmm.models.attentive_pooling import AttentivePooling
from mmm.models.layer_mix import LayerMix
from mmm.models.scaled import Scaled
from mmm.predict.predictor import Predictor
from mmm.training.config import ConfigError, make_config
from mmm.training.features import load_features
from mmm.training.fit import fit, fit_pack
from mmm.training.run import Run, begin
from tests.conftest import CONTEXTS, Corpus, small_config, small_text_encoder
from tests.encode_parts import run_printed
from tests.mmm.encoders.test_speech_families import save_whisper
from tests.sweep_parts import call_inside

LINEAR = make_config({"architecture": "linear"})
POOLED = ["vanilla_concat", "three_way_concat", "gated_fusion", "late_fusion", "linear"]


@pytest.fixture(scope="module")
def layered(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Layers 1 and 3 of a tiny Whisper."""
    folder = tmp_path_factory.mktemp("layered")
    encoder = make_speech_encoder(str(save_whisper(folder / "tiny-whisper")), layers="1,3")
    outputs = [at_layer("1"), at_layer("3"), LAYERS]
    list(encode_speech(corpus.manifest, folder / "features", encoder, outputs))
    list(encode_text(corpus.manifest, folder / "features", small_text_encoder(), CONTEXTS))
    return Corpus(corpus.manifest, folder / "features")


def test_layers_from_one_pass_are_those_of_a_pass_each(layered: Corpus, tmp_path: Path) -> None:
    names = [one.name for one in encoders_in(layered.features_dir) if one.kind == "audio"]
    assert names == ["tiny-whisper-l1", "tiny-whisper-l3"]
    model = layered.features_dir.parent / "tiny-whisper"
    assert isinstance(WhisperModel.from_pretrained(model), WhisperModel)
    for layer, name in (("1", names[0]), ("3", names[1])):
        alone = make_speech_encoder(str(model), layer=layer)
        list(encode_speech(layered.manifest, tmp_path, alone, ["hidden_state"]))
        found = layered.features(speech=name).speech
        path = tmp_path / found.path.name  # the same recipe, so the same folder
        np.testing.assert_array_equal(np.load(path / "values.npy"), found.values)


def test_the_store_of_all_layers_has_their_means_and_deviations(layered: Corpus) -> None:
    stores = [layered.features(speech=f"tiny-whisper-l{layer}").speech for layer in (1, 3)]
    key = replace(LINEAR, layer_mix="mean", speech="tiny-whisper-l1").features_key
    mixed = load_features(layered.manifest, layered.features_dir, *key).speech
    assert mixed.recipe["layer"] == "1,3"
    for row in (0, 7, 39):
        means_and_deviations = mixed.values[mixed.offsets[row] : mixed.offsets[row + 1]]
        frames = [
            store.values[store.offsets[row] : store.offsets[row + 1]].astype(np.float32)
            for store in stores
        ]
        expected = [one.mean(axis=0) for one in frames] + [one.std(axis=0) for one in frames]
        np.testing.assert_allclose(means_and_deviations, np.stack(expected), atol=2e-3)


@pytest.mark.parametrize("mix", ["one", "mean", "learned"])
@pytest.mark.parametrize("pooling", ["mean", "mean_std"])
def test_vectors_are_what_their_settings_say(layered: Corpus, mix: str, pooling: str) -> None:
    config = small_config(
        "vanilla_concat", speech="tiny-whisper-l3", pooling=pooling, layer_mix=mix
    )
    features = load_features(layered.manifest, layered.features_dir, *config.features_key)
    vectors = features.vectors(config)
    parts = {}
    for layer in (1, 3):
        store = layered.features(speech=f"tiny-whisper-l{layer}").speech
        frames = store.values[store.offsets[5] : store.offsets[6]].astype(np.float32)
        parts[layer] = [frames.mean(axis=0)] + (
            [frames.std(axis=0)] if pooling == "mean_std" else []
        )
    both = [np.concatenate(parts[layer]) for layer in (1, 3)]
    expected = {
        "one": np.concatenate(parts[3]),
        "mean": np.stack(both).mean(axis=0),
        "learned": np.concatenate(both),
    }[mix]
    np.testing.assert_allclose(vectors[5].astype(np.float32), expected, atol=3e-3)


@pytest.mark.parametrize(
    ("pooling", "mix"), [("mean_std", "one"), ("mean_std", "learned"), ("attentive", "one")]
)
@pytest.mark.parametrize("architecture", POOLED)
def test_a_prediction_from_the_bundle_is_what_evaluation_gives(
    layered: Corpus, tmp_path: Path, architecture: str, pooling: str, mix: str
) -> None:
    if architecture == "linear":
        config = replace(LINEAR, pooling="mean_std", speech="tiny-whisper-l3", c=0.1)
        if (pooling, mix) != ("mean_std", "one"):
            pytest.skip("solved, so nothing is learned")
    else:
        config = small_config(
            architecture, pooling=pooling, layer_mix=mix, speech="tiny-whisper-l3", context=2
        )
    features = load_features(layered.manifest, layered.features_dir, *config.features_key)
    run = begin(config, features)
    for _ in fit(run):
        pass
    save_run_bundle(run, tmp_path / "bundle", name="mixed")
    bundle = load_bundle(tmp_path / "bundle")
    rows = layered.manifest.rows("dev")
    found = evaluate_bundle(
        bundle, layered.manifest, layered.features_dir, rows, torch.device("cpu")
    )
    assert found["macro_f1"] == pytest.approx(run.best_metrics["macro_f1"])
    assert found["loss"] == pytest.approx(run.best_metrics["loss"], abs=1e-5)
    predictor, row = Predictor(bundle), rows[3]
    history = layered.manifest.history(row, 2)[1:]
    said = layered.manifest.utterances
    answer = predictor.predict(
        layered.manifest.audio_path(said[row]),
        said[row].text,
        [(layered.manifest.audio_path(said[one]), said[one].text) for one in history],
    )
    batch = run.dev.batch(torch.tensor([list(run.dev.indices).index(row)]), torch.device("cpu"))
    with torch.inference_mode():
        logits = bundle.model(batch.speech, batch.speech_mask, batch.text, batch.text_mask)
    np.testing.assert_allclose(list(answer.values()), logits.softmax(dim=-1)[0], atol=2e-3)


def test_beside_several_layers_another_one_is_kept_at_their_rate_and_encoded_again(
    layered: Corpus, tmp_path: Path
) -> None:
    features, model = tmp_path / "features", layered.features_dir.parent / "tiny-whisper"
    speech = ["encode", layered.manifest.path, "--features", features, "--audio-encoder", model]
    call_inside("mmm", *speech, "--layers", "1,3", "--speech-only")
    call_inside("mmm", *speech, "--speech-only")
    encoders = encoders_in(features)
    assert {one.recipe["frame_rate_hz"] for one in encoders} == {12.5}
    lasts = [one for one in encoders if one.recipe["layer"] == "last"]
    last = lasts[0].store(feature="hidden_state")
    assert last is not None
    kept = {
        path.name: (path / "values.npy").read_bytes() for one in encoders for path in one.stores
    }
    lines = layered.manifest.path.read_text().splitlines()
    longer = layered.manifest.path.with_name("longer.csv")
    longer.write_text("\n".join([*lines, lines[1].replace("u00", "new").replace("s1d0", "x")]))
    call_inside("mmm", "encode", longer, "--features", features, "--speech-only")
    longer.unlink()
    for path in (path for one in encoders_in(features) for path in one.stores):
        assert len(open_store(path).keys) == 41
        assert (path / "values.npy").read_bytes() == kept[path.name]  # the clip was there


def test_layers_that_were_not_encoded_are_added_by_the_printed_command(
    layered: Corpus, tmp_path: Path
) -> None:
    model = layered.features_dir.parent / "tiny-whisper"
    alone = make_speech_encoder(str(model), layer="3", frame_rate=12.5)
    list(encode_speech(layered.manifest, tmp_path, alone, ["hidden_state"]))
    list(encode_text(layered.manifest, tmp_path, small_text_encoder(), [1]))
    key = replace(LINEAR, layer_mix="mean").features_key
    with pytest.raises(FileNotFoundError, match="no audio features for layer_mix") as error:
        load_features(layered.manifest, tmp_path, *key)
    assert "--layer 3" not in str(error.value)
    run_printed(str(error.value))
    names = [one.name for one in encoders_in(tmp_path) if one.kind == "audio"]
    assert names == ["tiny-whisper-l1", "tiny-whisper-l2", "tiny-whisper-l3"]
    load_features(layered.manifest, tmp_path, *key._replace(speech="tiny-whisper-l3"))


def test_learned_weights_are_a_softmax_over_the_layers() -> None:
    class Head(torch.nn.Module):
        def forward(self, speech: torch.Tensor, *rest: object) -> torch.Tensor:
            return speech

    mix = LayerMix(Head(), num_layers=2)
    speech = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])  # one turn, two layers of width 2
    nothing = torch.empty(0)
    torch.testing.assert_close(mix(speech, nothing, nothing, nothing), torch.tensor([[[2.0, 3.0]]]))
    with torch.no_grad():
        mix.weights.copy_(torch.tensor([0.0, 3.0]).log())
    mix.weights.data[0] = torch.tensor(1.0).log()
    torch.testing.assert_close(mix(speech, nothing, nothing, nothing), torch.tensor([[[2.5, 3.5]]]))


def test_attention_pools_frames_by_a_softmax_of_their_scores_and_missing_turns_are_zero() -> None:
    class Head(torch.nn.Module):
        def forward(self, speech: torch.Tensor, mask: torch.Tensor, *rest: object) -> torch.Tensor:
            return torch.cat([speech, mask.unsqueeze(-1).float()], dim=-1)

    generator = np.random.default_rng(1)
    frames = generator.normal(size=(1, 3, 4, 2)).astype(np.float32)
    lengths = [4, 2, 0]
    mask = np.array([[[place < length for place in range(4)] for length in lengths]])
    frames[~mask] = np.nan
    pooling = AttentivePooling(Head(), speech_width=2)
    with torch.no_grad():
        pooling.scores.weight.copy_(torch.tensor([[0.7, -0.3]]))
    nothing = torch.empty(0)
    found = pooling(torch.from_numpy(frames), torch.from_numpy(mask), nothing, nothing)
    for turn, length in enumerate(lengths):
        expected = np.zeros(2)
        if length:
            own = frames[0, turn, :length].astype(np.float64)
            weights = np.exp(own @ [0.7, -0.3])
            expected = (weights / weights.sum()) @ own
        np.testing.assert_allclose(
            found[0, turn].detach().numpy(), [*expected, float(length > 0)], atol=1e-6
        )


@pytest.mark.parametrize("architecture", POOLED[:-1])
def test_attention_is_learned_in_packs_as_alone_and_from_speech_alone(
    layered: Corpus, architecture: str
) -> None:
    def runs(inputs: str) -> list[Run]:
        configs = [
            small_config(
                architecture,
                pooling="attentive",
                speech="tiny-whisper-l1",
                seed=seed,
                context=2,
                inputs=inputs,
            )
            for seed in (1, 2)
        ]
        features = load_features(layered.manifest, layered.features_dir, *configs[0].features_key)
        return [begin(config, features) for config in configs]

    for inputs in ("both", "text"):
        alone, together = runs(inputs), runs(inputs)
        for run in alone:
            for _ in fit_pack([run]):
                pass
        for _ in fit_pack(list(together)):
            pass
        for one, other in zip(alone, together, strict=True):
            for name, weights in one.model.named_parameters():
                torch.testing.assert_close(
                    other.model.get_parameter(name), weights, atol=1e-5, rtol=1e-4
                )
            learned = one.model.get_parameter("head.scores.weight")
            assert bool((learned != 0).any()) == (inputs == "both")


@pytest.mark.slow  # the exporter takes seconds
def test_attention_is_the_same_in_onnx(layered: Corpus, tmp_path: Path) -> None:
    config = small_config(
        "gated_fusion", pooling="attentive", speech="tiny-whisper-l1", context=2, epochs=1
    )
    features = load_features(layered.manifest, layered.features_dir, *config.features_key)
    run = begin(config, features)
    for _ in fit(run):
        pass
    save_run_bundle(run, tmp_path / "bundle", name="attentive")
    assert export_onnx(load_bundle(tmp_path / "bundle"))  # checked against torch inside


def test_learned_weights_are_learned_and_a_pack_learns_those_of_each_alone(
    layered: Corpus,
) -> None:
    def runs() -> list[Run]:
        configs = [
            small_config("vanilla_concat", layer_mix="learned", speech="tiny-whisper-l1", seed=seed)
            for seed in (1, 2, 3)
        ]
        features = load_features(layered.manifest, layered.features_dir, *configs[0].features_key)
        return [begin(config, features) for config in configs]

    alone, together = runs(), runs()
    for run in alone:
        for _ in fit_pack([run]):
            pass
    for _ in fit_pack(list(together)):
        pass
    for one, other in zip(alone, together, strict=True):
        assert isinstance(one.model, Scaled)
        assert isinstance(one.model.head, LayerMix)
        assert bool((one.model.head.weights != 0).all())
        for name, weights in one.model.named_parameters():
            torch.testing.assert_close(other.model.get_parameter(name), weights)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"architecture": "mlp_mixer", "pooling": "mean"}, "pooling does not apply to mlp_mixer"),
        ({"architecture": "linear", "layer_mix": "learned"}, "does not apply to linear"),
        (
            {
                "architecture": "vanilla_concat",
                "layer_mix": "mean",
                "audio_feature": "extract_feature",
            },
            "audio_feature must be hidden_state",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, str], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        make_config(settings)
