"""The linear system's optimum: logistic regression by L-BFGS."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmm.models.linear import LinearSystem
from mmm.models.scaled import Scaled
from mmm.training.batches import SplitData
from mmm.training.class_weights import class_weights
from mmm.training.run import Run

_MAX_ITERATIONS = 5000
# With 1e-4 rows between two classes go either way, and macro F1 of a rare class with them.
_TOLERANCE = 1e-6
# Numbers. Products of fewer take 45 times as long on two threads, which wait for each other.
_SMALL = 4_000_000
_NEVER = -1e4  # logit of a class that no training row has

Matrix = npt.NDArray[np.float32]


def solve(
    inputs_ND: Matrix,
    shares_NC: Tensor,
    weights_C: Tensor,
    c: float,
    start: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Weight (C, D) and bias (C,) of multinomial logistic regression at its optimum, on inputs (N,
    D) and shares of classes.

    `c` is scikit-learn's C: it multiplies the summed cross-entropy, against half the squared
    weights. The weights of classes are scaled so that the mean row weighs 1, for C to mean the same
    with and without them ("inverse" is scikit-learn's "balanced"). `start`: a solution for another
    `c`, from which it is not far. In float64, whose result does not depend on the processor.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    rows, target = shares_NC.nonzero(as_tuple=True)  # one of each label of a row
    weight = shares_NC[rows, target] * weights_C[target]
    weight = weight * (shares_NC.sum() / weight.sum())
    present = torch.unique(target)
    num_classes, width = shares_NC.shape[1], inputs_ND.shape[1]
    # The penalty leaves nothing on a column of zeros: an input that is left out.
    used = np.flatnonzero(inputs_ND.any(axis=0))
    found_CD, bias_C = torch.zeros(num_classes, width), torch.full((num_classes,), _NEVER)
    if len(present) == 1:
        bias_C[present] = 0.0
        return found_CD, bias_C
    if not len(used):  # every training row is like every other: nothing but how frequent each is
        per_class = torch.zeros(num_classes).index_add(0, target, weight)
        bias_C[present] = per_class[present].log()
        return found_CD, bias_C
    model = LogisticRegression(C=c, tol=_TOLERANCE, max_iter=_MAX_ITERATIONS)
    if start is not None and len(present) > 2:
        model.warm_start = True
        model.coef_ = start[0][present].double().numpy()[:, used]
        model.intercept_ = start[1][present].double().numpy()
    with threadpool_limits(limits=1 if inputs_ND.size < _SMALL else None):
        model.fit(
            inputs_ND[rows.numpy()][:, used].astype(np.float64),
            target.numpy(),
            sample_weight=weight.double().numpy(),
        )
    coefficients, intercept = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
    if len(present) == 2:  # one row for the second class, against zeros for the first
        coefficients, intercept = (
            torch.cat([torch.zeros_like(part), part]) for part in (coefficients, intercept)
        )
    part_CD = torch.zeros(len(present), width)
    part_CD[:, torch.from_numpy(used)] = coefficients.float()
    found_CD[present], bias_C[present] = part_CD, intercept.float()
    return found_CD, bias_C


def fit_linear(run: Run) -> float:
    """Bring a run of the linear system to its optimum; its mean training loss a row, in nats,
    without the penalty.
    """
    config, train = run.config, run.train
    assert config.c is not None
    inputs_ND = inputs_of(run, train)
    weight_CD, bias_C = solve(
        inputs_ND.numpy(), train.labels, class_weights(config, train), config.c
    )
    head = run.model.head if isinstance(run.model, Scaled) else run.model
    assert isinstance(head, LinearSystem)
    with torch.no_grad():
        head.output.weight.copy_(weight_CD)
        head.output.bias.copy_(bias_C)
    logits_NC = inputs_ND @ weight_CD.T + bias_C
    weighted_NC = train.labels * class_weights(config, train)
    return float(-(weighted_NC * logits_NC.log_softmax(dim=-1)).sum() / weighted_NC.sum())


def inputs_of(run: Run, data: SplitData) -> Tensor:
    """What the linear system multiplies, (N, D), on the CPU."""
    batch = data.batch(torch.arange(len(data)), run.device)
    speech, text = batch.speech, batch.text
    if isinstance(run.model, Scaled):
        speech, text = run.model.scaled(speech, batch.speech_mask, text, batch.text_mask)
    return torch.cat([speech[:, 0], text], dim=-1).cpu()
