"""From feature stores to batches: index arithmetic on memory maps, no Python loop over utterances
or frames.
"""

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmm.features.store import FeatureStore
from mmm.manifest import Manifest
from mmm.training.config import Dims, TrainConfig
from mmm.training.features import Features, vectors_key
from mmm.training.gpu_features import Made, gather, source
from mmm.training.scaling import frame_statistics, pooled_statistics

# Positions, padding included, whose activations a training step holds at once. On a CPU larger
# parts gain little or lose (docs/LOG.md, 2026-11-25); a GPU wants large products, but none was
# there to measure how large.
_CPU_POSITIONS = 5120
_GPU_POSITIONS = 65_536


@dataclass(frozen=True)
class Batch:
    """Inputs as mmm.models wants them, and labels (B, C): the share of each class, rows sum to 1.
    Of a pack all are (M, B, ...).
    """

    speech: Tensor
    speech_mask: Tensor
    text: Tensor
    text_mask: Tensor
    labels: Tensor

    def for_members(self, number: int) -> "Batch":
        """The same batch for each of so many members of a pack, (M, B, ...), without copying it."""
        tensors = (self.speech, self.speech_mask, self.text, self.text_mask, self.labels)
        return Batch(*(tensor.expand(number, *tensor.shape) for tensor in tensors))


@dataclass(frozen=True)
class LabelledRows:
    """Rows for training or evaluation under a label policy.

    `names` are the C classes that a model can answer, then those of these rows that it cannot:
    a row of one of them has zeros for shares, and no prediction is the truth.
    """

    indices: Tensor  # (M,) of the manifest
    shares: Tensor  # (M, C) of each class, rows sum to 1
    truth: Tensor  # (M,) place in `names` of what counts as right
    names: tuple[str, ...]


def labelled_rows(manifest: Manifest, indices: list[int], policy: str) -> LabelledRows:
    """The labelled ones of these utterances under a label policy."""
    names_of_rows = manifest.classes_of(indices)
    place = {name: number for number, name in enumerate(names_of_rows)}
    column = {name: place[name] for name in manifest.classes}
    rows: list[int] = []
    shares: list[dict[int, float]] = []
    truth: list[int] = []
    for index in indices:
        names = manifest.utterances[index].emotions
        if not names:
            continue
        if policy == "first":
            names = names[:1]
        elif policy == "published":
            # k copies that all carry the last label, as the published code did.
            names = names[-1:] * len(names)
        elif policy == "drop" and len(names) > 1:
            continue
        if policy == "soft":
            rows.append(index)
            # Raters also vote for classes that no utterance is labelled with.
            of_name = manifest.utterances[index].shares.items()
            kept = {column[name]: share for name, share in of_name if name in column}
            kept = kept or {column[name]: 1.0 for name in names if name in column}
            total = sum(kept.values())
            shares.append({number: share / total for number, share in kept.items()})
            truth.append(max(sorted(kept), key=kept.__getitem__, default=place[names[0]]))
        else:
            rows += [index] * len(names)
            shares += [{column[name]: 1.0} if name in column else {} for name in names]
            truth += [place[name] for name in names]
    labels = torch.zeros(len(rows), len(manifest.classes))
    for row, share in enumerate(shares):
        for number, value in share.items():
            labels[row, number] = value
    return LabelledRows(
        torch.tensor(rows, dtype=torch.int64),
        labels,
        torch.tensor(truth, dtype=torch.int64),
        names_of_rows,
    )


class SplitData:
    """The rows of one split, ready to be cut into batches."""

    def __init__(
        self, features: Features, config: TrainConfig, dims: Dims, indices: list[int], policy: str
    ) -> None:
        self.features, self.config, self.dims = features, config, dims
        found = labelled_rows(features.manifest, indices, policy)
        self.indices, self.labels = found.indices, found.shares
        self.truth, self.names = found.truth, found.names
        if not len(self.indices):
            raise ValueError(
                f"{features.manifest.path}: label policy {policy!r} leaves no rows to train on"
            )
        speech, text = (
            torch.from_numpy(store.offsets).diff()[store_rows[self.indices]].clamp(max=longest)
            for store, store_rows, longest in (
                (features.speech, features.speech_rows, dims.speech_positions),
                (features.text, features.text_rows, dims.text_positions),
            )
        )
        self.lengths: Tensor = speech + text  # (N,) positions of each row

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def class_counts(self) -> Tensor:
        return self.labels.sum(dim=0)

    def statistics(self) -> dict[str, Tensor]:
        """Mean and deviation of each column of speech and text over this split's rows: the buffers
        of mmm.models.scaled.Scaled.

        An input that is left out stays the zeros that it is.
        """
        features, config = self.features, self.config
        rows = hashlib.sha256(self.indices.numpy().tobytes()).digest()
        key = (config.is_pooled, vectors_key(config), rows)
        if key not in features.statistics:
            found = features.statistics[key] = {}
            utterances = self.indices.unique()  # an utterance of several labels counts once
            for name, store, store_rows in (
                ("speech", features.speech, features.speech_rows),
                ("text", features.text, features.text_rows),
            ):
                chosen_rows = store_rows[utterances].numpy()
                if config.is_pooled and not (name == "speech" and config.takes_frames):
                    store.check("pooled")
                    vectors = features.vectors(config) if name == "speech" else store.pooled
                    of_rows = pooled_statistics(vectors, chosen_rows)
                else:
                    of_rows = frame_statistics(store, chosen_rows)
                found[f"{name}_mean"], found[f"{name}_deviation"] = of_rows
        chosen = ("speech", "text") if config.inputs == "both" else (config.inputs,)
        return {
            name: values
            for name, values in features.statistics[key].items()
            if name.partition("_")[0] in chosen
        }

    def part(self, rows: Tensor) -> "SplitData":
        """Some of the rows (n,) as a split of its own."""
        part = copy.copy(self)
        part.indices, part.labels = self.indices[rows], self.labels[rows]
        part.truth = self.truth[rows]
        part.lengths = self.lengths[rows]
        return part

    def parts(
        self, rows: Tensor, device: torch.device, times: float = 1, at_least: int = 1
    ) -> Sequence[Tensor]:
        """Rows (B,) or (M, B) cut into parts to be computed one after the other, so that memory
        does not grow with the batch.

        Rows of like length share a part: less padding. How many go into one is decided by the
        longest that there could be, not by these rows, so that each member of a pack is cut as it
        would be alone. `times`: how many times as much fits; `at_least` so many parts, where there
        are as many rows.
        """
        at_once = times * (_CPU_POSITIONS if device.type == "cpu" else _GPU_POSITIONS)
        if not self.config.masked:
            at_once *= 2  # no padding is saved, and each part adds its gradients to all weights
        positions = self.dims.speech_positions + self.dims.text_positions
        if self.config.is_pooled:
            positions = self.config.context * self.dims.speech_positions
        size = max(1, int(at_once / positions))
        number = max(-(-rows.shape[-1] // size) if self.config.takes_frames else 1, at_least)
        if number == 1:
            return [rows]
        order = self.lengths[rows].argsort(dim=-1, descending=True, stable=True)
        return rows.gather(-1, order).chunk(number, dim=-1)

    def batch(self, rows: Tensor, device: torch.device) -> Batch:
        """The batch of rows (B,) of this split; of rows (M, B), one for each member of a pack."""
        features, config = self.features, self.config
        utterances = self.indices[rows]
        text_rows = features.text_rows[utterances]
        if config.is_pooled:
            turns = features.turns[utterances]
            speech_mask = (turns >= 0).to(device, non_blocking=True)
            speech_rows = features.speech_rows[turns.clamp(min=0)]
            if config.takes_frames:
                speech, frames_mask = _sequences(
                    features.speech, speech_rows, self.dims.speech_positions, device
                )
                speech_mask = frames_mask & speech_mask.unsqueeze(-1)
            else:
                speech = self._speech_vectors(speech_rows, device)
            speech = torch.where(speech_mask.unsqueeze(-1), speech, 0.0)
            text = _pooled(features.text, text_rows, device)
            text_mask = torch.ones(*text_rows.shape, 1, dtype=torch.bool, device=device)
        else:
            speech, speech_mask = _sequences(
                features.speech,
                features.speech_rows[utterances],
                self.dims.speech_positions,
                device,
            )
            text, text_mask = _sequences(features.text, text_rows, self.dims.text_positions, device)
        if config.inputs == "text":
            speech, speech_mask = without_input(speech, speech_mask, config.takes_frames)
        elif config.inputs == "speech":
            text, text_mask = without_input(text, text_mask, not config.is_pooled)
        return Batch(
            speech, speech_mask, text, text_mask, self.labels[rows].to(device, non_blocking=True)
        )

    def _speech_vectors(self, rows: Tensor, device: torch.device) -> Tensor:
        """(..., V) of rows (...) of the speech store."""
        store, vectors = self.features.speech, self.features.vectors(self.config)
        if vectors is store.pooled:
            return _pooled(store, rows, device)
        made = source(store, "pooled", device, Made(vectors_key(self.config), vectors))
        return gather(made, rows.flatten(), device).view(*rows.shape, -1)


def without_input(values: Tensor, mask: Tensor, is_sequence: bool) -> tuple[Tensor, Tensor]:
    """An ablated input: zeros, and of a sequence one position alone, because its length would tell
    something too.
    """
    if not is_sequence:
        return torch.zeros_like(values), mask
    return torch.zeros_like(values[..., :1, :]), mask[..., :1]


def _pooled(store: FeatureStore, rows: Tensor, device: torch.device) -> Tensor:
    flat = rows.flatten()
    store.check("pooled", flat.numpy(), flat.numpy() + 1)
    return gather(source(store, "pooled", device), flat, device).view(*rows.shape, -1)


def _sequences(
    store: FeatureStore, rows: Tensor, max_length: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """(..., L, D) zero-padded features and (..., L) mask of rows (...), L the longest of them up to
    `max_length`.
    """
    offsets = torch.from_numpy(store.offsets)
    starts = offsets[rows]
    lengths = (offsets[rows + 1] - starts).clamp(max=max_length)
    store.check("values", starts.flatten().numpy(), (starts + lengths).flatten().numpy())
    longest, frames_of_all = int(lengths.max()), source(store, "values", device)
    if frames_of_all.device.type != "cpu":  # where the frames are, nothing of their size is sent
        starts, lengths = starts.to(device), lengths.to(device)
        position = torch.arange(longest, device=device)
        mask = position < lengths.unsqueeze(-1)
        frames = starts.unsqueeze(-1) + torch.where(mask, position, 0)
        values = gather(frames_of_all, frames.flatten(), device).view(*mask.shape, -1)
        return values.mul_(mask.unsqueeze(-1)), mask
    position = torch.arange(longest)
    mask = position < lengths.unsqueeze(-1)
    # Padding reads the utterance's first frame again, which is there and warm, and is then zeroed.
    frames = starts.unsqueeze(-1) + torch.where(mask, position, 0)
    values = gather(frames_of_all, frames.flatten(), device)
    values.index_fill_(0, (~mask).flatten().nonzero().squeeze(1).to(device, non_blocking=True), 0.0)
    return values.view(*mask.shape, -1), mask.to(device, non_blocking=True)
