// How much stack a call takes: generated problems in a thread whose stack is painted, and how far the paint is gone.
// Fails above 16 KiB. A caller may have little: musl gives a thread 128 KiB, and Python takes most of it.
#include <pthread.h>

#include <cstdio>
#include <cstdlib>
#include <new>

#include "dispatch.hpp"
#include "problems.hpp"

using namespace crossentropy;

namespace {

constexpr std::size_t kStack = std::size_t(1) << 20, kMost = std::size_t(16) << 10;
constexpr unsigned char kPaint = 0xa5;

// The bytes of its stack that a thread has touched.
std::size_t touched(void* (*work)(void*), void* argument) {
    static unsigned char* const stack = static_cast<unsigned char*>(::operator new(kStack, std::align_val_t{4096}));
    std::memset(stack, kPaint, kStack);
    pthread_attr_t attributes;
    pthread_t thread;
    if (pthread_attr_init(&attributes) != 0 || pthread_attr_setstack(&attributes, stack, kStack) != 0 ||
        pthread_create(&thread, &attributes, work, argument) != 0) {
        std::fputs("no thread with a stack of our own\n", stderr);
        std::exit(1);
    }
    pthread_join(thread, nullptr);
    pthread_attr_destroy(&attributes);
    return std::size_t(std::find_if(stack, stack + kStack, [](unsigned char c) { return c != kPaint; }) - stack);
}

}  // namespace

int main() {
    kernels();  // chosen here, so that the choice is not counted
    Random random;
    const std::size_t untouched = touched([](void*) -> void* { return nullptr; }, nullptr);
    std::size_t most = 0;
    for (int i = 0; i < 1000; ++i)
        generate(random, 40, [&](auto& problem) {
            using Generated = std::remove_reference_t<decltype(problem)>;
            const auto work = [](void* argument) -> void* {
                evaluate(static_cast<Generated*>(argument)->p, 1);
                return nullptr;
            };
            most = std::max(most, untouched - touched(work, &problem));
        });
    std::printf("%-8s %zu bytes of stack\n", kernels().name, most);
    return most <= kMost ? 0 : 1;
}
