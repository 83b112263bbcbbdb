// The binary loss as Python calls it. Arrays come validated: contiguous, aligned, of native byte order.
#include "binary.hpp"

#include <nanobind/stl/string.h>

#include "dispatch.hpp"
#include "gil.hpp"
#include "python_binary.hpp"
#include "records.hpp"

namespace nb = nanobind;

namespace crossentropy::python {

namespace {

// The names of the fields of crossentropy._binary.BinaryCall that no other record has.
struct BinaryNames {
    const Field size{"size"};
    const Field targets_type{"targets_type"};
    const Field pos_weight{"pos_weight"};
    const Field label_smoothing{"label_smoothing"};
    const Field focal_gamma{"focal_gamma"};
    const Field reduction{"reduction"};
    const Field repeat{"repeat"};
    const Field period{"period"};
};

const BinaryNames& binary_names() {
    static const BinaryNames all;
    return all;
}

// Holds the memory of weights while a call runs. Their record is None where there are none.
class HeldElementWeights {
 public:
    HeldElementWeights(const nb::object& weights, ElementWeights& into)
        : data_(weights.is_none() ? nb::none() : Record(weights)[names().data], read_bytes(weights, into)) {
        into.data = data_.data();
    }

 private:
    static std::size_t read_bytes(const nb::object& weights, ElementWeights& into) {
        if (weights.is_none()) return 0;
        const Record record(weights);
        into.type = record.type(names().type, 2);  // float32 or float64
        into.repeat = record.size(binary_names().repeat);
        into.period = record.size(binary_names().period);
        if (into.repeat == 0 || into.period == 0) throw nb::value_error("expected weights of a size of at least 1");
        return into.period * kElementSize[int(into.type)];
    }

    Buffer data_;
};

double binary(nb::handle call, double gradient_scale, nb::handle grad_output, nb::handle losses, nb::handle dlogits) {
    const Record record(nb::borrow(call));
    BinaryProblem p;
    p.count = record.size(binary_names().size);
    p.type = record.type(names().type, kLogitTypes);
    p.targets_type = record.type(binary_names().targets_type, std::size(kElementSize));
    p.label_smoothing = nb::cast<double>(record[binary_names().label_smoothing]);
    p.focal_gamma = nb::cast<double>(record[binary_names().focal_gamma]);
    p.reduction = reduction_of(nb::cast<std::string>(record[binary_names().reduction]));
    p.gradient_scale = gradient_scale;
    const std::size_t bytes = p.count * kLogitSize[int(p.type)];
    const Buffer z(record[names().logits], bytes),
        y(record[names().targets], p.count * kElementSize[int(p.targets_type)]),
        g(grad_output, p.count * sizeof(double)), values(losses, p.count * kRowSize[int(p.type)], PyBUF_WRITABLE),
        gradient(dlogits, bytes, PyBUF_WRITABLE);
    const HeldElementWeights w(record[binary_names().pos_weight], p.pos_weight),
        s(record[names().sample_weight], p.sample_weight);
    p.logits = z.data();
    p.targets = y.data();
    p.grad_output = g.data<double>();
    p.losses = values.data();
    p.dlogits = gradient.data();
    const int num_threads = int(record.size(names().num_threads));
    const ReleasedGil released;
    return evaluate(p, num_threads);
}

}  // namespace

void define_binary(nb::module_& m) {
    m.def("binary", &binary, nb::arg("call"), nb::kw_only(), nb::arg("gradient_scale") = 1.0,
          nb::arg("grad_output").none() = nb::none(), nb::arg("losses").none() = nb::none(),
          nb::arg("dlogits").none() = nb::none(),
          "The reduced binary loss, for reduction 'none' the sum. Writes each element's loss and the gradient where "
          "given.");
}

}  // namespace crossentropy::python
