// The kernels of a mode: rows [begin, end) of a problem, and the scratch that they need. A file for each mode compiles
// them.
#pragma once

#include <cstddef>

#include "../dispatch.hpp"
#include "../problem.hpp"
#include "mode.hpp"

CE_BEGIN

template <Mode mode>
void run(const Problem& problem, std::size_t begin, std::size_t end, const ParallelFor* parallel, void* memory,
         Outcome& outcome);
template <Mode mode>
std::size_t scratch_bytes(const Problem& problem);

CE_END
