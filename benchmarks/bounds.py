"""What bounds each kernel: the instructions of its hottest loop, the cycles that they take at least, what is reached.

    python benchmarks/bounds.py BUILD        a CMake build folder with its objects, such as build/dev

The loop is read from the disassembled objects (objdump): of the functions that a pattern names, the innermost loop with
the most exponentials, told by the shift that makes a power of two. Its instructions are counted by what they occupy.
The model of a CPU is a few numbers, from Agner Fog's tables and uops.info: how many multiplications, additions and
vector instructions of any kind it starts in a cycle, and how many instructions it takes in. (llvm-mca's own model of
Zen 3 and 4 starts one multiply-add a cycle where the CPU starts two.) What is reached is timed on one thread, on as
few rows as stay in the second cache, as the difference of two calls; the clock is that of a chain of additions.
"""

import argparse
import re
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
from results import write
from run import machine

import crossentropy as ce

# Before a number, how the names of functions spell one.
MODE, COEFFICIENTS, TILE = (rf"\(\S*::{name}\)" for name in ("Mode", "Coefficients", "TileCoefficients"))
Calls = Callable[[int], Callable[[], object]]  # from a number of rows to a call


class Kernel(NamedTuple):
    """A kernel: its file, patterns of the functions that add up and that write, bytes of an element, and its calls."""

    source: str
    adds: str
    writes: str
    element: int
    classes: int
    calls: Calls


class Cpu(NamedTuple):
    """What a CPU starts in a cycle, in vectors as wide as its instructions are here."""

    instruction_set: str
    vector: int  # bytes
    multiplications: float
    additions: float
    vectors: float  # any vector instruction
    loads: float
    stores: float
    taken: float  # instructions of any kind


# Zen 4 runs an instruction of 512 bits in two halves, on the four pipes of Zen 3: two multiply, two add.
CPUS = {
    "Zen 3": Cpu("AVX2", 32, 2, 2, 4, 2, 1, 6),
    "Zen 4": Cpu("AVX512", 64, 1, 1, 2, 1, 0.5, 6),
    "Golden Cove": Cpu("AVX512", 64, 2, 2, 2, 2, 1, 6),
}


def loss(dtype: object, classes: int, axis: int = -1, dense: bool = False, **options: float) -> Calls:
    """Loss and gradient; of probabilities if dense."""

    def call(rows: int) -> Callable[[], object]:
        rng = np.random.default_rng(0)
        shape = (rows, classes) if axis else (classes, rows)
        logits = rng.standard_normal(shape).astype(dtype)
        targets = rng.random(shape).astype(dtype) if dense else rng.integers(0, classes, rows)
        out = np.empty_like(logits)
        return lambda: ce.cross_entropy_with_grad(logits, targets, axis=axis, out=out, num_threads=1, **options)

    return call


def other(function: Callable[..., object]) -> Calls:
    """Of two arrays of a thousand classes, or of one."""

    def call(rows: int) -> Callable[[], object]:
        first, second = np.random.default_rng(0).random((2, rows, 1000)).astype(np.float32)
        out = np.empty_like(first)
        if function is ce.softmax:
            return lambda: ce.softmax(first)
        if function is ce.kl_divergence:
            return lambda: ce.kl_divergence(first, second, num_threads=1)
        return lambda: ce.binary_cross_entropy_with_grad(first, second, out=out, num_threads=1)

    return call


def of_rows(types: str, coefficients: int) -> tuple[str, str]:
    """Patterns of a row kernel: of its sums and of what writes its gradient."""
    return (
        rf"block_sums<{MODE}0, {COEFFICIENTS}{coefficients}, true, false, {types}>",
        rf"(RowKernel<{types}, {MODE}0>::write_gradient|write_difference)<{COEFFICIENTS}{coefficients}(, {types})?>",
    )


def of_tiles(layout: str, coefficients: int) -> tuple[str, str]:
    """The same of rows side by side: one function does it all."""
    pattern = rf"compute_rows<{TILE}{coefficients}, false, .*{layout}Kernel<float, float, {MODE}0>"
    return pattern, pattern


HALF = r"\S*Half<{}>, float"
BFLOAT16, FLOAT16 = HALF.format("8, 7"), HALF.format("5, 10")
KERNELS = {
    "1000 classes, float32": Kernel("plain", *of_rows("float, float", 0), 4, 1000, loss(np.float32, 1000)),
    "1000 classes, bfloat16": Kernel("plain", *of_rows(BFLOAT16, 0), 4, 1000, loss(ml_dtypes.bfloat16, 1000)),
    "1000 classes, float16": Kernel("plain", *of_rows(FLOAT16, 0), 4, 1000, loss(np.float16, 1000)),
    "1000 classes, float64": Kernel("plain", *of_rows("double, double", 0), 8, 1000, loss(np.float64, 1000)),
    "1000 classes, probabilities": Kernel(
        "plain", *of_rows("float, float", 2), 4, 1000, loss(np.float32, 1000, dense=True)
    ),
    "10 classes": Kernel("plain", *of_tiles("Column", 0), 4, 10, loss(np.float32, 10)),
    "10 classes, label smoothing": Kernel(
        "plain", *of_tiles("Column", 1), 4, 10, loss(np.float32, 10, label_smoothing=0.1)
    ),
    "10 classes, probabilities": Kernel("plain", *of_tiles("Column", 2), 4, 10, loss(np.float32, 10, dense=True)),
    "21 classes, strided": Kernel("plain", *of_tiles("Strided", 0), 4, 21, loss(np.float32, 21, axis=0)),
    "softmax, 1000 classes": Kernel("plain", *of_rows("float, float", 0), 4, 1000, other(ce.softmax)),
    "binary": Kernel("binary", "plain_elements<true>", "", 4, 1000, other(ce.binary_cross_entropy_with_grad)),
    "divergence": Kernel("divergence", "store_exponentials<float>", "", 4, 1000, other(ce.kl_divergence)),
}


class Loop(NamedTuple):
    """What the instructions of a loop occupy, for 512 bits of elements: 16 of float32, 8 of float64."""

    instructions: float
    multiplications: float
    additions: float
    vectors: float
    loads: float
    stores: float

    def cycles(self, cpu: Cpu) -> tuple[float, str]:
        """How many a CPU takes at least, and what of it they occupy."""
        takes = {
            "multiplications": self.multiplications / cpu.multiplications,
            "additions": self.additions / cpu.additions,
            "vector instructions": self.vectors / cpu.vectors,
            "loads": self.loads / cpu.loads,
            "stores": self.stores / cpu.stores,
            "instructions": self.instructions / cpu.taken,
        }
        bound = max(takes, key=takes.__getitem__)
        return takes[bound], bound


def functions(text: str) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """Name and instructions, with their addresses, of each function of a disassembly."""
    for part in re.split(r"\n(?=[0-9a-f]+ <)", text):
        head, _, body = part.partition(">:\n")
        lines = re.findall(r"(?m)^ *([0-9a-f]+):\s+(.*?)\s*(?:#.*)?$", body)
        if lines:
            yield head.partition("<")[2], [(int(address, 16), line) for address, line in lines]


def innermost(code: list[tuple[int, str]]) -> Iterator[list[str]]:
    """The loops that hold no other: from the target of a jump back to that jump."""
    jumps = [(address, re.match(r"j\w+\s+([0-9a-f]+)", line)) for address, line in code]
    back = [(int(jump[1], 16), address) for address, jump in jumps if jump and int(jump[1], 16) < address]
    for begin, end in back:
        if not any((b, e) != (begin, end) and begin <= b and e <= end for b, e in back):
            yield [line for address, line in code if begin <= address <= end]


def matching(pattern: str, loop: list[str]) -> int:
    return sum(bool(re.match(pattern, line)) for line in loop)


def counted(loop: list[str], vectors: float) -> Loop:
    """What a loop over so many vectors of 512 bits takes for one."""
    kinds: Counter[str] = Counter()
    for line in loop:
        name, _, operands = line.partition(" ")
        memory = "(" in operands and not name.startswith(("lea", "prefetch", "nop"))
        store = memory and operands.endswith(")") and name.startswith(("vmov", "vpmov", "mov", "vextract", "vcvtps2ph"))
        moves = re.match(r"vmov(u|a|dq)|vbroadcast", name)
        kinds["loads"] += memory and not store
        kinds["stores"] += store
        kinds["multiplications"] += bool(re.match(r"v(fn?m|mul|div)", name))
        kinds["additions"] += bool(re.match(r"v(add|sub)p", name))
        kinds["vectors"] += name.startswith(("v", "k")) and not moves and not store
    names = ("multiplications", "additions", "vectors", "loads", "stores")
    return Loop(len(loop) / vectors, *(kinds[name] / vectors for name in names))


def passes(kernel: Kernel, cpu: Cpu, loops: dict[str, list[list[str]]]) -> Iterator[tuple[str, Loop]]:
    """The loops over all classes: for the maximum, for the sums of exponentials, and for what is written."""
    shift = r"vpslld\s+\$0x17," if kernel.element == 4 else r"vpsllq\s+\$0x34,"
    store, wide = r"(vp?mov\w+|vcvtps2ph)\s+(\$\w+,)?%[xyz]mm\d+,.*\)$", cpu.vector / 64
    adds = loops[kernel.adds]
    most = max(adds, key=lambda loop: (matching(shift, loop), -len(loop)), default=[])
    if not matching(shift, most):
        raise SystemExit(f"no loop with exponentials in a function that matches {kernel.adds}")
    yield "exponentials", counted(most, matching(shift, most) * wide)
    if not kernel.writes:
        return
    for half, maximum in ((2, r"vpmaxsw"), (1, r"vmaxp")):  # of 16 bits twice as many at a time
        found = [loop for loop in adds if matching(maximum, loop) and not matching(shift, loop)]
        if found:
            most = max(found, key=lambda loop: matching(maximum, loop))
            yield "maximum", counted(most, matching(maximum, most) * wide * half)
            break
    plain = [
        loop
        for loop in loops[kernel.writes]
        if matching(store, loop) and matching(r"v(fn?m|mul)", loop) >= matching(store, loop)
        if not matching(shift, loop) and not matching(r"vmaxp|vpmaxsw|call|vdiv", loop)
    ]
    least = min(plain, key=lambda loop: len(loop) / matching(store, loop))
    yield "output", counted(least, matching(store, least) * wide)


def loops_of(pattern: str, path: Path) -> list[list[str]]:
    return [loop for name, code in disassembled(path) if re.search(pattern, name) for loop in innermost(code)]


@cache
def disassembled(path: Path) -> list[tuple[str, list[tuple[int, str]]]]:
    found = subprocess.run(["objdump", "-dC", "--no-show-raw-insn", path], capture_output=True, text=True, check=True)
    return list(functions(found.stdout))


def clock() -> float:
    """Cycles in a nanosecond: a chain of additions takes one each."""
    code = """#include <chrono>
    #include <cstdio>
    int main() { double best = 0; for (int turn = 0; turn < 300; ++turn) {
        const auto begin = std::chrono::steady_clock::now(); long x = 0;
        for (int i = 0; i < 1000; ++i) __asm__ volatile(".rept 64\\n add $1, %0\\n .endr" : "+r"(x));
        const double ns = std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begin).count();
        if (64000 / ns > best) best = 64000 / ns; } std::printf("%f", best); }"""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "clock"
        subprocess.run(["c++", "-O2", "-x", "c++", "-", "-o", program], input=code, text=True, check=True)
        return float(subprocess.run([program], capture_output=True, text=True, check=True).stdout)


def nanoseconds(kernel: Kernel) -> float:
    """Of 512 bits of elements: the difference of two calls, each the best of many."""
    few, many = ((kilobytes << 10) // (kernel.classes * kernel.element) for kilobytes in (32, 128))
    calls = {rows: kernel.calls(rows) for rows in (few, many)}
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(3000):
        for rows, call in calls.items():
            begin = time.perf_counter_ns()
            call()
            best[rows] = min(best[rows], time.perf_counter_ns() - begin)
    return (best[many] - best[few]) / ((many - few) * kernel.classes) * 64 / kernel.element


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path, help="a build folder of CMake")
    build = parser.parse_args().build
    gigahertz = clock()
    kernels: dict[str, dict[str, object]] = {}
    for name, kernel in KERNELS.items():
        found: dict[str, object] = {}
        for cpu_name, cpu in CPUS.items():
            (path,) = build.rglob(f"kernels_{cpu.instruction_set}.dir/kernels/{kernel.source}.cpp.o")
            loops = {pattern: loops_of(pattern, path) for pattern in (kernel.adds, kernel.writes) if pattern}
            bounds = {what: (loop, *loop.cycles(cpu)) for what, loop in passes(kernel, cpu, loops)}
            found[cpu_name] = {
                "cycles": sum(cycles for _, cycles, _ in bounds.values()),
                "bound by": bounds["exponentials"][2],
                **{what: loop.instructions for what, (loop, _, _) in bounds.items()},
                **{
                    what: getattr(bounds["exponentials"][0], what)
                    for what in ("multiplications", "additions", "vectors")
                },
            }
        found["reached"] = {"cycles": nanoseconds(kernel) * gigahertz}
        kernels[name] = found
        print(name, found)
    cpus = {name: {key: value for key, value in cpu._asdict().items() if key != "vector"} for name, cpu in CPUS.items()}
    figures = {"kernels": kernels, "cpus": cpus, "gigahertz": gigahertz, "machine": machine({"numpy": np.__version__})}
    print(f"wrote {write('bounds', figures)}")


if __name__ == "__main__":
    main()
