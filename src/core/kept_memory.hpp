// Memory of large results, kept for the next result when one dies: fresh pages cost more than the kernel that fills
// them. The system may take the pages of what is kept, as if it had been given back. What a process is seen to use does
// not fall; what is available to others rises.
#pragma once

#include <cstddef>

namespace crossentropy {

// From so many bytes on. The C library reuses what is smaller.
constexpr std::size_t kKeptFrom = std::size_t(32) << 20;
constexpr std::size_t kNoLimit = std::size_t(0) - 1;

// In bytes: of results, and kept, and at most to be kept. With a limit of 0 all results are the C library's.
struct KeptMemory {
    std::size_t live, kept, limit;
};
KeptMemory kept_memory();
void limit_kept_memory(std::size_t bytes);

// As malloc, realloc and free, but aligned to 2 MiB from kKeptFrom on. Of any thread, at any time.
void* allocate_result(std::size_t bytes) noexcept;
void* resize_result(void* data, std::size_t bytes) noexcept;
void free_result(void* data) noexcept;

}  // namespace crossentropy
