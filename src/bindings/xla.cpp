#include "xla.hpp"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "evaluate.hpp"
#include "parallel.hpp"
#include "xla_call.hpp"

namespace crossentropy::xla {
namespace {

// The weights of classes, from one a row: what no row names is not read.
void spread_over_classes(const Problem& p, const double* of_row, std::vector<double>& class_weight) {
    class_weight.assign(p.classes, 0.0);
    for (std::size_t row = 0; row < p.rows; ++row)
        if (std::uint64_t(p.indices[row]) < p.classes) class_weight[std::size_t(p.indices[row])] = of_row[row];
}

// Rows whose class index is out of range; they are given another.
std::vector<std::size_t> take_out_bad_rows(const Problem& p, std::int64_t* indices) {
    std::vector<std::size_t> bad;
    for (std::size_t row = 0; row < p.rows; ++row)
        if (indices[row] != p.options.ignore_index && std::uint64_t(indices[row]) >= p.classes) {
            indices[row] = 0;
            bad.push_back(row);
        }
    return bad;
}

void write_nan(ElementType type, void* data, std::size_t i) {
    switch (type) {
        case ElementType::float64:
            static_cast<double*>(data)[i] = std::numeric_limits<double>::quiet_NaN();
            return;
        case ElementType::float32:
            static_cast<float*>(data)[i] = std::numeric_limits<float>::quiet_NaN();
            return;
        default:
            static_cast<std::uint16_t*>(data)[i] = type == ElementType::float16 ? 0x7e00 : 0x7fc0;
    }
}

void mark(const Problem& p, std::size_t row) {
    if (p.row_values != nullptr)
        write_nan(p.type == ElementType::float64 ? p.type : ElementType::float32, p.row_values, row);
    if (p.matrix != nullptr) {
        const std::size_t first = row / p.class_stride * p.class_stride * p.classes + row % p.class_stride;
        for (std::size_t c = 0; c < p.classes; ++c) write_nan(p.type, p.matrix, first + c * p.class_stride);
    }
}

Error* loss_of_batch(const CallFrame* frame) {
    const DefaultFloatingPoint guard;  // XLA's threads flush subnormals, of weights too
    Buffer** const arguments = frame->arguments.buffers;
    Buffer** const results = frame->results.buffers;
    const Buffer &logits = *arguments[0], &targets = *arguments[1], &losses = *results[0];
    const bool by_rows = flag(frame, "by_rows"), weighted = flag(frame, "weighted"),
               marks = flag(frame, "marks_bad_rows");
    std::vector<double> class_weight = reals(*arguments[2]), sample_weight = reals(*arguments[3]);
    const std::vector<double> grad_output = reals(*arguments[4]);
    if (Error* const wrong = check_weights(frame, "class_weight", class_weight, marks)) return wrong;
    if (Error* const wrong = check_weights(frame, "sample_weight", sample_weight, marks)) return wrong;

    const std::int64_t batch_axes = logits.rank - integer(frame, "axes"), axis = batch_axes + integer(frame, "axis");
    const std::size_t batch = product(logits, 0, batch_axes);
    Problem p;
    p.classes = std::size_t(logits.dims[axis]);
    p.class_stride = product(logits, axis + 1, logits.rank);
    p.rows = product(logits, batch_axes, axis) * p.class_stride;
    p.type = element_type(logits.dtype);
    p.options.for_each([&](std::string_view name, auto& option) { read(frame, name, option); });
    const bool per_row = p.options.reduction == Reduction::none;
    const bool probabilities = targets.rank == logits.rank;
    std::vector<std::int64_t> all_indices = probabilities ? std::vector<std::int64_t>() : indices(targets);
    const std::size_t width = kLogitSize[int(p.type)], row_width = p.type == ElementType::float64 ? 8 : 4;

    std::vector<double> row_weight;
    if (by_rows) row_weight.swap(class_weight);
    for (std::size_t i = 0; i < batch; ++i) {
        const std::size_t row = i * p.rows, element = row * p.classes;
        p.logits = at<const char>(logits, element * width);
        if (probabilities) {
            p.probabilities_type = element_type(targets.dtype);
            p.probabilities = at<const char>(targets, element * kLogitSize[int(p.probabilities_type)]);
        } else {
            p.indices = all_indices.data() + row;
        }
        std::vector<std::size_t> bad_rows;
        if (by_rows) {
            if (weighted) spread_over_classes(p, row_weight.data() + row, class_weight);
        }
        if (marks && !probabilities) bad_rows = take_out_bad_rows(p, all_indices.data() + row);
        p.class_weight = class_weight.empty() ? nullptr : class_weight.data() + (by_rows ? 0 : i * p.classes);
        p.sample_weight = sample_weight.empty() ? nullptr : sample_weight.data() + row;
        if (!grad_output.empty()) {
            if (per_row)
                p.grad_output = grad_output.data() + row;
            else
                p.gradient_scale = grad_output[i];
        }
        if (per_row) p.row_values = at<char>(losses, row * row_width);
        if (frame->results.size > 1) p.matrix = at<char>(*results[1], element * width);
        const Evaluation result = evaluate(p, int(integer(frame, "num_threads")));
        if (result.bad_row != kNoRow)
            return error(frame, ErrorCode::out_of_range, bad_index_message(p, result.bad_row));
        for (const std::size_t bad : bad_rows) mark(p, bad);
        const double loss = bad_rows.empty() ? result.loss : std::numeric_limits<double>::quiet_NaN();
        if (!per_row) {
            if (p.type == ElementType::float64)
                *at<double>(losses, i) = loss;
            else
                *at<float>(losses, i) = float(loss);
        }
    }
    return nullptr;
}

Error* raise_for(const CallFrame* frame) {
    Buffer** const arguments = frame->arguments.buffers;
    const std::int64_t row = *at<std::int64_t>(*arguments[0], 0), index = *at<std::int64_t>(*arguments[1], 0);
    if (row < integer(frame, "rows")) {
        Problem p;
        p.classes = std::size_t(integer(frame, "classes"));
        read(frame, "ignore_index", p.options.ignore_index);
        return error(frame, ErrorCode::out_of_range, bad_index_message(p, std::size_t(row), index));
    }
    *at<std::int32_t>(*frame->results.buffers[0], 0) = 0;
    return nullptr;
}

}  // namespace

Error* loss(CallFrame* frame) { return handled(frame, loss_of_batch); }

Error* raise(CallFrame* frame) { return handled(frame, raise_for); }

}  // namespace crossentropy::xla
