"""Divergences between two models' predictions, from their logits."""

from typing import Literal

from torch import Tensor

from .._options import Reduction, loss_options
from ._arguments import as_beta, check_direction, check_logits, check_weights, teacher_options
from ._composed_divergence import DivergenceOptions
from ._divergence_kernel import divergence
from ._kernel import is_distributed, row_shape

Direction = Literal["forward", "reverse"]


def kl_divergence(
    input: Tensor,
    teacher_input: Tensor,
    *,
    direction: Direction = "forward",
    reduction: Reduction = "mean",
    softcap: float | None = None,
    teacher_softcap: float | None = None,
    temperature: float = 1.0,
    sample_weight: Tensor | None = None,
) -> Tensor:
    r"""Compute the Kullback-Leibler divergence between two softmaxes in nats, from the logits of both.

    Parameters
    ----------
    input : Tensor of float16, bfloat16, float32 or float64, shape (C,), (N, C) or (N, C, d_1, ..., d_K)
        Logits of the student.
    teacher_input : Tensor of that shape
        Logits of the teacher; they may be of another dtype.
    direction : {'forward', 'reverse'}
        KL(teacher || student), or KL(student || teacher).
    reduction : {'mean', 'sum', 'none'}
        'mean' is over the rows that count, weighted by `sample_weight`; where none counts it is 0.
    softcap, teacher_softcap : float, optional
        Logits z become softcap * tanh(z / softcap) first, those of the teacher with a cap of their own.
    temperature : float
        Divides the (capped) logits of both. The divergence is not multiplied by its square, as some do.
    sample_weight : Tensor of the input's shape without C, optional
        A weight for each row. A row of weight 0 does not count, whatever it holds.

    Returns
    -------
    Tensor
        A scalar, or for 'none' one divergence a row: float64 where either input is, else float32.

    Raises
    ------
    TypeError, ValueError
        An argument is not what it should be; the message begins with its name.

    See Also
    --------
    linear_kl_divergence : the same from hidden states.
    crossentropy.kl_divergence : the same for arrays.

    Notes
    -----
    Made of :math:`\delta = \log(p / q)`, p of the student and q of the teacher: a row is
    :math:`\sum q\, (e^\delta - 1 - \delta)`, each term at least 0 and computed without cancellation, in reverse
    :math:`\sum p\, (e^{-\delta} - 1 + \delta)`. It is never negative, exactly 0 for equal logits, and keeps its digits
    for nearly equal models, where differences of logarithms lose them all. Gradients, for either or both inputs, vanish
    with :math:`\delta` likewise.

    A class that has probability 0 in both, for a logit of -inf, adds nothing; one of probability 0 in the second of
    the two models alone makes the divergence infinite.

    Examples
    --------
    >>> import torch
    >>> from crossentropy.torch import kl_divergence
    >>> teacher = torch.tensor([[2.0, 1.0, 0.1]])
    >>> input = (teacher + torch.tensor([1e-4, 0.0, 0.0])).requires_grad_()
    >>> loss = kl_divergence(input, teacher)
    >>> loss.backward()
    >>> print(f"{loss.item():.4g}", [f"{g:.4g}" for g in input.grad[0].tolist()])
    1.121e-09 ['2.245e-05', '-1.596e-05', '-6.489e-06']
    """
    check_direction(direction)
    return _divergence(input, teacher_input, direction, reduction, softcap, teacher_softcap, temperature, sample_weight)


def jensen_shannon(
    input: Tensor,
    teacher_input: Tensor,
    *,
    beta: float = 0.5,
    reduction: Reduction = "mean",
    softcap: float | None = None,
    teacher_softcap: float | None = None,
    temperature: float = 1.0,
    sample_weight: Tensor | None = None,
) -> Tensor:
    r"""Compute the (generalised) Jensen-Shannon divergence between two softmaxes in nats, from the logits of both.

    Parameters
    ----------
    input, teacher_input, reduction, softcap, teacher_softcap, temperature, sample_weight
        As for `kl_divergence`.
    beta : float in (0, 1)
        The teacher's part of the mixture :math:`m = \beta q + (1 - \beta) p`.

    Returns
    -------
    Tensor
        As for `kl_divergence`: :math:`\beta KL(q || m) + (1 - \beta) KL(p || m)`, q of the teacher, p of the student.

    Raises
    ------
    TypeError, ValueError
        An argument is not what it should be; the message begins with its name.

    See Also
    --------
    kl_divergence : what this is in the limits of beta, where it is divided by beta or 1 - beta.

    Notes
    -----
    It is finite for any logits, at most log 2, and exact as `kl_divergence` is. Source: Agarwal et al., On-policy
    distillation of language models, ICLR 2024.

    Examples
    --------
    >>> import torch
    >>> from crossentropy.torch import jensen_shannon
    >>> jensen_shannon(torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 1.0]]))
    tensor(0.1109)
    """
    return _divergence(
        input, teacher_input, as_beta(beta), reduction, softcap, teacher_softcap, temperature, sample_weight
    )


def _divergence(
    input: Tensor,
    teacher_input: Tensor,
    kind: str | float,
    reduction: Reduction,
    softcap: float | None,
    teacher_softcap: float | None,
    temperature: float,
    sample_weight: Tensor | None,
) -> Tensor:
    check_logits("input", input)
    check_logits("teacher_input", teacher_input)
    if teacher_input.shape != input.shape:
        raise ValueError(
            f"teacher_input: expected the shape of input, {tuple(input.shape)}, got {tuple(teacher_input.shape)}"
        )
    options = DivergenceOptions(
        kind,
        loss_options(softcap=softcap, temperature=temperature, reduction=reduction),
        teacher_options(teacher_softcap, temperature),
    )
    if sample_weight is not None:
        check_weights(row_shape(input), None, sample_weight)
    if is_distributed(input):
        from .distributed import _dtensor_family

        return _dtensor_family.divergence(options, input, teacher_input, sample_weight)
    return divergence(options, input, teacher_input, sample_weight)
