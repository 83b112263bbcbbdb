"""An explanation: the numbers, and the forms that they take."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ._check import Check, check_gradient, check_step
from ._derivation import Derivation, derivation_steps, derive, require_index
from ._lesson import Lesson
from ._numbers import LossNumbers
from ._pitfalls import Pitfalls, find_pitfalls, pitfall_steps
from ._steps import steps

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(LossNumbers):
    """Every intermediate of the loss of N rows over C classes, in float64 and nats; made by `explain`.

    Printed, it is a lesson in plain text; in a notebook, an HTML page. `lesson` adds steps to it; `plot`, `to_tex` and
    `to_dict` give other forms. The arrays are read-only. The symbols in brackets are those of the lesson.

    Attributes
    ----------
    names : tuple of str
        The classes' names; their indices where none were given.
    shown : tuple of int
        The classes that text and picture show: all, or where there are many, the likeliest and the targets.
    options : LossOptions
        Ignored index, smoothing, z-loss, soft cap (infinite: none), temperature, reduction.
    logits : ndarray of shape (N, C)
        [A]
    targets : ndarray of shape (N,), or None
        The class indices; None where targets were given as distributions.
    q : ndarray of shape (N, C)
        The target distributions, one-hot for indices [Y].
    w, s : ndarray of shape (C,), (N,)
        Class and sample weights; `s` is 0 for rows that do not count.
    omega : ndarray of shape (N,)
        The class weight of each row's target; 1 for distributions.
    smoothed, b : ndarray of shape (N, C)
        `q` after label smoothing [Y′]; and times the class weights [b].
    B : ndarray of shape (N,)
        The sum of each row of `b`.
    u, slope : ndarray of shape (N, C)
        The logits after soft cap and temperature, and their derivative [u, u′].
    m, r, lse : ndarray of shape (N,)
        The largest of `u`; the sum of `e` over the other classes; the log-sum-exp of `u`.
    shifted, e : ndarray of shape (N, C)
        ``u - m`` and its exponential.
    S : ndarray of shape (N,)
        The sum of `e`, 1 + r.
    p, rest, log_p : ndarray of shape (N, C)
        The softmax [σ]; one minus it, without cancellation; its logarithm.
    cross : ndarray of shape (N,)
        The cross-entropy of each row, before z-loss and sample weight.
    a : ndarray of shape (N,)
        The factor of the softmax in the gradient, ``B + 2 z_loss omega lse``.
    losses : ndarray of shape (N,)
        The loss of each row.
    total, mean, total_weight : float
        Sum and mean of the losses, and the weight that the mean divides by [L, mean, N]. Where weights are negative
        there is no mean, and the last two are NaN.
    dtotal, dmean : ndarray of shape (N, C)
        The gradients of sum and mean with respect to the logits.
    loss, dlogits : float or ndarray, ndarray of shape (N, C)
        What `cross_entropy_with_grad` returns for the reduction in `options`.

    Examples
    --------
    >>> import crossentropy as ce
    >>> explanation = ce.explain([[2.0, 1.0, 0.1]], [1], names=["cat", "dog", "bird"])
    >>> print(explanation.lesson().steps[8].lines[0])
    ℓ₀ = 0·0.4170 + 1·1.4170 + 0·2.3170 = 1.4170
    >>> explanation.to_dict()["losses"] == explanation.losses.tolist()
    True
    """

    def derivation(self, row: int = 0, target_class: int | None = None) -> Derivation:
        """Derive the gradient of one row: the Jacobian of its softmax, and the chain rule for one class.

        Parameters
        ----------
        row : int
            The row.
        target_class : int, optional
            The class with respect to whose logit the loss is differentiated; by default the row's target.

        Returns
        -------
        Derivation
            In a notebook it shows its steps.

        Raises
        ------
        IndexError
            There is no such row or class.

        Examples
        --------
        >>> import crossentropy as ce
        >>> ce.explain([[2.0, 1.0, 0.1]], [1]).derivation(0, 1).jacobian.round(4)
        array([[ 0.2247, -0.1598, -0.065 ],
               [-0.1598,  0.1837, -0.0239],
               [-0.065 , -0.0239,  0.0889]])
        """
        return derive(self, row, target_class)

    def check(self) -> Check:
        """Compare the gradient with fourth-order central differences of the library's own loss.

        Returns
        -------
        Check
            In a notebook it shows both.

        Notes
        -----
        The step h is 2⁻⁹, times the temperature or the soft cap where one is smaller than 1. The difference formula
        has an error of about h⁴; the rounding of the loss adds about 10⁻¹⁶ / h of the loss. Differences near 10⁻¹²
        are therefore expected and do not mean that the gradient is wrong.

        Examples
        --------
        >>> import crossentropy as ce
        >>> ce.explain([[2.0, 1.0, 0.1]], [1]).check().largest < 1e-11
        True
        """
        return check_gradient(self)

    def pitfalls(self) -> Pitfalls:
        """Evaluate the formulas of textbooks on these rows, in float32 and float64.

        Returns
        -------
        list of Pitfall
            In a notebook it shows the formulas that fail.

        Examples
        --------
        >>> import crossentropy as ce
        >>> pitfall = ce.explain([[1000.0, 0.0]], [0]).pitfalls()[0]
        >>> pitfall.formula, pitfall.textbook, pitfall.marks
        ('−Σ Y_c·log(exp(A_c)/Σ exp(A))', array([nan]), ('NaN',))
        """
        return find_pitfalls(self)

    def plot(self, path: str | Path | None = None, *, row: int = 0) -> "Figure":
        """Draw logits, probabilities, losses, gradient, and the Jacobian of one row. This needs matplotlib.

        Parameters
        ----------
        path : str or Path, optional
            A .png, .svg or .pdf file to write, the same bytes every time.
        row : int
            The row whose Jacobian is drawn.

        Returns
        -------
        matplotlib.figure.Figure
            A notebook shows it.

        Raises
        ------
        IndexError
            There is no such row.
        ValueError
            `path` has another suffix.
        """
        from ._picture import draw, save

        require_index("row", row, len(self.logits))
        figure = draw(self, row)
        if path is not None:
            save(figure, Path(path))
        return figure

    @np.errstate(all="ignore")  # as in `explain`
    def lesson(
        self,
        *,
        derivation: bool = False,
        check: bool = False,
        pitfalls: bool = False,
        row: int = 0,
        target_class: int | None = None,
    ) -> Lesson:
        """Return the steps, to be printed or shown by a notebook.

        Parameters
        ----------
        derivation : bool
            Add the derivation of the gradient of `row` for `target_class`.
        check : bool
            Add the comparison of the gradient with differences of the loss.
        pitfalls : bool
            Add what the formulas of textbooks give on these numbers.
        row : int
            The row.
        target_class : int, optional
            The class with respect to whose logit the loss is differentiated; by default the row's target.

        Returns
        -------
        Lesson
            Its `to_tex` gives LaTeX.

        Raises
        ------
        IndexError
            There is no such row or class.

        Examples
        --------
        >>> import crossentropy as ce
        >>> print(ce.explain([[2.0, 1.0, 0.1]], [1]).lesson(check=True))  # doctest: +ELLIPSIS
        1. The symbols, and the way from the logits to the loss and back
        ...
           −log σ_c = log S − (A_c − m)
        ...
        """
        chosen = steps(self)
        if derivation:
            chosen += derivation_steps(self, self.derivation(row, target_class))
        if check:
            chosen.append(check_step(self, self.check()))
        if pitfalls:
            chosen += pitfall_steps(self, self.pitfalls())
        return Lesson(tuple(chosen))

    def to_tex(self) -> str:
        """The steps as a LaTeX fragment; it needs amsmath."""
        return self.lesson().to_tex()

    def _repr_html_(self) -> str:
        return self.lesson()._repr_html_()

    def __rich__(self) -> Lesson:
        return self.lesson()

    def __str__(self) -> str:
        return str(self.lesson())

    def __repr__(self) -> str:
        N, C = self.logits.shape
        return f"<Explanation of {N} rows over {C} classes: {self.options.reduction} of the losses {self.loss}>"
