"""When a rank fails, dies or stands still, all others raise, and soon."""

import re
import time

import pytest
import torch
import torch.distributed as dist
from processes import ProcessDiedError, Processes

from crossentropy import _head
from crossentropy.torch.distributed import vocab_parallel_cross_entropy, vocab_parallel_linear_cross_entropy

TIMEOUT = 10.0  # of collectives, in seconds: on a busy machine a rank may be late by some
CLASSES, ROWS = 5, 4


def step(head=False, check=True):
    """A loss with its gradients; those of a head come in several chunks."""
    torch.manual_seed(dist.get_rank())
    shard, target = torch.randn(CLASSES, ROWS, requires_grad=True), torch.arange(ROWS)
    if head:
        _head.MAX_LOGITS_BYTES = 4 * CLASSES
        loss = vocab_parallel_linear_cross_entropy(torch.eye(ROWS, requires_grad=True), shard, target, check=check)
    else:
        loss = vocab_parallel_cross_entropy(shard.t(), target, check=check)
    loss.backward()
    return loss.item()


def steps_until_one_raises(head=False, check=True, fault=None):
    """What it raises, and when; the fault is this rank's after some steps."""
    end = time.time() + 10 * TIMEOUT
    for count in range(10**9):
        try:
            step(head, check)
        except Exception as error:
            return type(error), str(error), time.time()
        if fault == dist.get_rank() and count == 20:
            raise SystemExit(3)  # as an exception that nobody catches
        if time.time() > end:
            return None
    return None


def survivors(outcomes, lost, since):
    """What the others raised, and after how many seconds."""
    assert isinstance(outcomes[lost], ProcessDiedError)
    for rank, outcome in enumerate(outcomes):
        if rank != lost:
            assert isinstance(outcome, tuple), outcome
            kind, message, at = outcome
            assert issubclass(kind, RuntimeError)
            yield message, at - since


@pytest.mark.parametrize("head", [False, True], ids=["logits", "head"])
@pytest.mark.parametrize("check", [True, False], ids=["check", "no check"])
def test_a_rank_is_killed(head, check):
    with Processes(3, TIMEOUT) as ranks:
        ranks.run(step)
        ranks.start(steps_until_one_raises, head, check)
        time.sleep(0.2)
        since = time.time()
        ranks.kill(1)
        for message, seconds in survivors(ranks.collect(within=4 * TIMEOUT), 1, since):
            assert re.search(r"[Cc]onnection (closed|reset)", message), "it was told, not timed out"
            assert seconds < TIMEOUT


def test_a_rank_ends_by_an_exception():
    with Processes(3, TIMEOUT) as ranks:
        ranks.run(step)
        since = time.time()
        outcomes = ranks.outcomes(steps_until_one_raises, False, True, 2, within=4 * TIMEOUT)
        for message, seconds in survivors(outcomes, 2, since):
            assert re.search(r"[Cc]onnection (closed|reset)", message), "it was told, not timed out"
            assert seconds < TIMEOUT


@pytest.mark.parametrize("head", [False, True], ids=["logits", "head"])
def test_a_rank_stands_still(head):
    with Processes(3, TIMEOUT) as ranks:
        ranks.run(step)
        ranks.start(steps_until_one_raises, head)
        time.sleep(0.2)
        since = time.time()
        ranks.stop(0)
        for kind, message, at in ranks.collect(within=4 * TIMEOUT, of=[1, 2])[1:]:
            assert issubclass(kind, RuntimeError)
            assert re.search(r"[Tt]imed out|timeout|[Cc]onnection (closed|reset)", message)  # by one who timed out
            assert at - since < 2 * TIMEOUT


def raised_at_once(fault, where):
    """What a bad argument of one rank raises here, after how long; then a step."""
    torch.manual_seed(dist.get_rank())
    logits, target, arguments = torch.randn(ROWS, CLASSES), torch.arange(ROWS), {}
    if where == dist.get_rank():
        if fault == "index":
            target[2], arguments = 99, {"check": False}
        elif fault == "rows":
            logits, target = logits[:3], target[:3]
        elif fault == "no rows":
            logits, target = logits[:0], target[:0]
        elif fault == "dtype":
            logits = logits.double()
        elif fault == "target":
            target = target.to(torch.complex64)
        elif fault == "weight":
            arguments = {"weight": torch.full((CLASSES,), float("nan"))}
        elif fault == "option":
            arguments = {"temperature": -1.0}
        elif fault == "other option":
            arguments = {"z_loss": 0.25}
    elif fault == "index":
        arguments = {"check": False}
    begin = time.monotonic()
    with pytest.raises((ValueError, TypeError, IndexError, NotImplementedError)) as caught:
        vocab_parallel_cross_entropy(logits, target, **arguments)
    return type(caught.value).__name__, str(caught.value), time.monotonic() - begin


FAULTS = {
    "index": ("IndexError", r"target: expected class indices in \[0, \d+\) or ignore_index -100, got 99 in row 2"),
    "rows": ("ValueError", "input.*: expected the same on every rank, got '?[34] rows"),
    "no rows": ("ValueError", "input.*: expected the same on every rank, got '?[04] rows"),
    "dtype": ("ValueError", "input.*: expected the same on every rank, got .*float64"),
    "target": ("TypeError", "target: expected class indices .* or probabilities, got torch.complex64"),
    "weight": ("ValueError", "weight: expected .*finite.*nan|weight: expected"),
    "option": ("ValueError", "temperature: expected"),
    "other option": ("ValueError", "z_loss|numbers"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_error_of_one_rank_is_raised_by_all(ranks, fault):
    """And they go on together afterwards."""
    before = ranks.run(step)
    for where in range(ranks.size):
        found = ranks.run(raised_at_once, fault, where)
        assert len({(kind, message) for kind, message, _ in found}) == 1, found
        kind, message, _ = found[0]
        assert kind == FAULTS[fault][0]
        assert re.search(FAULTS[fault][1], message), message
        assert max(seconds for *_, seconds in found) < TIMEOUT
        assert ranks.run(step) == before
