#include "kept_memory.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <vector>

namespace crossentropy {

namespace {

constexpr std::size_t kHugePage = std::size_t(1) << 21;

struct Block {
    std::byte* data;
    std::size_t size;
    std::size_t needed;   // by its result, rounded up to huge pages; 0 if it is kept
    std::uint64_t forks;  // of this process before it was handed out

    bool live() const { return needed != 0; }
};

std::size_t rounded_up(std::size_t bytes) { return (bytes + kHugePage - 1) / kHugePage * kHugePage; }

// Memory that begins a huge page, in huge pages where the system has them; null where there is none.
std::byte* map(std::size_t size) {
    void* const found = mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (found == MAP_FAILED) return nullptr;
    std::byte* const begin = static_cast<std::byte*>(found);
    const std::size_t before = rounded_up(std::uintptr_t(begin)) - std::uintptr_t(begin);
    if (before != 0) munmap(begin, before);
    if (before != kHugePage) munmap(begin + before + size, kHugePage - before);
#if defined(__linux__)
    madvise(begin + before, size, MADV_HUGEPAGE);
#endif
    return begin + before;
}

// Lets the system take a block's pages, or no longer. A child that shared them would have them copied when they are
// written next: they are kept from it. False where the system refuses.
bool mark_free(const Block& b, bool free) {
#if defined(__APPLE__)
    return madvise(b.data, b.size, free ? MADV_FREE_REUSABLE : MADV_FREE_REUSE) == 0 &&
           minherit(b.data, b.size, free ? VM_INHERIT_NONE : VM_INHERIT_COPY) == 0;
#else
    return (!free || madvise(b.data, b.size, MADV_FREE) == 0) &&
           madvise(b.data, b.size, free ? MADV_DONTFORK : MADV_DOFORK) == 0;
#endif
}

// Whether a block still has its pages. Lost ones would come back small, and take longer to fill than a block mapped
// anew.
bool has_its_pages([[maybe_unused]] const Block& b, [[maybe_unused]] std::size_t bytes) {
#if defined(__linux__)
    unsigned char pages[4096], there = 1;
    const std::size_t page = std::size_t(sysconf(_SC_PAGESIZE)), step = sizeof(pages) * page;
    for (std::size_t begin = 0; begin < bytes && (there & 1) != 0; begin += step) {
        const std::size_t part = std::min(step, bytes - begin);
        if (mincore(b.data + begin, part, pages) != 0) return false;
        for (std::size_t i = 0; i < (part + page - 1) / page; ++i) there &= pages[i];
    }
    return (there & 1) != 0;
#else
    return true;
#endif
}

// Whether kept blocks take from nobody. They count whole under a limit of the address space, and where the system
// promises no more memory than it has. Asked each time, since limits may be set at any.
bool may_keep() {
    for (const auto resource : {RLIMIT_AS, RLIMIT_DATA}) {
        rlimit limit;
        if (getrlimit(resource, &limit) != 0 || limit.rlim_cur != RLIM_INFINITY) return false;
    }
    char overcommit = '0';
#if defined(__linux__)
    const int file = open("/proc/sys/vm/overcommit_memory", O_RDONLY | O_CLOEXEC);
    if (file < 0 || read(file, &overcommit, 1) != 1) overcommit = '2';
    if (file >= 0) close(file);
#endif
    return overcommit != '2';
}

// Blocks handed out and blocks kept. Together they never have more bytes than results have needed at once.
struct Blocks {
    using Place = std::vector<Block>::iterator;

    std::mutex mutex;
    std::vector<Block> blocks;  // of those kept the oldest first
    std::size_t live = 0, kept = 0, limit = kNoLimit;
    std::size_t needed = 0, most = 0;  // by results now, and at most at once
    std::uint64_t forks = 0;

    Place find(void* data) {
        return std::find_if(blocks.begin(), blocks.end(), [&](const Block& b) { return b.data == data; });
    }

    Place unmap(Place block) {
        munmap(block->data, block->size);
        return blocks.erase(block);
    }

    void* hand_out(Block& block, std::size_t size) {
        block.needed = size;
        block.forks = forks;
        live += block.size;
        needed += size;
        most = std::max(most, needed);
        return block.data;
    }

    void drop_kept_to(std::size_t bytes) {
        for (Place block = blocks.begin(); kept > bytes;) {
            if (!block->live()) kept -= block->size;
            block = block->live() ? block + 1 : unmap(block);
        }
    }

    void make_room(std::size_t size) {
        const std::size_t room = std::max(most, needed + size);
        drop_kept_to(room - std::min(room, live + size));
        if (live + size <= room) return;
        for (Block& block : blocks) {  // none is kept now: give back what they have beyond their results
            if (block.size > block.needed) munmap(block.data + block.needed, block.size - block.needed);
            block.size = block.needed;
        }
        live = needed;
    }

    void after_fork(bool child) {
        ++forks;
        if (child) {  // which has not got the kept ones
            const auto is_kept = [](const Block& block) { return !block.live(); };
            blocks.erase(std::remove_if(blocks.begin(), blocks.end(), is_kept), blocks.end());
            kept = 0;
        }
        mutex.unlock();
    }
};

// Never destroyed: arrays may die when the process ends.
Blocks& all() {
    static Blocks* const blocks = [] {
        pthread_atfork([] { all().mutex.lock(); }, [] { all().after_fork(false); }, [] { all().after_fork(true); });
        return new Blocks;
    }();
    return *blocks;
}

using Lock = std::lock_guard<std::mutex>;

void* take(Blocks& a, std::size_t size, std::size_t bytes) {
    if (!may_keep()) a.drop_kept_to(0);
    auto best = a.blocks.end();
    for (auto b = a.blocks.begin(); b != a.blocks.end(); ++b)
        if (!b->live() && b->size >= size && (best == a.blocks.end() || b->size < best->size)) best = b;
    if (best != a.blocks.end()) {
        a.kept -= best->size;
        if (has_its_pages(*best, bytes) && mark_free(*best, false)) return a.hand_out(*best, size);
        a.unmap(best);
    }
    a.blocks.reserve(a.blocks.size() + 1);
    a.make_room(size);
    std::byte* data = map(size);
    if (data == nullptr) {
        a.drop_kept_to(0);
        data = map(size);
    }
    return data == nullptr ? nullptr : a.hand_out(a.blocks.emplace_back(Block{data, size, 0, 0}), size);
}

}  // namespace

KeptMemory kept_memory() {
    const Lock lock(all().mutex);
    return {all().live, all().kept, all().limit};
}

void limit_kept_memory(std::size_t bytes) {
    const Lock lock(all().mutex);
    all().limit = bytes;
    all().drop_kept_to(bytes);
}

void* allocate_result(std::size_t bytes) noexcept try {
    if (bytes < kKeptFrom) return std::malloc(bytes);
    const Lock lock(all().mutex);
    return all().limit == 0 ? std::malloc(bytes) : take(all(), rounded_up(bytes), bytes);
} catch (const std::bad_alloc&) {
    return nullptr;
}

void* resize_result(void* data, std::size_t bytes) noexcept {
    std::size_t size = 0;
    {
        const Lock lock(all().mutex);
        if (const auto block = all().find(data); block != all().blocks.end()) size = block->size;
    }
    if (size == 0) return std::realloc(data, bytes);
    void* const moved = allocate_result(bytes);
    if (moved == nullptr) return nullptr;
    std::memcpy(moved, data, std::min(size, bytes));
    free_result(data);
    return moved;
}

void free_result(void* data) noexcept {
    Blocks& a = all();
    const Lock lock(a.mutex);
    auto block = a.find(data);
    if (block == a.blocks.end()) return std::free(data);
    const std::size_t size = block->size;
    a.live -= size;
    a.needed -= block->needed;
    block->needed = 0;
    std::rotate(block, block + 1, a.blocks.end());
    block = a.blocks.end() - 1;
    // A child may still share the pages of one that has lived through a fork.
    if (size > a.limit || block->forks != a.forks || !may_keep() || !mark_free(*block, true)) {
        a.unmap(block);
    } else {
        a.drop_kept_to(a.limit - size);
        a.kept += size;
    }
}

}  // namespace crossentropy
