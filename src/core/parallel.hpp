// Work over threads that live for one call: no pool, no state, safe after fork.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace crossentropy {

// While it lives, this thread rounds to nearest and keeps subnormal numbers; then it does as before.
class DefaultFloatingPoint {
 public:
#if defined(__x86_64__)
    DefaultFloatingPoint() : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
    ~DefaultFloatingPoint() { _mm_setcsr(saved_); }

 private:
    unsigned saved_;
#elif defined(__aarch64__)
    DefaultFloatingPoint() {
        __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
        __asm__ volatile("msr fpcr, %0" : : "r"(std::uint64_t(0)));
    }
    ~DefaultFloatingPoint() { __asm__ volatile("msr fpcr, %0" : : "r"(saved_)); }

 private:
    std::uint64_t saved_;
#else
    DefaultFloatingPoint() {}
#endif
 public:
    DefaultFloatingPoint(const DefaultFloatingPoint&) = delete;
    DefaultFloatingPoint& operator=(const DefaultFloatingPoint&) = delete;
};

// One thread is started for so many elements: starting it takes as long as computing some ten thousand.
constexpr std::size_t kElementsPerThread = std::size_t(1) << 18;

inline int useful_threads(std::size_t elements, int threads) {
    const std::size_t useful = (elements + kElementsPerThread - 1) / kElementsPerThread;
    return int(std::clamp<std::size_t>(useful, 1, std::size_t(std::max(threads, 1))));
}

// Calls task(i, thread) for each i in [0, tasks), on at most `threads` threads, numbered from 0; the caller's is one of
// them. Which thread runs a task is left to chance: results must not depend on it. Where the system refuses a thread,
// the others do its work. An exception ends the work; it is thrown again here when all threads have ended.
template <class Task>
void parallel_for(std::size_t tasks, int threads, const Task& task) {
    std::atomic<std::size_t> next{0};
    std::atomic<bool> failed{false};
    std::exception_ptr failure;
    const auto work = [&](int thread) {
        const DefaultFloatingPoint guard;
        try {
            for (std::size_t i = next++; i < tasks && !failed; i = next++) task(i, thread);
        } catch (...) {
            if (!failed.exchange(true)) failure = std::current_exception();
        }
    };
    std::vector<std::thread> others;
    try {
        for (int i = 1; i < threads && std::size_t(i) < tasks; ++i) others.emplace_back(work, i);
    } catch (const std::system_error&) {
    } catch (const std::bad_alloc&) {
    }
    work(0);
    for (std::thread& other : others) other.join();
    if (failure) std::rethrow_exception(failure);
}

}  // namespace crossentropy
