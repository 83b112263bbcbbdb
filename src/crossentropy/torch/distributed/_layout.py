"""How tensors lie on a mesh of ranks: rows split over some of its dimensions, classes over one."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor._dtensor_spec import DTensorSpec
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.distributed.tensor.placement_types import Placement

from ._group import wait

Placements = tuple[Placement, ...]


class Layout(NamedTuple):
    """Where logits lie."""

    mesh: DeviceMesh
    shape: torch.Size
    placements: Placements

    @property
    def axis(self) -> int:
        return 1 if len(self.shape) > 1 else 0

    @property
    def class_dims(self) -> list[int]:
        """Dimensions of the mesh over which the classes are split."""
        return [i for i, place in enumerate(self.placements) if place.is_shard(self.axis)]

    @property
    def row_groups(self) -> list[Any]:
        """Groups of ranks, one for each dimension of the mesh over which the rows are split."""
        dims = [i for i, place in enumerate(self.placements) if place.is_shard() and not place.is_shard(self.axis)]
        return [self.mesh.get_group(i) for i in dims]

    @property
    def part(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The shape of this rank's part, and where it begins."""
        return compute_local_shape_and_global_offset(self.shape, self.mesh, self.placements)

    @property
    def without_classes(self) -> Placements:
        """Placements of what has the logits' dimensions, the class axis whole."""
        return tuple(Replicate() if place.is_shard(self.axis) else place for place in self.placements)

    @property
    def of_rows(self) -> Placements:
        """Placements of what has one element a row."""
        return tuple(
            Shard(place.dim - 1) if isinstance(place, Shard) and place.dim > self.axis else place
            for place in self.without_classes
        )

    @property
    def whole(self) -> Placements:
        """Placements of what every rank holds whole."""
        return (Replicate(),) * self.mesh.ndim

    @property
    def of_classes(self) -> Placements:
        """Placements of what has one element a class."""
        return tuple(Shard(0) if place.is_shard(self.axis) else Replicate() for place in self.placements)

    @property
    def summands(self) -> Placements:
        """Placements of the gradient of what every rank holds whole and uses for its own part of the logits."""
        return tuple(Partial() if place.is_shard() else place for place in self.placements)


def layout_of(input: DTensor) -> Layout:
    """The layout of logits; raises where it is none that the loss is computed on."""
    _check("input", input)
    layout = Layout(input.device_mesh, input.shape, input.placements)
    if len(layout.class_dims) > 1:
        raise ValueError(
            f"input: expected classes split over at most one dimension of the mesh, got {input.placements}"
        )
    return layout


class Place(NamedTuple):
    """A tensor and where its parts are to lie, and those of its gradient where that is not the same."""

    tensor: Tensor | None
    placements: Placements
    grad_placements: Placements | None = None


def local(layout: Layout, **places: Place) -> list[Any]:
    """What this rank has of tensors; a plain one is taken for the whole, which every rank holds.

    The names are those of arguments. All are redistributed before this rank looks at what it has.
    """
    parts = [_part(layout, name, place) for name, place in places.items()]
    for (name, (tensor, placements, _)), part in zip(places.items(), parts, strict=True):
        if tensor is None:
            continue
        expected = compute_local_shape_and_global_offset(tensor.shape, layout.mesh, placements)[0]
        if part.shape != expected:
            raise ValueError(f"{name}: expected a part of shape {expected} on this rank, got {tuple(part.shape)}")
    return parts


def _part(layout: Layout, name: str, place: Place) -> Any:
    tensor, placements, grad_placements = place
    if tensor is None:
        return None
    if isinstance(tensor, DTensor):
        _check(name, tensor)
        if tensor.device_mesh != layout.mesh:
            raise ValueError(f"{name}: expected the mesh of the logits, {layout.mesh}, got {tensor.device_mesh}")
    else:
        tensor = DTensor.from_local(tensor, layout.mesh, layout.whole, run_check=False)
    if tensor.placements != placements:
        tensor = tensor.redistribute(placements=placements)
    part = tensor.to_local(grad_placements=grad_placements)
    return wait(part) if isinstance(part, AsyncCollectiveTensor) else part


def placed(part: Tensor, layout: Layout, placements: Placements, shape: torch.Size) -> DTensor:
    """The tensor of this shape of which each rank has its part."""
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(part, layout.mesh, placements, run_check=False, shape=shape, stride=stride)


def _check(name: str, tensor: DTensor) -> None:
    """Raise unless each part is a slice of the whole: not a summand of it, nor every other row."""
    simple = all(type(place) in (Shard, Replicate) for place in tensor.placements)
    if not simple or not DTensorSpec.is_default_device_order(tensor._spec.shard_order):
        raise ValueError(
            f"{name}: expected placements Shard or Replicate, the parts in the order of the mesh, "
            f"got {tensor.placements}; redistribute it first"
        )
