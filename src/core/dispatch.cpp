#include "dispatch.hpp"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace crossentropy {

namespace baseline {
extern const Kernels kernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
#elif defined(__aarch64__)
namespace neon {
extern const Kernels kernels;
}
#endif

std::vector<const Kernels*> available_kernels() {
    std::vector<const Kernels*> sets{&baseline::kernels};
#if defined(__x86_64__)
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2) sets.push_back(&avx2::kernels);
    if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        sets.push_back(&avx512::kernels);
#elif defined(__aarch64__)
    sets.push_back(&neon::kernels);
#endif
    return sets;
}

static const Kernels& choose() {
    const std::vector<const Kernels*> sets = available_kernels();
    const char* wanted = std::getenv("CROSSENTROPY_ISA");
    if (wanted == nullptr || *wanted == '\0') return *sets.back();
    std::string names;
    for (const Kernels* set : sets) {
        if (wanted == std::string(set->name)) return *set;
        names += (names.empty() ? "" : ", ") + std::string(set->name);
    }
    throw std::runtime_error("CROSSENTROPY_ISA: expected one of " + names + " on this CPU, got '" + wanted + "'");
}

const Kernels& kernels() {
    static const Kernels& chosen = choose();
    return chosen;
}

}  // namespace crossentropy
