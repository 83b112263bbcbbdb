// Classes strided: the class axis is not the last. Positions that follow each other in memory are rows side by side.
//
// A tile of a few hundred positions is copied into compact scratch, class by class: streams that lie a power of two
// apart would evict each other from the cache.

template <class S, class T, bool transformed>
class StridedKernel : TileKernel<S, T, transformed> {
    using Base = TileKernel<S, T, transformed>;
    using Base::p, Base::classes, Base::logits, Base::matrix, Base::row_values, Base::kTile;
    using typename Base::Tile, typename Base::V;

    static constexpr std::size_t kTileBytes = 1 << 15, kMostPositions = 16 * kTile;

    std::size_t positions;  // of a copy: a multiple of kTile
    S* copy;                // classes x positions
    void* memory;

    // Positions of one tile, `length` of them in one piece of memory.
    struct Segment {
        std::size_t offset, at, length;
    };

 public:
    StridedKernel(const Problem& problem, Scratch& scratch) : Base(problem) {
        const std::size_t fitting = kTileBytes / (p.classes * sizeof(S)) / kTile * kTile;
        positions = std::clamp<std::size_t>(fitting, kTile, kMostPositions);
        const std::size_t bytes = (p.classes * positions * sizeof(S) + 63) / 64 * 64;
        auto* const start = static_cast<std::byte*>(scratch.reserve(bytes + Base::bytes_of_tile(p.classes) + 64));
        copy = reinterpret_cast<S*>(start + (64 - reinterpret_cast<std::uintptr_t>(start) % 64) % 64);
        memory = reinterpret_cast<std::byte*>(copy) + bytes;
    }

    void run(std::size_t begin, std::size_t end, Outcome& outcome) const {
        Tile tile;
        Base::prepare(tile, memory);
        Sums<kSums<T>, true> total;
        for (std::size_t first = begin; first < end; first += positions) {
            const std::size_t count = std::min(positions, end - first);
            for_segments(first, count, [&](const Segment& s) {
                for (int c = 0; c < classes; ++c)
                    std::memcpy(copied(c) + s.at, logits + s.offset + std::size_t(c) * p.inner, s.length * sizeof(S));
            });
            for (std::size_t at = 0; at < count; at += kTile) {
                const int rows = int(std::min<std::size_t>(kTile, count - at));
                prefetch(first + at, std::min(first + at + positions, end - 1));
                if (rows < kTile)
                    for (int c = 0; c < classes; ++c) std::fill(copied(c) + at + rows, copied(c) + at + kTile, S(0.0));
                for (int c = 0; c < classes; ++c)
#pragma GCC unroll 16
                    for (int i = 0; i < kTile; i += kWidth<T>) store(tile.u[c] + i, load_as<T>(copied(c) + at + i));
                if constexpr (transformed) Base::transform(tile);
                Base::read_targets(tile, first + at, rows, outcome);
                if (p.dense()) read_coefficients(tile, first + at, rows);
                Base::compute(tile, total);
                if (row_values != nullptr) std::copy(tile.value, tile.value + rows, row_values + first + at);
                if (matrix == nullptr) continue;
                for (int c = 0; c < classes; ++c)
#pragma GCC unroll 16
                    for (int i = 0; i < kTile; i += kWidth<T>) store_as(copied(c) + at + i, load<V>(tile.e[c] + i));
            }
            if (matrix == nullptr) continue;
            for_segments(first, count, [&](const Segment& s) {
                for (int c = 0; c < classes; ++c)
                    std::memcpy(matrix + s.offset + std::size_t(c) * p.inner, copied(c) + s.at, s.length * sizeof(S));
            });
        }
        outcome.add(total.fold());
    }

 private:
    S* copied(int c) const { return copy + std::size_t(c) * positions; }

    // What will be written soon, and what will be read in the next tile.
    CE_INLINE void prefetch(std::size_t position, std::size_t next) const {
        for (int c = 0; c < classes; ++c)
            for (std::size_t i = 0; i < kTile; i += 64 / sizeof(S)) {
                if (matrix != nullptr) __builtin_prefetch(matrix + offset_of(position, c) + i, 1);
                __builtin_prefetch(logits + offset_of(next, c) + i);
            }
    }
    CE_INLINE std::size_t offset_of(std::size_t position, int c) const {
        return (position / p.inner * p.classes + std::size_t(c)) * p.inner + position % p.inner;
    }

    template <class Visit>
    CE_INLINE void for_segments(std::size_t first, std::size_t count, const Visit& visit) const {
        for (std::size_t at = 0; at < count;) {
            const std::size_t outer = (first + at) / p.inner, position = (first + at) % p.inner;
            const std::size_t length = std::min(p.inner - position, count - at);
            visit(Segment{outer * p.classes * p.inner + position, at, length});
            at += length;
        }
    }

    // b_c = w_c [(1 - epsilon) q_c + epsilon / C], class by class.
    void read_coefficients(Tile& tile, std::size_t first, int rows) const {
        const T given = T(1.0 - p.label_smoothing), uniform = T(p.label_smoothing / double(p.classes));
        if (p.sparse_indices != nullptr) {
            std::fill(tile.b[0], tile.b[classes], T(0));
            for (int i = 0; i < rows; ++i)
                for_sparse(p, first + std::size_t(i), double(given), [&](std::size_t c, double q) {
                    if (c < p.classes) tile.b[c][i] += T(q);
                });
        }
        for (int c = 0; c < classes; ++c) {
            T* const b = tile.b[c];
            if (p.sparse_indices == nullptr) std::fill(b, b + kTile, T(0));
            if (p.indices != nullptr)
                for (int i = 0; i < rows; ++i) b[i] = tile.target[i] == c ? given : T(0);
            else if (p.sparse_indices == nullptr)
                for_segments(first, std::size_t(rows), [&](const Segment& s) {
                    const std::size_t offset = s.offset + std::size_t(c) * p.inner;
                    probabilities_of_type(p, offset, int(s.length), double(given), b + s.at);
                });
            const double weight = p.class_weight != nullptr ? p.class_weight[c] : 1.0;
            for (int i = 0; i < kTile; ++i) {
                b[i] += uniform;
                if (p.class_weight != nullptr) b[i] = T(double(b[i]) * weight);
                if (tile.target[i] == Base::kSkipped) b[i] = T(0);
            }
        }
    }
};
