"""`voice` against the functions of the package that its weights come from, on real clips.

    python -m venv reference && reference/bin/pip install torch 'librosa==0.10.2.post1' webrtcvad
    reference/bin/pip install --no-deps resemblyzer==0.1.4
    python -m benchmarks.voice_reference --reference reference/bin/python manifest.csv

The package needs an environment of its own, because its requirements are old ones; it is asked in a
process of that Python, which gets waves and answers with frames of every layer, partial vectors and
utterance vectors. Sound is taken as it is: its trimming of silence is not part of `voice`. Clips
are spread evenly over a manifest. Exits with 1 where anything differs by more than 1e-4.

`--write FILE` makes what tests compare with: a few numbers of the package for waves by formula.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

TOLERANCE = 1e-4
LAYERS = ("1", "2", "3")


def ask_the_package(waves: Path, answers: Path) -> None:
    """Runs where the package is installed."""
    import torch
    from resemblyzer import VoiceEncoder
    from resemblyzer.audio import normalize_volume, wav_to_mel_spectrogram

    encoder = VoiceEncoder("cpu", verbose=False)
    state = encoder.lstm.state_dict()
    lstms = {}
    for layer in LAYERS:  # its LSTM tells of the last layer only
        lstms[layer] = torch.nn.LSTM(40, 256, int(layer), batch_first=True)
        lstms[layer].load_state_dict({name: state[name] for name in lstms[layer].state_dict()})
    found = {}
    for name, wave in np.load(waves).items():
        loud = normalize_volume(wave, -30, increase_only=True)
        mel = torch.from_numpy(wav_to_mel_spectrogram(loud))[None]
        with torch.no_grad():
            for layer, lstm in lstms.items():
                found[f"{name}/{layer}"] = lstm(mel)[0][0].numpy()
        vector, partials, _ = encoder.embed_utterance(loud, return_partials=True)
        found[f"{name}/projection"], found[f"{name}/utterance"] = partials, vector
    np.savez(answers, **found)


def of_the_package(python: str, waves: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder, "waves.npz"), Path(folder, "answers.npz")
        np.savez(asked, **waves)
        script = [python, "-W", "ignore", __file__, "--package", str(asked), str(answered)]
        subprocess.run(script, check=True)
        return dict(np.load(answered))


def of_ours(waves: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    from mmm.encoders.make import make_speech_encoder

    encoder = make_speech_encoder("voice")
    encoder.load()
    found = {}
    for name, wave in waves.items():
        kinds = (*LAYERS, "projection")
        features = encoder.encode(wave, [f"hidden_state@{kind}" for kind in kinds])
        for kind in kinds:
            found[f"{name}/{kind}"] = features[f"hidden_state@{kind}"]
        mean = found[f"{name}/projection"].mean(axis=0)
        found[f"{name}/utterance"] = mean / np.linalg.norm(mean)
    return found


def some_clips(path: Path, number: int) -> dict[str, np.ndarray]:
    from mmm.audio.speech import read_speech
    from mmm.manifest_csv import read_manifest

    manifest = read_manifest(path)
    names = sorted({utterance.audio for utterance in manifest.utterances})
    chosen = [names[place] for place in np.linspace(0, len(names) - 1, number).astype(int)]
    return {f"{i}": read_speech(path.parent / name) for i, name in enumerate(chosen)}


def waves_by_formula() -> dict[str, np.ndarray]:
    """Two that a test can make again: quiet tones in a noise of sines, and a short loud one."""
    time_s = np.arange(40_000) / 16_000
    hum = sum(np.sin(2 * np.pi * (97.3 * k * k + 31 * k) * time_s + k) / k for k in range(1, 9))
    beat = 1 + np.sin(2 * np.pi * 3 * time_s)
    return {
        "quiet": (0.004 * hum * beat).astype(np.float32),
        "loud": (0.4 * hum * beat)[:9_000].astype(np.float32),
    }


def write(python: str, file: Path) -> None:
    """Every 50th frame and every 32nd number of each, to six decimals."""
    kept = {
        name: {"shape": values.shape, "some": np.round(some(values), 6).tolist()}
        for name, values in of_the_package(python, waves_by_formula()).items()
    }
    file.write_text(json.dumps(kept) + "\n")


def some(values: np.ndarray) -> np.ndarray:
    every = 1 if len(values) < 50 else 50
    return values[::32].astype(float) if values.ndim == 1 else values[::every, ::32].astype(float)


def compare(python: str, manifests: list[Path], number: int) -> float:
    """Prints a row a corpus; the largest difference of all."""
    columns = (*LAYERS, "projection", "utterance")
    print("| corpus | clips | seconds | " + " | ".join(columns) + " |")
    print("| --- | ---: | ---: |" + " ---: |" * len(columns))
    largest = 0.0
    for path in manifests:
        waves = some_clips(path, number)
        theirs, ours = of_the_package(python, waves), of_ours(waves)
        assert all(theirs[name].shape == ours[name].shape for name in theirs)
        of_kind = [
            max(
                float(np.abs(theirs[name] - ours[name]).max())
                for name in theirs
                if name.endswith(f"/{kind}")
            )
            for kind in columns
        ]
        seconds = [len(wave) / 16_000 for wave in waves.values()]
        told = " | ".join(f"{value:.1e}" for value in of_kind)
        print(
            f"| {path.parent.name} | {len(waves)} | {min(seconds):.1f} to {max(seconds):.1f} |"
            f" {told} |"
        )
        largest = max(largest, *of_kind)
    return largest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("manifests", nargs="*", type=Path)
    parser.add_argument("--reference", metavar="PYTHON", help="where the package is installed")
    parser.add_argument("--clips", type=int, default=20, help="of each manifest")
    parser.add_argument("--write", type=Path, metavar="FILE", help="what tests compare with")
    parser.add_argument("--package", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.package:
        ask_the_package(*given.package)
        return
    if given.reference is None:
        parser.error("--reference PYTHON is needed")
    if given.write:
        write(given.reference, given.write)
    if given.manifests:
        largest = compare(given.reference, given.manifests, given.clips)
        sys.exit(largest > TOLERANCE)


if __name__ == "__main__":
    main()
