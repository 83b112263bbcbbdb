"""The processes among which classes are split, and what they tell each other beside numbers of rows."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import forward_ad
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.distributed_c10d import _resolve_process_group

from ..._options import as_integer

_T = TypeVar("_T")

# What every rank can raise, by name; other errors become a RuntimeError.
_ERRORS = {error.__name__: error for error in (IndexError, NotImplementedError, RuntimeError, TypeError, ValueError)}


class Ranks(NamedTuple):
    """The processes of a group, as one of them sees them. Operators know a group by its name."""

    name: str
    rank: int
    count: int  # type: ignore[assignment]  # not the method of tuples


class Shard(NamedTuple):
    """Which of all classes a rank holds."""

    ranks: Ranks
    first: int
    size: int
    classes: int  # of all ranks
    largest: int  # the size of the largest shard


def ranks_of(group: dist.ProcessGroup | DeviceMesh | None) -> Ranks:
    """The processes of a group; None: of all."""
    if not torch.compiler.is_compiling() and (
        torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    ):
        raise NotImplementedError("group: expected no transform of torch.func and no forward mode around its functions")
    if isinstance(group, DeviceMesh):
        group = group.get_group()  # which refuses a mesh of several dimensions
    group = dist.group.WORLD if group is None else group
    if group is None:
        raise RuntimeError("group: expected torch.distributed.init_process_group to be called first")
    if not isinstance(group, dist.ProcessGroup):
        raise TypeError(f"group: expected a process group that this process is a member of, got {group!r}")
    return Ranks(group.group_name, group.rank(), group.size())


def gather(tensor: Tensor, ranks: Ranks) -> Tensor:
    """(R, ...): a tensor of each rank, in their order."""
    return wait(start_gather(tensor.unsqueeze(0), ranks))


def start_gather(tensor: Tensor, ranks: Ranks) -> Tensor:
    """Tensors of all ranks one after the other, once `wait` has returned them."""
    started: Tensor = torch.ops._c10d_functional.all_gather_into_tensor(tensor, ranks.count, ranks.name)
    return started


def start_scatter(tensor: Tensor, ranks: Ranks) -> Tensor:
    """The same number of rows from each rank, of those that it has for this one."""
    sizes = [tensor.shape[0] // ranks.count] * ranks.count
    started: Tensor = torch.ops._c10d_functional.all_to_all_single(tensor, sizes, sizes, ranks.name)
    return started


def wait(started: Tensor) -> Tensor:
    finished: Tensor = torch.ops._c10d_functional.wait_tensor(started)
    return finished


def attempt(function: Callable[[], _T]) -> tuple[_T | None, Exception | None]:
    """What a function returns, or the error that it raises, which waits until every rank can raise it."""
    try:
        return function(), None
    except Exception as error:
        return None, error


def agree(ranks: Ranks, error: Exception | None) -> None:
    """Raise the error of the first rank that has one. Every rank calls it."""
    told = _gather_objects(None if error is None else (type(error).__name__, str(error)), ranks)
    for rank, each in enumerate(told):
        if each is not None:
            name, message = each
            raise error_of(name, f"{message}, on rank {rank}") from error


def error_of(name: str, message: str) -> Exception:
    """An error that was told to other ranks."""
    return _ERRORS[name](message) if name in _ERRORS else RuntimeError(f"{name}: {message}")


def check_same(
    ranks: Ranks, values: Mapping[str, object], own: Sequence[int], error: Exception | None = None
) -> list[list[int]]:
    """Raise unless `values` are the same on every rank and none has an error; returns the numbers that each has of
    its own. Every rank calls it, with as many numbers: one small gather.
    """
    digest = hashlib.blake2b(repr(values).encode(), digest_size=8).digest()
    header = [int(error is not None), int.from_bytes(digest, "big", signed=True), *own]
    told = gather(torch.tensor(header), ranks).tolist()
    if any(failed for failed, *_ in told):
        agree(ranks, error)
    if any(of_rank[1] != told[0][1] for of_rank in told):
        _raise_difference(_gather_objects({name: str(value) for name, value in values.items()}, ranks))
    return [of_rank[2:] for of_rank in told]


def _raise_difference(told: list[dict[str, str]]) -> NoReturn:
    for rank, values in enumerate(told):
        for name in told[0] | values:
            first, here = told[0].get(name, "none"), values.get(name, "none")
            if first != here:
                raise ValueError(
                    f"{name}: expected the same on every rank, got {first} on rank 0, {here} on rank {rank}"
                )
    raise ValueError("expected the same arguments on every rank")


def _gather_objects(value: object, ranks: Ranks) -> list[Any]:
    told: list[Any] = [None] * ranks.count
    dist.all_gather_object(told, value, group=_resolve_process_group(ranks.name))
    return told


# What the ranks of a group told of their shards: (size, class_offset or -1) of each.
_known: WeakKeyDictionary[dist.ProcessGroup, list[list[int]]] = WeakKeyDictionary()


def shard_of(
    ranks: Ranks,
    size: int,
    class_offset: int | None,
    values: Mapping[str, object],
    check: bool,
    error: Exception | None = None,
) -> tuple[Shard, Exception | None]:
    """The classes of this rank, which has `size` of them, and an error to tell the others. Every rank calls it.

    With `check`, and for the first call of a group, `values` are compared, and `error` is raised on every rank. Else
    classes are split as for the call before.
    """
    group = _resolve_process_group(ranks.name)
    offset, wrong = attempt(lambda: _checked_offset(class_offset))
    error = error or wrong
    own = [size, -1 if offset is None else offset]
    told = None if check else _known.get(group)
    changed = None
    if told is None:
        told = _known[group] = check_same(ranks, values, own, error)
    elif error is not None:
        raise error
    elif told[ranks.rank] != own:
        changed = shards_changed(size)
    return _shard(ranks, told), changed


def _checked_offset(class_offset: int | None) -> int | None:
    if class_offset is None:
        return None
    offset = as_integer("class_offset", class_offset, "an integer or None")
    if offset < 0:
        raise ValueError(f"class_offset: expected at least 0, got {offset}")
    return offset


def shards_changed(size: int) -> Exception:
    return ValueError(f"check: expected True for another shard than the group had before, got {size} classes")


def _shard(ranks: Ranks, told: list[list[int]]) -> Shard:
    sizes, offsets = zip(*told, strict=True)
    size = sizes[ranks.rank]
    if not any(sizes):
        raise ValueError("input_shard: expected at least one class on some rank, got none")
    if set(offsets) == {-1}:
        return Shard(ranks, sum(sizes[: ranks.rank]), size, sum(sizes), max(sizes))
    end = 0
    for offset, of_rank in sorted(zip(offsets, sizes, strict=True)):
        if of_rank and offset != end:
            raise ValueError(
                f"class_offset: expected none, or those of shards that follow each other from 0 on, got {offsets} for "
                f"shards of {sizes} classes"
            )
        end += of_rank
    return Shard(ranks, offsets[ranks.rank], size, end, max(sizes))
