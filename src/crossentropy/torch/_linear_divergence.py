"""Divergences between two models' predictions, from the hidden states of both."""

from torch import Tensor

from .._options import Reduction, loss_options
from ._arguments import as_beta, check_direction, check_head, check_weights, teacher_options
from ._composed_divergence import DivergenceOptions
from ._divergence import Direction
from ._head_chunks import as_head
from ._kernel import row_shape
from ._linear_divergence_operator import head_divergence


def linear_kl_divergence(
    input: Tensor,
    linear_weight: Tensor,
    teacher_input: Tensor,
    teacher_linear_weight: Tensor,
    *,
    linear_bias: Tensor | None = None,
    teacher_linear_bias: Tensor | None = None,
    direction: Direction = "forward",
    reduction: Reduction = "mean",
    softcap: float | None = None,
    teacher_softcap: float | None = None,
    temperature: float = 1.0,
    sample_weight: Tensor | None = None,
) -> Tensor:
    r"""Compute `kl_divergence` of the logits ``input @ linear_weight.T + linear_bias`` from those of a teacher.

    The logits of both are made a chunk of rows at a time and never held all at once, nor are their gradients.

    Parameters
    ----------
    input : Tensor of float16, bfloat16, float32 or float64, shape (D,) or (N, D)
        Hidden states of the student.
    linear_weight : Tensor of shape (C, D) or (C, d_1, ..., d_K, D)
        The student's classifier.
    teacher_input : Tensor of shape (E,) or (N, E)
        Hidden states of the teacher.
    teacher_linear_weight : Tensor of shape (C, E) or (C, d_1, ..., d_K, E)
        The teacher's classifier.
    linear_bias, teacher_linear_bias : Tensor of shape (C,) or (C, d_1, ..., d_K), optional
        Added to the logits.
    direction, reduction, softcap, teacher_softcap, temperature, sample_weight
        As for `kl_divergence`; a weight for each row of the logits.

    Returns
    -------
    Tensor
        As for `kl_divergence`.

    Raises
    ------
    TypeError, ValueError
        An argument is not what it should be; the message begins with its name.

    Notes
    -----
    Exact for the logits as the products round them: for nearly equal models its digits end there. It is 0 for the same
    hidden states and classifiers.

    Value and gradients of 'mean' and 'sum' take two products for the logits and two for the gradients of each model
    that wants them; 'none', and in half precision another upstream gradient than 1, make the logits twice. Beside
    inputs and gradients there is a chunk of logits of each model, 64 MiB as for `linear_cross_entropy`.

    Examples
    --------
    >>> import torch
    >>> from crossentropy.torch import linear_kl_divergence
    >>> hidden, teacher_hidden = torch.tensor([[1.0, 0.5]]), torch.tensor([[2.0, -1.0, 0.0]])
    >>> linear_kl_divergence(hidden, torch.eye(2), teacher_hidden, torch.eye(2, 3))
    tensor(0.3069)
    """
    check_direction(direction)
    student = input, linear_weight, linear_bias
    teacher = teacher_input, teacher_linear_weight, teacher_linear_bias
    return _divergence(student, teacher, direction, reduction, softcap, teacher_softcap, temperature, sample_weight)


def linear_jensen_shannon(
    input: Tensor,
    linear_weight: Tensor,
    teacher_input: Tensor,
    teacher_linear_weight: Tensor,
    *,
    linear_bias: Tensor | None = None,
    teacher_linear_bias: Tensor | None = None,
    beta: float = 0.5,
    reduction: Reduction = "mean",
    softcap: float | None = None,
    teacher_softcap: float | None = None,
    temperature: float = 1.0,
    sample_weight: Tensor | None = None,
) -> Tensor:
    r"""Compute `jensen_shannon` of the logits ``input @ linear_weight.T + linear_bias`` and those of a teacher.

    The logits of both are made a chunk of rows at a time and never held all at once, nor are their gradients.

    Parameters
    ----------
    input, linear_weight, teacher_input, teacher_linear_weight, linear_bias, teacher_linear_bias
        As for `linear_kl_divergence`.
    beta, reduction, softcap, teacher_softcap, temperature, sample_weight
        As for `jensen_shannon`; a weight for each row of the logits.

    Returns
    -------
    Tensor
        As for `jensen_shannon`.

    Raises
    ------
    TypeError, ValueError
        An argument is not what it should be; the message begins with its name.

    Examples
    --------
    >>> import torch
    >>> from crossentropy.torch import linear_jensen_shannon
    >>> hidden, teacher_hidden = torch.tensor([[1.0, 0.5]]), torch.tensor([[2.0, -1.0, 0.0]])
    >>> linear_jensen_shannon(hidden, torch.eye(2), teacher_hidden, torch.eye(2, 3))
    tensor(0.0904)
    """
    student = input, linear_weight, linear_bias
    teacher = teacher_input, teacher_linear_weight, teacher_linear_bias
    return _divergence(student, teacher, as_beta(beta), reduction, softcap, teacher_softcap, temperature, sample_weight)


def _divergence(
    student: tuple[Tensor, Tensor, Tensor | None],
    teacher: tuple[Tensor, Tensor, Tensor | None],
    kind: str | float,
    reduction: Reduction,
    softcap: float | None,
    teacher_softcap: float | None,
    temperature: float,
    sample_weight: Tensor | None,
) -> Tensor:
    check_head("", *student)
    check_head("teacher_", *teacher)
    input, teacher_input = student[0], teacher[0]
    for name, ours, theirs in (
        ("teacher_input", input.shape[:-1], teacher_input.shape[:-1]),
        ("teacher_linear_weight", student[1].shape[:-1], teacher[1].shape[:-1]),
    ):
        if ours != theirs:
            shape = ", ".join(map(str, [*ours, "E"]))
            raise ValueError(
                f"{name}: expected shape ({shape}) for the student's, got {(*theirs, teacher[1].shape[-1])}"
            )
    options = DivergenceOptions(
        kind,
        loss_options(softcap=softcap, temperature=temperature, reduction=reduction),
        teacher_options(teacher_softcap, temperature),
    )
    head, teacher_head = as_head(*student), as_head(*teacher)
    batched = input.dim() == 2
    rows_shape = row_shape(head.logits) if batched else row_shape(head.logits)[1:]
    if sample_weight is not None:
        check_weights(rows_shape, None, sample_weight)
        sample_weight = sample_weight if batched else sample_weight.unsqueeze(0)
    loss = head_divergence(options, head, teacher_head, sample_weight)
    return loss if batched or reduction != "none" else loss.squeeze(0)
