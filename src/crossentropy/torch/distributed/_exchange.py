"""Numbers of rows from every rank, joined in the order of the ranks, so that every rank gets the same bits."""

from collections.abc import Callable

import torch
from torch import Tensor

from ._group import Ranks, agree, start_gather, start_scatter, wait

# Up to so many ranks, or bytes that each receives, every rank gathers and joins all rows. Beyond, each joins some of
# them, and what is joined is gathered: it receives twice the bytes of one rank whatever their number. The bits are the
# same.
GATHER_RANKS, GATHER_BYTES = 4, 1 << 20

Join = Callable[[Tensor], Tensor]  # (R, n, F) -> (n, F)


class Exchange:
    """Starts to send what this rank knows of its rows, (N, F) of float64, F > 0; `wait` joins it with what others know.

    With an error instead nothing is known. Then every rank raises it, in `wait`: each has to come to it.
    `join` may be given rows of zeros that do not count.
    """

    def __init__(
        self, part: Tensor | None, shape: tuple[int, int], join: Join, ranks: Ranks, error: Exception | None = None
    ) -> None:
        self.join, self.ranks, self.error = join, ranks, error
        self.rows = shape[0]
        self.packed = pack(part, shape, chunks_for(shape, ranks))
        self.started = start(self.packed, ranks)

    def wait(self) -> Tensor:
        """(N, F), joined."""
        parts, failed = unpack(wait(self.started))
        if failed:
            agree(self.ranks, self.error)
        return collect(self.join(parts), self.rows, self.packed.shape[0], self.ranks)


def chunks_for(shape: tuple[int, int], ranks: Ranks) -> int:
    """In how many chunks rows of numbers are sent: one, or one for each rank."""
    rows, fields = shape
    gathers = ranks.count <= GATHER_RANKS or ranks.count * rows * fields * 8 <= GATHER_BYTES
    return 1 if gathers else ranks.count


def packed_shape(shape: tuple[int, int], chunks: int) -> tuple[int, int, int]:
    rows, fields = shape
    return chunks, 1 - (-rows // chunks), fields


def pack(part: Tensor | None, shape: tuple[int, int], chunks: int) -> Tensor:
    """(chunks, 1 + n, F): so many rows in each chunk, after one that tells of an error."""
    packed = torch.zeros(packed_shape(shape, chunks), dtype=torch.float64)
    each = packed.shape[1] - 1
    if part is None:
        packed[:, 0] = 1.0
        return packed
    for i in range(chunks):
        of_chunk = part[i * each : (i + 1) * each]
        packed[i, 1 : 1 + of_chunk.shape[0]] = of_chunk
    return packed


def start(packed: Tensor, ranks: Ranks) -> Tensor:
    return start_gather(packed, ranks) if packed.shape[0] == 1 else start_scatter(packed, ranks)


def unpack(received: Tensor) -> tuple[Tensor, bool]:
    """(R, n, F), and whether a rank has an error."""
    return received[:, 1:].contiguous(), bool(received[:, 0].any())


def collect(joined: Tensor, rows: int, chunks: int, ranks: Ranks) -> Tensor:
    """All rows from those that this rank has joined."""
    return joined if chunks == 1 else wait(start_gather(joined, ranks))[:rows]
