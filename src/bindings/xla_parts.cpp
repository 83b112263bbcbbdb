#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <vector>

#include "evaluate.hpp"
#include "parallel.hpp"
#include "xla.hpp"
#include "xla_call.hpp"

namespace crossentropy::xla {
namespace {

// The rows of an array without what is beyond their first `count` elements.
std::vector<char> first_of_rows(const Buffer& buffer, std::size_t rows, std::size_t width, std::size_t count) {
    const std::size_t row_bytes = product(buffer, buffer.rank - 1, buffer.rank) * width, bytes = count * width;
    std::vector<char> some(rows * bytes + 1);
    for (std::size_t row = 0; row < rows; ++row)
        std::memcpy(some.data() + row * bytes, at<const char>(buffer, row * row_bytes), bytes);
    return some;
}

// The problem of a shard; the arrays that it points to.
struct Part {
    Problem p;
    std::size_t classes;  // of the shard with its padding
    std::vector<char> logits, probabilities;
    std::vector<std::int64_t> all_indices;
    std::vector<double> class_weight, sample_weight;
    int num_threads;

    explicit Part(const CallFrame* frame) {
        Buffer** const arguments = frame->arguments.buffers;
        const Buffer &z = *arguments[0], &t = *arguments[1];
        p.options.for_each([&](std::string_view name, auto& option) { read(frame, name, option); });
        num_threads = int(integer(frame, "num_threads"));
        p.split.classes = std::size_t(integer(frame, "classes"));
        p.split.first_class = std::size_t(*at<std::int32_t>(*arguments[4], 0));
        p.type = element_type(z.dtype);
        p.rows = product(z, 0, z.rank - 1);
        classes = std::size_t(z.dims[z.rank - 1]);
        p.classes = std::min(classes, p.split.classes - std::min(p.split.classes, p.split.first_class));

        class_weight = reals(*arguments[2]);
        sample_weight = reals(*arguments[3]);
        check_weights(frame, "class_weight", class_weight, true);
        p.class_weight = class_weight.empty() ? nullptr : class_weight.data();
        p.sample_weight = sample_weight.data();
        p.logits = z.data;
        if (padded()) {
            logits = first_of_rows(z, p.rows, kLogitSize[int(p.type)], p.classes);
            p.logits = logits.data();
        }
        if (t.rank < z.rank) {
            all_indices = indices(t);
            p.indices = all_indices.data();
            return;
        }
        p.probabilities_type = element_type(t.dtype);
        p.probabilities = t.data;
        if (padded()) {
            probabilities = first_of_rows(t, p.rows, kLogitSize[int(p.probabilities_type)], p.classes);
            p.probabilities = probabilities.data();
        }
    }

    bool padded() const { return p.classes < classes; }
    Error* run(const CallFrame* frame) const {
        const Evaluation result = evaluate(p, num_threads);
        if (result.bad_row == kNoRow) return nullptr;
        return error(frame, ErrorCode::out_of_range, bad_index_message(p, result.bad_row));
    }
};

// Numbers of each row that XLA holds as words; all fields of a row, those that were not sent 0.
std::vector<double> numbers_of(const Buffer& words, std::size_t rows, std::size_t fields) {
    std::vector<double> numbers(rows * kPartFields);
    for (std::size_t row = 0; row < rows; ++row)
        std::memcpy(numbers.data() + row * kPartFields, at<const char>(words, row * fields * sizeof(double)),
                    fields * sizeof(double));
    return numbers;
}

Error* part_of_shard(const CallFrame* frame) {
    const DefaultFloatingPoint guard;
    Part part(frame);
    std::vector<double> numbers(part.p.rows * kPartFields);
    part.p.split.parts = numbers.data();
    if (Error* const wrong = part.run(frame)) return wrong;
    const std::size_t fields = std::size_t(integer(frame, "fields"));
    for (std::size_t row = 0; row < part.p.rows; ++row)
        std::memcpy(at<char>(*frame->results.buffers[0], row * fields * sizeof(double)),
                    numbers.data() + row * kPartFields, fields * sizeof(double));
    return nullptr;
}

Error* whole_of_shards(const CallFrame* frame) {
    const DefaultFloatingPoint guard;
    Buffer** const results = frame->results.buffers;
    const Buffer &parts = *frame->arguments.buffers[0], &targets = *frame->arguments.buffers[1];
    const std::size_t shards = std::size_t(parts.dims[parts.rank - 2]), fields = std::size_t(integer(frame, "fields"));
    Problem p;
    p.options.for_each([&](std::string_view name, auto& option) { read(frame, name, option); });
    p.type = ElementType(integer(frame, "element_type"));
    p.rows = product(parts, 0, parts.rank - 2);
    p.split.classes = std::size_t(integer(frame, "classes"));
    std::vector<std::int64_t> all_indices;
    if (flag(frame, "probabilities")) {
        p.probabilities = parts.data;  // is not read: no class is here
    } else {
        all_indices = indices(targets);
        p.indices = all_indices.data();
    }
    const std::vector<double> sample_weight = reals(*frame->arguments.buffers[2]);
    p.sample_weight = sample_weight.data();

    // Those of a row lie together; the core takes all rows of a shard, then of the next.
    const std::vector<double> by_row = numbers_of(parts, p.rows * shards, fields);
    std::vector<double> by_shard(by_row.size()), joined(p.rows * kPartFields);
    for (std::size_t row = 0; row < p.rows; ++row)
        for (std::size_t shard = 0; shard < shards; ++shard)
            std::copy_n(by_row.data() + (row * shards + shard) * kPartFields, std::size_t(kPartFields),
                        by_shard.data() + (shard * p.rows + row) * kPartFields);
    join_parts(p, by_shard.data(), shards, joined.data());

    p.split.whole = joined.data();
    p.row_values = results[0]->data;
    const Evaluation result = evaluate(p, 1);
    if (result.bad_row != kNoRow) return error(frame, ErrorCode::out_of_range, bad_index_message(p, result.bad_row));
    for (std::size_t row = 0; row < p.rows; ++row) {
        const double weight = joined[row * kPartFields + kWeightOfTarget];
        if (p.type == ElementType::float64)
            *at<double>(*results[1], row) = weight;
        else
            *at<float>(*results[1], row) = float(weight);
    }
    std::memcpy(results[2]->data, joined.data(), joined.size() * sizeof(double));
    return nullptr;
}

Error* gradient_of_shard(const CallFrame* frame) {
    const DefaultFloatingPoint guard;
    const Buffer& dlogits = *frame->results.buffers[0];
    Part part(frame);
    Problem& p = part.p;
    const std::vector<double> whole = numbers_of(*frame->arguments.buffers[5], p.rows, kPartFields),
                              grad_output = reals(*frame->arguments.buffers[6]);
    p.split.whole = whole.data();
    p.grad_output = grad_output.data();
    p.matrix = dlogits.data;
    const std::size_t width = kLogitSize[int(p.type)];
    std::vector<char> compact;
    if (part.padded()) {
        compact.resize(p.rows * p.classes * width + 1);
        p.matrix = compact.data();
    }
    if (Error* const wrong = part.run(frame)) return wrong;
    if (part.padded()) {
        const std::size_t bytes = p.classes * width, row_bytes = part.classes * width;
        for (std::size_t row = 0; row < p.rows; ++row) {
            char* const to = at<char>(dlogits, row * row_bytes);
            std::memcpy(to, compact.data() + row * bytes, bytes);
            std::memset(to + bytes, 0, row_bytes - bytes);
        }
    }
    return nullptr;
}

}  // namespace

Error* part(CallFrame* frame) { return handled(frame, part_of_shard); }

Error* whole(CallFrame* frame) { return handled(frame, whole_of_shards); }

Error* gradient_of_part(CallFrame* frame) { return handled(frame, gradient_of_shard); }

}  // namespace crossentropy::xla
