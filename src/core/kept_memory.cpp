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

// What a result has, or what is kept for results: pieces of what earlier ones had.
struct Block {
    std::byte* data;
    std::size_t size;  // in whole huge pages
    bool live;
    std::uint64_t forks;  // of this process before it was handed out
};

std::size_t rounded_up(std::size_t bytes) { return (bytes + kHugePage - 1) / kHugePage * kHugePage; }

// Fresh memory, in huge pages where the system has them; null where there is none.
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

// Whether a block has kept its pages, but for less than a huge page: those that are lost come back small, and take
// longer to fill than a block mapped anew.
bool has_its_pages([[maybe_unused]] const Block& b) {
    std::size_t lost = 0;
#if defined(__linux__)
    unsigned char pages[4096];
    const std::size_t page = std::size_t(sysconf(_SC_PAGESIZE)), step = sizeof(pages) * page;
    for (std::size_t begin = 0; begin < b.size && lost < kHugePage; begin += step) {
        const std::size_t part = std::min(step, b.size - begin);
        if (mincore(b.data + begin, part, pages) != 0) return false;
        for (std::size_t i = 0; i < part / page; ++i) lost += (pages[i] & 1) != 0 ? 0 : page;
    }
#endif
    return lost < kHugePage;
}

// Moves pages to other addresses, where the system can. Where it could not move all, some have been.
bool move([[maybe_unused]] std::byte* from, [[maybe_unused]] std::byte* to, [[maybe_unused]] std::size_t size) {
#if defined(__linux__)
    if (mremap(from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, to) != MAP_FAILED) return true;
    if (size == kHugePage) return false;
    // Before Linux 6.17 a call moves pages of one mapping only: what was joined here before is of several.
    const std::size_t half = rounded_up(size / 2);
    return move(from, to, half) && move(from + half, to + half, size - half);
#else
    return false;
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

// Blocks handed out and blocks kept. Together they never have more bytes than results had at once: a new result takes
// all that is kept before it takes anything fresh.
struct Blocks {
    using Place = std::vector<Block>::iterator;

    std::mutex mutex;
    std::vector<Block> blocks;  // of those kept the oldest first
    std::size_t live = 0, kept = 0, limit = kNoLimit;
    std::uint64_t forks = 0;

    Place find(void* data) {
        return std::find_if(blocks.begin(), blocks.end(), [&](const Block& b) { return b.live && b.data == data; });
    }

    // The smallest kept block of so many bytes or more; else the one kept last.
    Place best(std::size_t size) {
        Place found = blocks.end();
        for (Place b = blocks.begin(); b != blocks.end(); ++b)
            if (!b->live && (found == blocks.end() || found->size < size || (b->size >= size && b->size < found->size)))
                found = b;
        return found;
    }

    // The first bytes of a kept block, or all of it, which is then no longer kept.
    Block cut(Place block, std::size_t size) {
        const Block piece{block->data, std::min(size, block->size), false, forks};
        kept -= piece.size;
        block->data += piece.size;
        block->size -= piece.size;
        if (block->size == 0) blocks.erase(block);
        return piece;
    }

    void drop_kept_to(std::size_t bytes) {
        for (Place block = blocks.begin(); kept > bytes;) {
            if (block->live) {
                ++block;
            } else {
                kept -= block->size;
                munmap(block->data, block->size);
                block = blocks.erase(block);
            }
        }
    }

    void after_fork(bool child) {
        ++forks;
        if (child) {  // which has not got the kept ones
            const auto is_kept = [](const Block& block) { return !block.live; };
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

// Fresh memory into which the pages of kept blocks are moved, as far as they go.
std::byte* assemble(Blocks& a, std::size_t size) {
    std::byte* const data = map(size);
    if (data == nullptr) return nullptr;
    bool moved = false;
    for (std::size_t done = 0; done < size && a.kept != 0;) {
        const Block piece = a.cut(a.best(size - done), size - done);
        if (!has_its_pages(piece)) {
            munmap(piece.data, piece.size);
        } else if (move(piece.data, data + done, piece.size)) {
            moved = true;
        } else {
            return nullptr;  // both are given up: a hole that some pages left may be another thread's by now
        }
        done += piece.size;
    }
    if (!moved || mark_free({data, size, true, 0}, false)) return data;
    munmap(data, size);
    return nullptr;
}

std::byte* take(Blocks& a, std::size_t size) {
    if (!may_keep()) a.drop_kept_to(0);
    a.blocks.reserve(a.blocks.size() + 1);
    std::byte* data = nullptr;
    if (const auto best = a.best(size); best != a.blocks.end() && best->size >= size) {
        const Block piece = a.cut(best, size);
        if (has_its_pages(piece) && mark_free(piece, false)) {
            data = piece.data;
        } else {
            munmap(piece.data, size);
        }
    }
    if (data == nullptr) data = assemble(a, size);
    if (data == nullptr) {
        a.drop_kept_to(0);
        data = map(size);
    }
    if (data == nullptr) return nullptr;
    a.blocks.push_back({data, size, true, a.forks});
    a.live += size;
    return data;
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
    return all().limit == 0 ? std::malloc(bytes) : take(all(), rounded_up(bytes));
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
    block->live = false;
    std::rotate(block, block + 1, a.blocks.end());
    // A child may still share the pages of one that has lived through a fork.
    const Block& last = a.blocks.back();
    if (size > a.limit || last.forks != a.forks || !may_keep() || !mark_free(last, true)) {
        munmap(last.data, size);
        a.blocks.pop_back();
    } else {
        a.drop_kept_to(a.limit - size);
        a.kept += size;
    }
}

}  // namespace crossentropy
