"""What every fusion system keeps to, checked at small sizes: ours by their tests, one of the user's
own by `mmm check-architecture`.

A system is looked at in the mode in which it is trained: as its constructor leaves it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from mmm.models.layers import keep_all
from mmm.training.config import Dims, TrainConfig
from mmm.training.dropout import Dropout
from mmm.training.run import build_model
from mmm.training.tensor_file import tensor_bytes
from mmm.user_code import fault_of

# Each differs from the others, and many numbers of heads divide the text's width.
DIMS = Dims(speech_width=10, text_width=16, speech_positions=12, text_positions=7, num_classes=5)
CONTEXT = 3
GARBAGE = (7.0, 1e30, float("inf"), float("nan"))
_RATE = 0.5
_CPU = torch.device("cpu")
_ROWS_BY_HEART, _STEPS = 12, 400

Inputs = tuple[Tensor, Tensor, Tensor, Tensor]  # as mmm/models/__init__.py has them


class Broken(ValueError):
    """What a system does that it must not."""


@dataclass(frozen=True)
class Candidate:
    """A system at small sizes. `tolerance`: of numbers that are the same but for rounding."""

    make: Callable[[], nn.Module]  # weights from torch's global generator
    is_pooled: bool
    dtype: torch.dtype = torch.float32
    tolerance: float = 1e-5

    def build(self, seed: int = 0) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make().to(self.dtype)

    def inputs(self, speech_lengths: Sequence[int], text_lengths: Sequence[int]) -> Inputs:
        """Random features up to each row's length, zeros beyond; of a pooled system a length of
        speech is a number of turns.
        """
        generator = torch.Generator().manual_seed(1)

        def drawn(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=self.dtype)

        speech_mask = _mask(speech_lengths, CONTEXT if self.is_pooled else max(speech_lengths))
        speech = drawn(*speech_mask.shape, DIMS.speech_width)
        speech = torch.where(speech_mask[..., None], speech, 0.0)
        if self.is_pooled:
            text = drawn(len(text_lengths), DIMS.text_width)
            return speech, speech_mask, text, torch.ones(len(text), 1, dtype=torch.bool)
        text_mask = _mask(text_lengths, max(text_lengths))
        text = drawn(*text_mask.shape, DIMS.text_width)
        return speech, speech_mask, torch.where(text_mask[..., None], text, 0.0), text_mask

    def ragged(self) -> Inputs:
        return self.inputs([1, 2, 3] if self.is_pooled else [1, 12, 5], [7, 2, 1])

    def full(self, rows: int = 4) -> Inputs:
        speech = CONTEXT if self.is_pooled else DIMS.speech_positions
        return self.inputs([speech] * rows, [DIMS.text_positions] * rows)

    def row_alone(self, inputs: Inputs, row: int) -> Inputs:
        """One row of a batch, cut to its own length."""
        speech, speech_mask, text, text_mask = (tensor[row : row + 1] for tensor in inputs)
        if self.is_pooled:
            return speech, speech_mask, text, text_mask
        num_speech, num_text = int(speech_mask.sum()), int(text_mask.sum())
        return (
            *(speech[:, :num_speech], speech_mask[:, :num_speech]),
            *(text[:, :num_text], text_mask[:, :num_text]),
        )

    def with_garbage(self, inputs: Inputs, garbage: float) -> Inputs:
        """Where nothing real stands; the text of a pooled system is always real."""
        speech, speech_mask, text, text_mask = inputs
        if not self.is_pooled:
            text = torch.where(text_mask[..., None], text, garbage)
        return torch.where(speech_mask[..., None], speech, garbage), speech_mask, text, text_mask

    def same(self, found: Tensor, expected: Tensor, what: str) -> None:
        """Raise Broken where two differ by more than rounding."""
        if found.shape != expected.shape:
            raise Broken(f"{what}: of shape {tuple(found.shape)}, not {tuple(expected.shape)}")
        far = (found - expected).abs() > self.tolerance * (1 + expected.abs())
        if far.any() or not torch.isfinite(found).all():
            largest = (found - expected).detach().abs().nan_to_num(nan=float("inf")).max()
            raise Broken(f"{what} (by up to {float(largest):.1e})")


@dataclass(frozen=True)
class Check:
    """A claim of the contract."""

    claim: str
    run: Callable[[Candidate], None]  # raises Broken, or whatever the system raises
    remedy: str
    is_required: bool = True


def _mask(lengths: Sequence[int], size: int) -> Tensor:
    return torch.arange(size) < torch.tensor(lengths)[:, None]


def _shape(candidate: Candidate) -> None:
    logits = candidate.build()(*candidate.ragged())
    expected = (3, DIMS.num_classes)
    if not isinstance(logits, Tensor) or logits.shape != expected:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise Broken(
            f"{found} instead of {expected} for 3 utterances and {DIMS.num_classes} classes"
        )
    if not torch.isfinite(logits).all():
        raise Broken("some are not finite")


def _deterministic(candidate: Candidate) -> None:
    inputs = candidate.ragged()
    model = candidate.build(3)
    candidate.same(model(*inputs), model(*inputs), "called twice without dropout it differs")
    candidate.same(candidate.build(3)(*inputs), model(*inputs), "made twice of a seed it differs")
    if torch.equal(candidate.build(4)(*inputs), model(*inputs)):
        raise Broken("two seeds give the same weights")


def _drops_by_seed(candidate: Candidate) -> None:
    model, inputs = candidate.build(), candidate.ragged()
    first, again, other = (model(*inputs, Dropout([_RATE], [seed])) for seed in (1, 1, 2))
    candidate.same(again, first, "the same dropout twice gives other logits")
    if torch.equal(first, other):
        raise Broken("`drop` is not used, so the setting `dropout` changes nothing")


def _mates(candidate: Candidate) -> None:
    model, inputs = candidate.build(), candidate.ragged()
    together = model(*inputs)
    for row in range(3):
        alone = model(*candidate.row_alone(inputs, row))[0]
        candidate.same(alone, together[row], f"row {row} of 3 has other logits alone")


def _padding(candidate: Candidate) -> None:
    model, inputs = candidate.build(), candidate.ragged()
    what = "turns that a dialogue lacks" if candidate.is_pooled else "padding"
    for garbage in GARBAGE:
        dirty = candidate.with_garbage(inputs, garbage)
        candidate.same(model(*dirty), model(*inputs), f"{garbage:g} in {what} changes logits")
        for clean, found in zip(
            _gradients(candidate, inputs), _gradients(candidate, dirty), strict=True
        ):
            candidate.same(found, clean, f"{garbage:g} in {what} changes gradients")
    if candidate.is_pooled:
        return
    speech, speech_mask, text, text_mask = candidate.row_alone(inputs, 2)
    more = (
        DIMS.speech_positions - speech.shape[1],
        DIMS.text_positions - text.shape[1],
    )
    longer = (
        functional.pad(speech, (0, 0, 0, more[0]), value=3.0),
        functional.pad(speech_mask, (0, more[0])),
        functional.pad(text, (0, 0, 0, more[1]), value=3.0),
        functional.pad(text_mask, (0, more[1])),
    )
    candidate.same(model(*longer), model(*inputs)[2:], "more padding changes logits")


def _gradients(candidate: Candidate, inputs: Inputs) -> list[Tensor]:
    model = candidate.build()
    model(*inputs).logsumexp(dim=-1).sum().backward()
    return [torch.zeros_like(one) if one.grad is None else one.grad for one in model.parameters()]


def _reached(candidate: Candidate) -> None:
    names = [name for name, _ in candidate.build().named_parameters()]
    found = _gradients(candidate, candidate.full())
    without = [name for name, one in zip(names, found, strict=True) if not one.abs().sum() > 0]
    if without or not names:
        raise Broken(f"no gradient reaches {', '.join(without) or 'any, for there is none'}")


def _smallest(candidate: Candidate) -> None:
    model = candidate.build()
    logits = model(*candidate.inputs([1], [1]))
    loss = functional.cross_entropy(logits, torch.tensor([2]))
    loss.backward()
    grads = [one.grad for one in model.parameters() if one.grad is not None]
    if not all(torch.isfinite(one).all() for one in (loss, *grads)):
        raise Broken("its loss or a gradient is not finite")


def _learns(candidate: Candidate) -> None:
    model, inputs = candidate.build(), candidate.full(_ROWS_BY_HEART)
    labels = torch.arange(_ROWS_BY_HEART) % DIMS.num_classes
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    first = loss = functional.cross_entropy(model(*inputs), labels)
    for _ in range(_STEPS):
        loss = functional.cross_entropy(model(*inputs), labels)
        if loss < 0.1:
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    raise Broken(
        f"its loss on {_ROWS_BY_HEART} utterances is {loss:.2f} after {_STEPS} steps, {first:.2f}"
        " before the first"
    )


def _state(candidate: Candidate) -> None:
    model, inputs = candidate.build(), candidate.ragged()
    state = model.state_dict()
    if others := [name for name, value in state.items() if not isinstance(value, Tensor)]:
        raise Broken(f"{', '.join(others)} is no tensor")
    again = candidate.build(1)
    again.load_state_dict(load_tensors(tensor_bytes(state)))
    candidate.same(again(*inputs), model(*inputs), "weights that are written and read differ")


def _packs(candidate: Candidate) -> None:
    """Three models as one: the weights stacked, each with a batch of its own lengths."""
    models = [candidate.build(seed) for seed in (1, 2, 3)]
    lengths = [[1, 2], [3, 1], [2, 2]] if candidate.is_pooled else [[1, 12], [3, 5], [2, 7]]
    batches = [candidate.inputs(one, [7, 1 + number]) for number, one in enumerate(lengths)]
    longest = [max(batch[place].shape[1] for batch in batches) for place in (1, 3)]

    def stacked(place: int) -> Tensor:
        parts = [batch[place] for batch in batches]
        if not candidate.is_pooled:
            size = longest[place // 2]
            parts = [
                functional.pad(one, (*(0, 0) * (one.dim() - 2), 0, size - one.shape[1]))
                for one in parts
            ]
        return torch.stack(parts)

    together: Inputs = (stacked(0), stacked(1), stacked(2), stacked(3))
    weights = {
        name: torch.stack([model.get_parameter(name).detach() for model in models]).requires_grad_()
        for name, _ in models[0].named_parameters()
    }
    for rate in (0.0, _RATE):
        drop = Dropout([rate] * 3, [1, 2, 3]) if rate else keep_all
        logits = functional_call(models[0], weights, (*together, drop))
        for value in weights.values():
            value.grad = None
        logits.logsumexp(dim=-1).sum().backward()
        for number, (model, batch) in enumerate(zip(models, batches, strict=True)):
            alone_drop = Dropout([rate], [number + 1]) if rate else keep_all
            alone = model(*batch, alone_drop)
            candidate.same(logits[number], alone, "in a pack of three its logits are others")
            model.zero_grad()
            alone.logsumexp(dim=-1).sum().backward()
            for name, value in weights.items():
                grad, mine = value.grad, model.get_parameter(name).grad
                if grad is None or mine is None:
                    raise Broken(f"in a pack of three no gradient reaches {name}")
                candidate.same(
                    grad[number], mine, f"in a pack of three {name} has another gradient"
                )


_LAYERS = "use the blocks of mmm/models/layers.py, which count axes from the end"
CHECKS = (
    Check("logits have a row an utterance and a column a class", _shape, "return (B, C) logits"),
    Check(
        "the same seed gives the same model, the same inputs the same logits",
        _deterministic,
        "draw nothing in forward: take the `drop` that it is given instead of nn.Dropout",
    ),
    Check(
        "dropout follows its seed",
        _drops_by_seed,
        "call drop(values), of a sequence drop(values, mask), in forward",
        is_required=False,
    ),
    Check(
        "batch mates change no logits",
        _mates,
        "compute each row by itself: no batch norm, nothing over the axis of the batch",
    ),
    Check(
        "what is missing or padding changes neither logits nor gradients",
        _padding,
        "put keep_real(values, mask) of mmm/models/layers.py before the first product and after"
        " what adds a bias, and take means with masked_mean",
    ),
    Check(
        "a gradient reaches every parameter",
        _reached,
        "remove what is not used, and detach nothing",
    ),
    Check(
        "an utterance of one position trains",
        _smallest,
        "divide by no length less one, and by no deviation over positions",
    ),
    Check(
        "it learns twelve utterances by heart", _learns, "look for a wrong axis or a lost gradient"
    ),
    Check(
        "its state is tensors alone and comes back the same",
        _state,
        "keep numbers as buffers or as settings, and write no get_extra_state",
    ),
    Check("three train as one, each as it would alone", _packs, _LAYERS, is_required=False),
)
PACKS = CHECKS[-1]


def candidate_of(config: TrainConfig) -> Candidate:
    """The system that settings make, at small sizes of data."""
    small = replace(config, context=CONTEXT, input_scaling="none")
    return Candidate(lambda: build_model(small, DIMS), config.is_pooled)


def outcome(check: Check, candidate: Candidate) -> str:
    """What keeps a candidate from a claim; "" where it holds."""
    try:
        check.run(candidate)
    except Broken as error:
        return str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever the user's own code raises
        return " ".join(fault_of(error).split())[:300]
    return ""


_known: dict[object, bool] = {}


def trains_in_packs(config: TrainConfig) -> bool:
    """Whether several models of these settings train as one, each as it would alone. Ours do; of
    one of the user's own it is tried, once for each of what its constructor is given, but for
    fractions of its own, of which a space draws as many as trials and which decide no shapes.
    """
    if config.system_sha256 is None:
        return True
    own = tuple(pair for pair in config.own or () if not isinstance(pair[1], float))
    made_of = (
        *(config.architecture, config.system_sha256, own, config.width, config.masked),
        *(config.classifier_hidden, config.num_blocks, config.residual),
        *(config.layers, config.heads),
    )
    if made_of not in _known:
        _known[made_of] = not outcome(PACKS, candidate_of(config))
    return _known[made_of]


def outcomes(candidate: Candidate) -> Iterable[tuple[Check, str]]:
    for check in CHECKS:
        yield check, outcome(check, candidate)
