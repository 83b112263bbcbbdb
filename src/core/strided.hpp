// Classes strided: the class axis is not the last. Positions that follow each other in memory are rows side by side.
//
// A tile of a few hundred positions is copied into compact scratch, class by class: streams that lie a power of two
// apart would evict each other from the cache.

template <class S, class T, bool transformed>
class StridedKernel : TileKernel<S, T, std::conditional_t<transformed, T, S>, S, transformed> {
    using Base = TileKernel<S, T, std::conditional_t<transformed, T, S>, S, transformed>;
    using Base::p, Base::classes, Base::logits, Base::matrix, Base::row_values, Base::kTile;
    using typename Base::Tile, typename Base::V;

    static constexpr std::size_t kTileBytes = 1 << 15, kMostPositions = 16 * kTile;

    std::size_t positions;  // of a copy: a multiple of kTile
    S* copies[2];           // classes x positions each
    T (*transformed_logits)[kTile];  // of one tile
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
        const std::size_t bytes_of_u = transformed ? p.classes * kTile * sizeof(T) : 0;
        auto* const start = static_cast<std::byte*>(
            scratch.reserve(2 * bytes + bytes_of_u + Base::bytes_of_tile(p.classes) + 64));
        auto* const aligned = start + (64 - reinterpret_cast<std::uintptr_t>(start) % 64) % 64;
        copies[0] = reinterpret_cast<S*>(aligned);
        copies[1] = reinterpret_cast<S*>(aligned + bytes);
        transformed_logits = reinterpret_cast<T(*)[kTile]>(aligned + 2 * bytes);
        memory = aligned + 2 * bytes + bytes_of_u;
    }

    void run(std::size_t begin, std::size_t end, Outcome& outcome) const {
        Tile tile;
        Base::prepare(tile, memory);
        Sums<kSums<T>, true> total;
        S *now = copies[0], *other = copies[1];
        const auto count_from = [&](std::size_t first) { return first < end ? std::min(positions, end - first) : 0; };
        copy_in(begin, count_from(begin), 0, classes, now);
        for (std::size_t first = begin; first < end; first += positions) {
            const std::size_t count = count_from(first), next = first + positions;
            const int steps = int((count + kTile - 1) / kTile), share = (classes + steps - 1) / steps;
            for (int step = 0; step < steps; ++step) {
                // While this copy is computed the other one is written out and filled anew, some classes at each step.
                const int some = std::min(step * share, classes), more = std::min(some + share, classes);
                if (first > begin) copy_out(first - positions, positions, some, more, other);
                copy_in(next, count_from(next), some, more, other);
                const std::size_t at = std::size_t(step) * kTile;
                const int rows = int(std::min<std::size_t>(kTile, count - at));
                compute_tile(tile, first + at, rows, now + at, total, outcome);
            }
            std::swap(now, other);
        }
        const std::size_t last = begin + (end - begin - 1) / positions * positions;
        copy_out(last, count_from(last), 0, classes, other);
        outcome.add(total.fold());
    }

 private:
    // The tile of `rows` positions from `first` on; `at` is where they begin in a copy.
    void compute_tile(Tile& tile, std::size_t first, int rows, S* at, Sums<kSums<T>, true>& total,
                      Outcome& outcome) const {
        if (rows < kTile)
            for (int c = 0; c < classes; ++c) std::fill(row(at, c) + rows, row(at, c) + kTile, S(0.0));
        tile.out = at;
        tile.out_stride = positions;
        if constexpr (transformed) {
            Base::transform(tile, at, positions, transformed_logits);
            tile.u = *transformed_logits;
            tile.u_stride = kTile;
        } else {
            tile.u = at;
            tile.u_stride = positions;
        }
        Base::read_targets(tile, first, rows, outcome);
        if (p.dense()) read_coefficients(tile, first, rows);
        Base::compute(tile, total);
        if (row_values != nullptr) std::copy(tile.value, tile.value + rows, row_values + first);
        if (matrix != nullptr && Base::has_single_targets())
            for (int i = 0; i < rows; ++i) row(at, int(Base::class_of(tile, i)))[i] = tile.at_target[i];
    }

    S* row(S* copy, int c) const { return copy + std::size_t(c) * positions; }

    // Classes [begin, end) of `count` positions, into a copy and back.
    void copy_in(std::size_t first, std::size_t count, int begin, int end, S* copy) const {
        for_segments(first, count, [&](const Segment& s) {
            for (int c = begin; c < end; ++c)
                std::memcpy(row(copy, c) + s.at, logits + s.offset + std::size_t(c) * p.inner, s.length * sizeof(S));
        });
    }
    void copy_out(std::size_t first, std::size_t count, int begin, int end, S* copy) const {
        if (matrix == nullptr) return;
        for_segments(first, count, [&](const Segment& s) {
            for (int c = begin; c < end; ++c)
                std::memcpy(matrix + s.offset + std::size_t(c) * p.inner, row(copy, c) + s.at, s.length * sizeof(S));
        });
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
