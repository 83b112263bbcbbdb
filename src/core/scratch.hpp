// Memory that a kernel computes in.
#pragma once

#include <cstddef>

namespace crossentropy {

// Hands memory out in pieces, one after another, each aligned for any vector. Without memory it only counts the bytes.
class Scratch {
 public:
    explicit Scratch(void* memory) : memory_(static_cast<std::byte*>(memory)) {}

    template <class E>
    E* take(std::size_t count) {
        std::byte* const piece = memory_ == nullptr ? nullptr : memory_ + bytes_;
        bytes_ += (count * sizeof(E) + kAlignment - 1) / kAlignment * kAlignment;
        return reinterpret_cast<E*>(piece);
    }
    std::size_t bytes() const { return bytes_; }

    static constexpr std::size_t kAlignment = 64;

 private:
    std::byte* memory_;
    std::size_t bytes_ = 0;
};

}  // namespace crossentropy
