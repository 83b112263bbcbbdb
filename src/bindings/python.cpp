// The Python side of the core. Arrays come validated: contiguous, aligned, of native byte order and matching sizes.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>
#include <string>

#include "dispatch.hpp"
#include "evaluate.hpp"
#include "gil.hpp"
#include "options_in.hpp"
#include "parallel.hpp"
#include "python_binary.hpp"
#include "records.hpp"
#include "xla.hpp"

namespace nb = nanobind;
using namespace crossentropy;
using namespace crossentropy::python;

namespace crossentropy::python {
void define_divergence(nanobind::module_& m);  // divergence.cpp
void define_memory(nanobind::module_& m);      // memory.cpp
void define_parts(nanobind::module_& m);       // parts.cpp
}  // namespace crossentropy::python

namespace {

// DefaultFloatingPoint as a context of Python's.
class FloatingPoint {
 public:
    void enter() { guard_.emplace(); }
    void exit(nb::args) { guard_.reset(); }

 private:
    std::optional<DefaultFloatingPoint> guard_;
};

[[noreturn]] void raise_bad_index(const Problem& p, std::size_t row) {
    throw nb::index_error(bad_index_message(p, row).c_str());
}

constexpr const char* kOptions = "crossentropy._core.options";

void read(nb::handle value, double& option) { option = nb::cast<double>(value); }
void read(nb::handle value, std::optional<std::int64_t>& option) {
    option = nb::cast<std::optional<std::int64_t>>(value);
}
void read(nb::handle value, Reduction& option) { option = reduction_of(nb::cast<std::string>(value)); }

// The options that an object has as attributes of their names.
nb::capsule options_of(nb::handle object) {
    auto options = std::make_unique<Options>();
    options->for_each([&](const char* name, auto& option) { read(object.attr(name), option); });
    return {options.release(), kOptions, [](void* held) noexcept { delete static_cast<Options*>(held); }};
}

}  // namespace

const Options& crossentropy::python::options_in(nb::handle capsule) {
    const void* const options = PyCapsule_GetPointer(capsule.ptr(), kOptions);
    if (options == nullptr) throw nb::python_error();
    return *static_cast<const Options*>(options);
}

namespace {

double loss(nb::handle call, double gradient_scale, nb::handle grad_output, nb::handle losses, nb::handle dlogits,
            nb::handle diagonal, nb::handle entropy_grad_output, nb::handle entropies, nb::handle log_probabilities) {
    const Record record(nb::borrow(call));
    Problem p;
    p.options = options_in(Record(record[names().options])[names().core]);
    const HeldLogits z(Record(record[names().logits]), p);
    const HeldTargets t(Record(record[names().targets]), p);
    const HeldWeights w(record[names().class_weight], record[names().sample_weight], p);
    const std::size_t row_size = kRowSize[int(p.type)];
    const Buffer g(grad_output, p.rows * sizeof(double)), dentropy(entropy_grad_output, p.rows * sizeof(double)),
        values(losses, p.rows * row_size, PyBUF_WRITABLE), entropy(entropies, p.rows * row_size, PyBUF_WRITABLE),
        log_p(log_probabilities, p.rows * p.k * row_size, PyBUF_WRITABLE), matrix(dlogits, z.bytes(), PyBUF_WRITABLE),
        second(diagonal, z.bytes(), PyBUF_WRITABLE);
    p.gradient_scale = gradient_scale;
    p.grad_output = g.data<double>();
    p.entropy_grad_output = dentropy.data<double>();
    p.row_values = values.data();
    p.entropies = entropy.data();
    p.log_probabilities = log_p.data();
    p.matrix = matrix.data();
    p.diagonal = second.data();
    const int num_threads = int(record.size(names().num_threads));
    Evaluation result;
    {
        const ReleasedGil released;
        result = evaluate(p, num_threads);
    }
    if (result.bad_row != kNoRow) raise_bad_index(p, result.bad_row);
    return result.loss;
}

double total_weight(nb::handle options, nb::handle logits, nb::handle targets, nb::handle class_weight,
                    nb::handle sample_weight) {
    Problem p;
    p.options = options_in(options);
    const Record shape(nb::borrow(logits));
    p.rows = shape.size(names().rows);
    p.classes = shape.size(names().classes);
    const HeldTargets t(Record(nb::borrow(targets)), p);
    const HeldWeights w(class_weight, sample_weight, p);
    const Evaluation result = check_targets(p);
    if (result.bad_row != kNoRow) raise_bad_index(p, result.bad_row);
    return result.total_weight;
}

void softmax(nb::handle logits, int output, nb::handle logsumexp, nb::handle out, int num_threads) {
    Problem p;
    const HeldLogits z(Record(nb::borrow(logits)), p);
    const Buffer values(logsumexp, p.rows * kRowSize[int(p.type)], PyBUF_WRITABLE),
        matrix(out, z.bytes(), PyBUF_WRITABLE);
    p.output = Output(output);
    p.row_values = values.data();
    p.matrix = matrix.data();
    const ReleasedGil released;
    evaluate(p, num_threads);
}

// The bits of a bfloat16 array of another library, without a copy: NumPy alone cannot take it over DLPack.
using Dlpack = nb::ndarray<nb::ro, nb::device::cpu>;
nb::ndarray<nb::numpy, const std::uint16_t> bfloat16_bits(const Dlpack& array) {
    const nb::dlpack::dtype type = array.dtype();
    if (type.code != std::uint8_t(nb::dlpack::dtype_code::Bfloat) || type.bits != 16 || type.lanes != 1)
        throw nb::type_error("its __dlpack__ gives another dtype");
    std::vector<std::size_t> shape;
    std::vector<std::int64_t> strides;
    for (std::size_t i = 0; i < array.ndim(); ++i) {
        shape.push_back(array.shape(i));
        strides.push_back(array.stride(i));
    }
    // The memory is its capsule's, whatever gave the capsule.
    const nb::capsule owner(new Dlpack(array), [](void* held) noexcept { delete static_cast<Dlpack*>(held); });
    return {array.data(), array.ndim(), shape.data(), owner, strides.data()};
}

std::vector<std::string> option_names() {
    std::vector<std::string> all;
    Options().for_each([&](const char* name, const auto&) { all.emplace_back(name); });
    return all;
}

std::vector<std::string> available() {
    std::vector<std::string> names;
    for (const Kernels* set : available_kernels()) names.emplace_back(set->name);
    return names;
}

}  // namespace

NB_MODULE(_core, m) {
    m.doc() = "The compiled core of crossentropy: use the package's own functions, which validate.";
    m.attr("version") = CROSSENTROPY_VERSION;
    m.attr("instruction_set") = kernels().name;
    m.attr("available_instruction_sets") = available();
    m.attr("option_names") = option_names();
    m.def("options", &options_of, nb::arg("options"),
          "The attributes of LossOptions as the other functions take them.");
    m.def(
        "loss", &loss, nb::arg("call"), nb::kw_only(), nb::arg("gradient_scale") = 1.0,
        nb::arg("grad_output").none() = nb::none(), nb::arg("losses").none() = nb::none(),
        nb::arg("dlogits").none() = nb::none(), nb::arg("diagonal").none() = nb::none(),
        nb::arg("entropy_grad_output").none() = nb::none(), nb::arg("entropies").none() = nb::none(),
        nb::arg("log_probabilities").none() = nb::none(),
        "The reduced loss, for reduction 'none' the sum. Writes each row's loss, the gradient and the diagonal of the "
        "Hessian, each row's entropy and the log-probabilities of its k classes, where given.");
    m.def(
        "bfloat16_bits",
        [](nb::handle array) {
            Dlpack found;
            if (!nb::try_cast(array, found)) throw nb::type_error("its __dlpack__ gives no array on the CPU");
            return bfloat16_bits(found);
        },
        nb::arg("array"), "The bits of a CPU array of bfloat16 given over DLPack, not copied.");
    m.def("total_weight", &total_weight, nb::arg("options"), nb::kw_only(), nb::arg("logits"), nb::arg("targets"),
          nb::arg("class_weight").none(), nb::arg("sample_weight").none(),
          "What the mean divides by. A bad class index raises IndexError.");
    m.def("softmax", &softmax, nb::kw_only(), nb::arg("logits"), nb::arg("output"),
          nb::arg("logsumexp").none() = nb::none(), nb::arg("out").none() = nb::none(), nb::arg("num_threads"),
          "Writes log-sum-exp, and softmax (output 1) or log-softmax (output 2), where given.");
    define_binary(m);
    define_divergence(m);
    define_memory(m);
    define_parts(m);
    nb::class_<FloatingPoint>(m, "DefaultFloatingPoint",
                              "Within it this thread rounds to nearest and keeps subnormals.")
        .def(nb::init<>())
        .def("__enter__", &FloatingPoint::enter)
        .def("__exit__", &FloatingPoint::exit);
    m.def(
        "advise_huge_pages",
        [](std::uintptr_t address, std::size_t bytes) { advise_huge_pages(reinterpret_cast<void*>(address), bytes); },
        nb::arg("address"), nb::arg("bytes"), "Makes fresh memory cheaper to fill, where there is much of it.");
    // Capsules as jax.ffi.register_ffi_target takes them.
    const auto capsule = [](xla::Error* (*call)(xla::CallFrame*)) {
        return nb::capsule(reinterpret_cast<void*>(call), "xla._CUSTOM_CALL_TARGET");
    };
    m.attr("xla_loss") = capsule(&xla::loss);
    m.attr("xla_raise") = capsule(&xla::raise);
    m.attr("xla_part") = capsule(&xla::part);
    m.attr("xla_whole") = capsule(&xla::whole);
    m.attr("xla_gradient_of_part") = capsule(&xla::gradient_of_part);
}
