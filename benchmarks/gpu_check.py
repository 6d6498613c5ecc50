"""What a GPU computes and how fast: agreement with the CPU, packs, memory, rates, precision.

    python -m benchmarks.gpu_check OUT [--device cuda] [--demo MANIFEST FEATURES] [--sections a,b]

Needs neither Ray, Optuna nor MLflow. Each section writes OUT/<section>.json and prints a line a
finding; one that fails does not stop the others, and makes the exit status 1. `--small --device
cpu` is a dry run, where the CPU is its own rival. MANIFEST is of `mmm demo-corpus`, FEATURES are
encoded with `--context 1,2,3`.
"""

import argparse
import gc
import json
import multiprocessing
import os
import statistics
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.training_data import features_of, write_corpus
from mmm.manifest_csv import read_manifest
from mmm.training import gpu_features
from mmm.training.checkpoint import checkpoint_bytes, load_checkpoint
from mmm.training.config import FeaturesKey, make_config
from mmm.training.features import Features, load_features
from mmm.training.fit import fit, fit_pack, train_epoch
from mmm.training.pack import Pack
from mmm.training.profile import profile
from mmm.training.run import Run, begin

os.environ.setdefault("HF_HUB_OFFLINE", "1")
SYSTEMS = (
    "vanilla_concat",
    "three_way_concat",
    "gated_fusion",
    "late_fusion",
    "cross_attention",
    "mlp_mixer",
)
PACKED = ("vanilla_concat", "late_fusion", "mlp_mixer", "cross_attention")
# A difference that rounding does not explain.
_SUSPECT = 5e-3


def settings(system: str, **changes: Any) -> dict[str, Any]:
    """A trial's settings."""
    own = {"heads": 4, "layers": 1} if system == "cross_attention" else {"width": 128}
    common = {"context": 3, "batch_size": 32, "lr": 1e-3, "dropout": 0.0, "epochs": 6, "seed": 7}
    return {"architecture": system, **common, **own, **changes}


def start(
    features: Features,
    system: str,
    device: torch.device,
    precision: str = "float32",
    **changes: Any,
) -> Run:
    """A run before its first epoch."""
    config = make_config(settings(system, **changes))
    return begin(config, features, device=device, precision=precision)


def curve(run: Run, epochs: int | None = None) -> list[tuple[float, float, float, float]]:
    """Training loss, validation loss, macro F1 and seconds of each epoch."""
    found = []
    for result in fit(run):
        metrics = result.metrics
        found.append((result.train_loss, metrics["loss"], metrics["macro_f1"], result.seconds))
        if epochs and len(found) == epochs:
            break
    return found


def weights_differ(one: Run, other: Run) -> float:
    """The largest difference of any weight."""
    a, b = one.model.state_dict(), other.model.state_dict()
    return max(float((a[name].cpu().double() - b[name].cpu().double()).abs().max()) for name in a)


class Check:
    """Where the checks run, and what they share."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.out, self.small = args, args.out.resolve(), args.small
        self.device = torch.device(args.device)
        self.is_gpu = self.device.type == "cuda"
        self.fast = "bf16" if self.is_gpu else "float32"
        self._demo: dict[int, Features] = {}
        self._published: Features | None = None

    def say(self, text: str) -> None:
        print(f"  {text}", flush=True)

    def sync(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize(self.device)

    def demo(self, context: int = 3) -> Features:
        if context not in self._demo:
            path, features = self.args.demo
            manifest = read_manifest(path, check_audio=False)
            self._demo[context] = load_features(manifest, features, "hidden_state", context)
        return self._demo[context]

    def published(self) -> Features:
        """Random features of the published widths and KEMDy20's durations, 50 frames a second."""
        if self._published is None:
            folder = self.out / "published"
            number = 64 if self.small else 2000
            sizes = {"speech_width": 64, "text_width": 64, "frames_per_s": 5} if self.small else {}
            self._published = features_of(write_corpus(folder, number, **sizes))
        return self._published

    def orders(self, folder: str, number: int, **changes: Any) -> Any:
        from search.messages import Order

        features = self.published()
        return Order(
            sweep=str(self.out / folder),
            number=number,
            settings=settings("mlp_mixer", context=1, **changes),
            manifest=str(features.manifest.path),
            features=str(features.manifest.path.parent / "features"),
            metric="macro_f1",
            device=str(self.device),
            rungs=(),
            precision="auto",
        )


def env(check: Check) -> dict[str, Any]:
    """What is installed, the card, and its rates."""
    found: dict[str, Any] = {"python": sys.version.split()[0], "torch": torch.__version__}
    if check.is_gpu:
        card = torch.cuda.get_device_properties(check.device)
        found |= {"card": card.name, "memory_gb": card.total_memory / 1e9}
        found |= {"multiprocessors": card.multi_processor_count}
    size = 512 if check.small else 8192
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(size, size, device=check.device).to(dtype) for _ in range(2))
        for _ in range(2):
            a @ b
        check.sync()
        started = time.perf_counter()
        for _ in range(5):
            a @ b
        check.sync()
        rate = 2 * size**3 * 5 / (time.perf_counter() - started) / 1e12
        found[f"{str(dtype)[6:]}_tflops"] = round(rate, 2)
    x = torch.zeros(8, device=check.device)
    started = time.perf_counter()
    for _ in range(2000):
        x.add_(1)
    check.sync()
    found["launch_us"] = round((time.perf_counter() - started) / 2000 * 1e6, 2)
    check.say(json.dumps(found))
    return found


def agree(check: Check) -> dict[str, Any]:
    """Curves of every system on the CPU and the device, float32, without dropout."""
    found = {}
    for name in SYSTEMS:
        cpu = curve(start(check.demo(), name, torch.device("cpu")), 2 if check.small else 4)
        there = curve(start(check.demo(), name, check.device), 2 if check.small else 4)
        worst = max(abs(a[1] - b[1]) for a, b in zip(cpu, there, strict=True))
        found[name] = {"cpu": cpu, "device": there, "worst": worst}
        suspect = "  SUSPECT" if worst > _SUSPECT else ""
        check.say(
            f"{name}: validation loss differs by {worst:.2e} at most,"
            f" macro F1 {cpu[-1][2]:.4f} / {there[-1][2]:.4f}{suspect}"
        )
    return found


def packs(check: Check) -> dict[str, Any]:
    """Four members alone and in a pack; then milliseconds a member and step, 1 to 256 together."""
    found: dict[str, Any] = {}
    for name in SYSTEMS:
        changes: list[dict[str, Any]] = [
            {"lr": 10 ** -(3 + i / 2), "seed": 10 + i, "dropout": 0.1 * i, "epochs": 3}
            for i in range(4)
        ]
        alone = [curve(start(check.demo(), name, check.device, **own)) for own in changes]
        runs = [start(check.demo(), name, check.device, **own) for own in changes]
        losses: dict[int, list[float]] = {id(run): [] for run in runs}
        places = [id(run) for run in runs]
        for outcomes in fit_pack(runs):
            for run, outcome in outcomes:
                losses[id(run)].append(outcome.metrics["loss"])
        worst = max(
            abs(epoch[1] - loss)
            for own, place in zip(alone, places, strict=True)
            for epoch, loss in zip(own, losses[place], strict=True)
        )
        suspect = "  SUSPECT" if worst > 1e-2 else ""
        check.say(f"{name}: pack of 4 against alone, validation loss {worst:.2e}{suspect}")
        found[name] = {"worst": worst, "ms": _pack_times(check, name)}
    return found


def _pack_times(check: Check, name: str) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for size in (1, 4) if check.small else (1, 4, 16, 64, 256):
        try:
            if check.is_gpu:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            runs = [
                start(check.demo(), name, check.device, check.fast, seed=i, dropout=0.2)
                for i in range(size)
            ]
            pack = Pack(runs)
            train_epoch(pack)
            train_epoch(pack)
            number = -(-len(runs[0].train) // 32)
            times = []
            for _ in range(3):
                check.sync()
                started = time.perf_counter()
                train_epoch(pack)
                times.append((time.perf_counter() - started) / number / size * 1e3)
            held = torch.cuda.max_memory_allocated() / 1e6 if check.is_gpu else 0.0
            found[size] = {"ms": statistics.median(times), "peak_mb": held}
            check.say(
                f"{name}: {size} together {found[size]['ms']:.4f} ms a member and step"
                f" ({3600e3 / found[size]['ms'] / number / 27:,.0f} trials of 27 epochs an hour),"
                f" {held:.0f} MB"
            )
            if found[size]["ms"] * size > 1500:
                break
            del runs, pack
        except RuntimeError as error:
            found[size] = str(error)[:200]
            check.say(f"{name}: {size} together: {str(error)[:120]}  SUSPECT")
            break
    return found


def resume(check: Check) -> dict[str, Any]:
    """Two epochs, a checkpoint, and on: on the device and on the CPU, against undisturbed."""
    found = {}
    folder = check.out / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    for name in SYSTEMS:
        whole = start(check.demo(), name, check.device, epochs=4, dropout=0.2)
        curve(whole)
        part = start(check.demo(), name, check.device, epochs=4, dropout=0.2)
        curve(part, 2)
        path = folder / f"{name}.safetensors"
        path.write_bytes(checkpoint_bytes(part))
        for where in (check.device, torch.device("cpu")):
            again = start(check.demo(), name, where, epochs=4, dropout=0.2)
            load_checkpoint(again, path)
            curve(again)
            differ = weights_differ(whole, again)
            found[f"{name} on {where}"] = differ
            suspect = "  SUSPECT" if where == check.device and differ > _SUSPECT else ""
            check.say(f"{name} goes on on {where}: weights differ by {differ:.2e}{suspect}")
    return found


def determinism(check: Check) -> dict[str, Any]:
    """The same run twice in one process: equal to the bit?"""
    found = {}
    for name in SYSTEMS:
        for precision in ("float32", "bf16"):
            runs = [
                start(check.demo(), name, check.device, precision, epochs=3, dropout=0.2)
                for _ in range(2)
            ]
            first, second = (curve(run) for run in runs)
            same = [a[:3] == b[:3] for a, b in zip(first, second, strict=True)]
            found[f"{name} {precision}"] = {"same": same, "weights": weights_differ(*runs)}
            check.say(
                f"{name} {precision}: epochs equal to the bit {same},"
                f" weights differ by {weights_differ(*runs):.2e}"
            )
    return found


def precision(check: Check) -> dict[str, Any]:
    """Scores in bf16 and float32 after twelve epochs, three seeds."""
    found = {}
    for name in SYSTEMS:
        scores = {}
        for kind in ("float32", "bf16"):
            scores[kind] = [
                max(
                    epoch[2]
                    for epoch in curve(
                        start(
                            check.demo(),
                            name,
                            check.device,
                            kind,
                            epochs=2 if check.small else 12,
                            seed=seed,
                            dropout=0.2,
                        )
                    )
                )
                for seed in ((1,) if check.small else (1, 2, 3))
            ]
        found[name] = scores
        means = {kind: statistics.mean(values) for kind, values in scores.items()}
        check.say(f"{name}: best macro F1 float32 {means['float32']:.4f}, bf16 {means['bf16']:.4f}")
    return found


def residency(check: Check) -> dict[str, Any]:
    """Features on the device against streamed through pinned memory."""
    found = {}
    share = gpu_features._SHARE
    for name in ("mlp_mixer", "vanilla_concat"):
        for kind, part in (("resident", share), ("streamed", 0.0)):
            gpu_features._resident.clear()
            gpu_features._SHARE = part
            gc.collect()
            run = start(
                check.published(),
                name,
                check.device,
                check.fast,
                context=1,
                epochs=3,
                batch_size=64,
            )
            epochs = curve(run)
            held = gpu_features.resident_bytes(check.device) / 1e6
            found[f"{name} {kind}"] = {"epoch_s": [x[3] for x in epochs], "resident_mb": held}
            check.say(
                f"{name} {kind}: epoch {epochs[-1][3]:.3f} s (first {epochs[0][3]:.3f}),"
                f" loss {epochs[-1][0]:.6f}, features there {held:.0f} MB"
            )
    gpu_features._SHARE = share
    gpu_features._resident.clear()
    return found


def _rate_cases(check: Check) -> Iterator[tuple[str, str, int, int, bool]]:
    if check.small:
        yield from ((name, "float32", 16, 1, True) for name in SYSTEMS)
        return
    for name in ("vanilla_concat", "cross_attention", "mlp_mixer"):
        for kind in ("float32", "bf16"):
            for batch in (64, 256):
                yield name, kind, batch, 1, True
        for pack in (4, 16):
            yield name, "bf16", 64, pack, True
    yield "mlp_mixer", "bf16", 32, 1, False
    yield "cross_attention", "bf16", 32, 1, False


def rates(check: Check) -> dict[str, Any]:
    """A training step by part, against the device's rate at its products."""
    found: dict[str, Any] = {}
    for name, kind, batch, pack, masked in _rate_cases(check):
        label = f"{name} {kind} batch {batch} pack {pack}{'' if masked else ' published'}"
        try:
            if check.is_gpu:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            size = {"heads": 8} if name == "cross_attention" else {"width": 256}
            runs = [
                start(
                    check.published(),
                    name,
                    check.device,
                    kind,
                    context=1,
                    batch_size=batch,
                    dropout=0.2,
                    seed=seed,
                    masked=masked,
                    **size,
                )
                for seed in range(pack)
            ]
            of = profile(runs, num_steps=3)
            parts = {part: seconds * 1e3 for part, seconds in of.seconds.items()}
            found[label] = {
                "ms": parts,
                "tflops": of.rate / 1e12,
                "product_tflops": of.product_rate / 1e12,
                "peak_mb": of.peak_mb,
            }
            check.say(
                f"{label}: {of.step_s * 1e3:.2f} ms, {of.rate / 1e12:.2f} of"
                f" {of.product_rate / 1e12:.1f} TFLOP/s, {of.peak_mb:.0f} MB, "
                + ", ".join(f"{part} {ms:.2f}" for part, ms in parts.items())
            )
            del runs
        except Exception as error:
            found[label] = f"{type(error).__name__}: {error}"[:300]
            check.say(f"{label}: {found[label][:200]}  SUSPECT")
    return found


_COUNTED = (
    "cudaLaunchKernel",
    "cudaLaunchKernelExC",
    "cuLaunchKernel",
    "cudaGraphLaunch",
    "cudaMemcpyAsync",
    "cudaStreamSynchronize",
    "aten::nonzero",
    "aten::item",
    "aten::copy_",
    "cudaHostAlloc",
)


def launches(check: Check) -> dict[str, Any]:
    """Kernels, copies and waits of one training step."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as torch_profile

    found = {}
    for name, size in ((name, size) for name in PACKED for size in (1, 16)):
        of = check.demo() if name in ("vanilla_concat", "late_fusion") else check.published()
        context = 3 if of is check.demo() else 1
        runs = [
            start(
                of,
                name,
                check.device,
                check.fast,
                context=context,
                batch_size=64,
                dropout=0.2,
                seed=seed,
            )
            for seed in range(size)
        ]
        for run in runs:
            run.train = run.train.part(torch.arange(64).clamp(max=len(run.train) - 1))
        pack = Pack(runs)
        train_epoch(pack)
        kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if check.is_gpu else [])
        with torch_profile(activities=kinds) as seen:
            train_epoch(pack)
            check.sync()
        count: dict[str, int] = {}
        for event in seen.events():
            count[event.name] = count.get(event.name, 0) + 1
        kept = {key: value for key, value in count.items() if key in _COUNTED}
        found[f"{name} {size}"] = kept
        check.say(f"{name} pack {size}: {kept}")
        order = "self_cuda_time_total" if check.is_gpu else "self_cpu_time_total"
        table = seen.key_averages().table(sort_by=order, row_limit=8, max_name_column_width=45)
        (check.out / f"launches_{name}_{size}.txt").write_text(table)
    return found


def attention(check: Check) -> dict[str, Any]:
    """cross_attention with each kernel: lengths differ from batch to batch."""
    found = {}
    kernels = ("cudnn", "mem_efficient", "flash")
    for kind in ("float32", "bf16"):
        for label, off in (
            ("default", ()),
            ("without cudnn", ("cudnn",)),
            ("without cudnn and memory-efficient", ("cudnn", "mem_efficient")),
        ):
            for kernel in kernels:
                getattr(torch.backends.cuda, f"enable_{kernel}_sdp")(kernel not in off)
            run = start(
                check.published(),
                "cross_attention",
                check.device,
                kind,
                context=1,
                batch_size=64,
                epochs=2,
                heads=8,
            )
            epochs = curve(run)
            found[f"{kind} {label}"] = [x[3] for x in epochs]
            seconds = ", ".join(f"{x[3]:.2f}" for x in epochs)
            check.say(f"{kind} {label}: epochs {seconds} s, loss {epochs[-1][1]:.5f}")
    for kernel in kernels:
        getattr(torch.backends.cuda, f"enable_{kernel}_sdp")(True)
    return found


def memory(check: Check) -> dict[str, Any]:
    """What a worker holds after a large trial, and what one out of memory leaves behind."""
    if not check.is_gpu:
        check.say("needs CUDA; skipped")
        return {}
    from search.worker.slices import Slices

    check.published()
    found = {}
    gc.collect()
    torch.cuda.empty_cache()
    slices = Slices([])

    def once(number: int, **changes: Any) -> dict[str, Any]:
        slices.leave(list(slices.members))
        slices.join([check.orders("memory", number, epochs=1, **changes)])
        (report,) = slices.next()
        failure = report.failure and report.failure.reason[:160]
        held = {
            "allocated_mb": round(torch.cuda.memory_allocated() / 1e6),
            "reserved_mb": round(torch.cuda.memory_reserved() / 1e6),
            "told_mb": [round(epoch.memory_mb) for epoch in report.epochs],
            "failure": failure,
        }
        check.say(f"trial {number} {changes}: {held}")
        return held

    large = {"width": 1024, "num_blocks": 4, "batch_size": 256, "masked": False}
    found["small"] = once(1, width=64, batch_size=16)
    found["large"] = once(2, **large)
    found["small after large"] = once(3, width=64, batch_size=16)
    total = torch.cuda.get_device_properties(0).total_memory
    slices.leave(list(slices.members))
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(
        min(1.0, (torch.cuda.memory_reserved() + 2e9) / total)
    )
    found["too large"] = once(4, **large)
    found["small after out of memory"] = once(5, width=64, batch_size=16)
    torch.cuda.set_per_process_memory_fraction(1.0)
    return found


def _worker(order: Any, barrier: Any, queue: Any) -> None:
    from search.worker.slices import Slices

    torch.set_num_threads(1)
    slices = Slices([order])
    slices.train()
    barrier.wait()
    started = time.perf_counter()
    epochs = 0
    while slices._runs:
        slices.train()
        epochs += 1
    held = torch.cuda.max_memory_reserved() / 1e6 if torch.cuda.is_available() else 0.0
    queue.put((time.perf_counter() - started, held))


def sharing(check: Check) -> dict[str, Any]:
    """Worker processes on one device, as `--gpus-per-trial 0.25` has four."""
    check.published()
    spawn = multiprocessing.get_context("spawn")
    found = {}
    for number in (1, 2) if check.small else (1, 2, 4):
        barrier, queue = spawn.Barrier(number), spawn.Queue()
        orders = [
            check.orders(f"sharing{number}", i, epochs=6, batch_size=64) for i in range(number)
        ]
        workers = [spawn.Process(target=_worker, args=(each, barrier, queue)) for each in orders]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
        seconds = [queue.get(timeout=5) for worker in workers if worker.exitcode == 0]
        for worker in workers:
            if worker.is_alive():
                worker.kill()
        slowest = max((s for s, _ in seconds), default=float("nan"))
        found[number] = {"slowest_s": slowest, "reserved_mb": [held for _, held in seconds]}
        suspect = "" if len(seconds) == number else "  SUSPECT"
        check.say(
            f"{number} processes: slowest {slowest:.2f} s, {5 * len(seconds) / slowest:.2f}"
            f" epochs a second, reserved {[round(held) for _, held in seconds]} MB{suspect}"
        )
    return found


def shares(check: Check) -> dict[str, Any]:
    """How many trials are to share the device, as `--gpus-per-trial auto` measures it."""
    from search.plan.gpu_share import measure
    from search.plan.rehearsal import Case, Job

    manifest = check.published().manifest
    found = {}
    for largest_pack in (1, 16):
        cases = [
            Case(
                make_config(settings(system, context=1, batch_size=size)).params(),
                FeaturesKey("hidden_state", 1),
                check.fast,
                largest_pack=largest_pack,
            )
            for system in (SYSTEMS[:1] if check.small else SYSTEMS)
            for size in (16, 64)
        ]
        job = Job(
            manifest=str(manifest.path),
            manifest_text=manifest.path.read_text(encoding="utf-8"),
            manifest_sha256=manifest.sha256,
            classes=manifest.classes,
            features=str(manifest.path.parent / "features"),
            cases=tuple(cases),
            device=str(check.device),
        )
        started = time.perf_counter()
        share = measure(job, 2 if check.small else 16)
        check.say(f"packs of up to {largest_pack}: {share} ({time.perf_counter() - started:.0f} s)")
        found[largest_pack] = asdict(share)
    return found


def encoders(check: Check) -> dict[str, Any]:
    """Encoders of random weights: the device against the CPU, a batch against one by one."""
    import transformers

    from mmm.encoders import Running
    from mmm.encoders.huggingface_speech import HuggingFaceSpeech

    found = {}
    generator = np.random.default_rng(0)

    def noise(samples: int) -> Any:
        return (generator.standard_normal(samples) * 0.1).astype(np.float32)

    waves = [noise(samples) for samples in (16000, 16000, 23000, 48000)]
    torch.manual_seed(0)
    size: dict[str, Any] = {
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 128,
    }
    stable = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
    cases = {
        "wav2vec2": transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**size, **stable)),
        "hubert": transformers.HubertModel(transformers.HubertConfig(**size, **stable)),
        "wavlm": transformers.WavLMModel(transformers.WavLMConfig(**size)),
    }
    for name, model in cases.items():
        folder = check.out / "encoders" / name
        model.save_pretrained(folder)
        transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
        base: list[Any] | None = None
        for where, number in (
            ("cpu", "float32"),
            (str(check.device), "float32"),
            (str(check.device), "bf16"),
        ):
            encoder = HuggingFaceSpeech(str(folder), running=Running(where, number))
            encoder.load()
            batch = waves if encoder.batching == "masked" else waves[:2]
            out = [each["hidden_state"] for each in encoder.encode_batch(batch, ("hidden_state",))]
            single = [encoder.encode(wave, ("hidden_state",))["hidden_state"] for wave in batch]
            base = base or out
            spread = max(float(np.abs(a - b).max()) for a, b in zip(out, single, strict=True))
            worst = max(
                float(np.sqrt(np.mean((a - b) ** 2) / np.mean(a**2)))
                for a, b in zip(base, out, strict=True)
            )
            found[f"{name} {where} {number}"] = {"alone": spread, "against_cpu": worst}
            check.say(
                f"{name} {where} {number}: batch against one by one {spread:.1e},"
                f" against the CPU {worst:.1e} (relative)"
            )
    if check.is_gpu:
        found |= _large_encoder(check, noise)
    return found


def _large_encoder(check: Check, noise: Any) -> dict[str, Any]:
    import transformers

    from mmm.encoders import Running
    from mmm.encoders.huggingface_speech import HuggingFaceSpeech

    found = {}
    config = transformers.Wav2Vec2Config(
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        conv_bias=True,
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
    )
    folder = check.out / "encoders" / "large"
    transformers.Wav2Vec2Model(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    clips = [noise(int(16000 * seconds)) for seconds in np.linspace(2, 8, 24)]
    total_s = sum(map(len, clips)) / 16000
    for number in ("float32", "bf16"):
        encoder = HuggingFaceSpeech(str(folder), running=Running("cuda", number))
        encoder.load()
        encoder.encode_batch(clips, ("hidden_state",))
        torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        encoder.encode_batch(clips, ("hidden_state", "extract_feature"))
        rate = total_s / (time.perf_counter() - started)
        peak = torch.cuda.max_memory_allocated() / 1e6
        found[f"large {number}"] = {"audio_s_a_second": rate, "peak_mb": peak}
        check.say(f"XLSR-sized {number}: {rate:,.0f} s of audio a second, {peak:.0f} MB")
        del encoder
        torch.cuda.empty_cache()
    return found


SECTIONS = {
    section.__name__: section
    for section in (
        env,
        agree,
        packs,
        resume,
        determinism,
        precision,
        rates,
        launches,
        attention,
        residency,
        memory,
        sharing,
        shares,
        encoders,
    )
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--demo", nargs=2, type=Path, metavar=("MANIFEST", "FEATURES"))
    parser.add_argument("--sections", default=",".join(SECTIONS))
    parser.add_argument("--small", action="store_true", help="sizes of a dry run")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    check = Check(args)
    torch.set_num_threads(min(4, os.cpu_count() or 1))
    failed = 0
    for name in args.sections.split(","):
        print(f"{name}: {SECTIONS[name].__doc__}", flush=True)
        started = time.perf_counter()
        try:
            found = SECTIONS[name](check)
            (check.out / f"{name}.json").write_text(json.dumps(found, default=str, indent=1))
        except Exception as error:
            failed += 1
            check.say(f"FAILED: {type(error).__name__}: {error}")
            traceback.print_exc()
        gc.collect()
        if check.is_gpu:
            torch.cuda.empty_cache()
        check.say(f"({time.perf_counter() - started:.1f} s)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
