// The Python side of the core. Arrays come validated: contiguous, aligned, of native byte order and matching sizes.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <optional>
#include <thread>

#include "dispatch.hpp"
#include "evaluate.hpp"
#include "parallel.hpp"
#include "xla.hpp"

namespace nb = nanobind;
using namespace crossentropy;

namespace {

// The memory of an array, or of an address (of a torch tensor, say), or none. A Py_buffer of the plainest kind costs a
// third of an ndarray conversion.
class Buffer {
 public:
    // Of at least so many bytes: an array may have been resized since Python looked at its shape.
    Buffer(nb::handle array, std::size_t bytes, int flags = PyBUF_SIMPLE) {
        if (array.is_none()) return;
        if (PyLong_Check(array.ptr())) {
            view_.buf = PyLong_AsVoidPtr(array.ptr());
            if (view_.buf == nullptr && PyErr_Occurred()) throw nb::python_error();
            return;
        }
        if (PyObject_GetBuffer(array.ptr(), &view_, flags) != 0) throw nb::python_error();
        if (std::size_t(view_.len) < bytes) {
            PyBuffer_Release(&view_);
            throw nb::value_error("expected arrays that keep their size during the call, got one that was resized");
        }
    }
    ~Buffer() {
        if (view_.obj != nullptr) PyBuffer_Release(&view_);
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    template <class T = void>
    T* data() const {
        return static_cast<T*>(view_.buf);
    }

 private:
    Py_buffer view_{};
};

// Lets other Python threads run while it lives.
class ReleasedGil {
 public:
    ReleasedGil() : state_(PyEval_SaveThread()) {}
    ~ReleasedGil() {
        // Where the interpreter has ended meanwhile, this unwinds the stack of a daemon thread, which no C++ frame
        // below has been written for: the thread waits here for the end of the process.
        try {
            PyEval_RestoreThread(state_);
        } catch (...) {
            for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
        }
    }
    ReleasedGil(const ReleasedGil&) = delete;
    ReleasedGil& operator=(const ReleasedGil&) = delete;

 private:
    PyThreadState* const state_;
};

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

double loss(nb::handle logits, std::size_t rows, std::size_t classes, std::size_t inner, int type, nb::handle indices,
            nb::handle probabilities, int probabilities_type, nb::handle sparse_indices, std::size_t k,
            nb::handle class_weight, nb::handle sample_weight, std::optional<std::int64_t> ignore_index,
            double label_smoothing, double z_loss, double softcap, double temperature, int reduction,
            double gradient_scale, nb::handle grad_output, nb::handle losses, nb::handle dlogits, nb::handle diagonal,
            int num_threads) {
    const std::size_t bytes = rows * classes * kLogitSize[type], slots = rows * k;
    const bool dense = sparse_indices.is_none();
    const Buffer z(logits, bytes), t(indices, rows * sizeof(std::int64_t)),
        q(probabilities, dense ? rows * classes * kElementSize[probabilities_type] : slots * sizeof(double)),
        sparse(sparse_indices, slots * sizeof(std::int64_t)), w(class_weight, classes * sizeof(double)),
        s(sample_weight, rows * sizeof(double)), g(grad_output, rows * sizeof(double));
    const Buffer values(losses, rows * kRowSize[type], PyBUF_WRITABLE), matrix(dlogits, bytes, PyBUF_WRITABLE),
        second(diagonal, bytes, PyBUF_WRITABLE);
    Problem p;
    p.rows = rows;
    p.classes = classes;
    p.class_stride = inner;
    p.type = ElementType(type);
    p.logits = z.data();
    p.indices = t.data<std::int64_t>();
    p.probabilities = q.data();
    p.probabilities_type = ElementType(probabilities_type);
    p.sparse_indices = sparse.data<std::int64_t>();
    p.k = k;
    p.options.ignore_index = ignore_index;
    p.class_weight = w.data<double>();
    p.sample_weight = s.data<double>();
    p.options.label_smoothing = label_smoothing;
    p.options.z_loss = z_loss;
    p.options.softcap = softcap;
    p.options.temperature = temperature;
    p.options.reduction = Reduction(reduction);
    p.gradient_scale = gradient_scale;
    p.grad_output = g.data<double>();
    p.row_values = values.data();
    p.matrix = matrix.data();
    p.diagonal = second.data();
    Evaluation result;
    {
        const ReleasedGil released;
        result = evaluate(p, num_threads);
    }
    if (result.bad_row != kNoRow) raise_bad_index(p, result.bad_row);
    return result.loss;
}

double total_weight(std::size_t rows, std::size_t classes, nb::handle indices, std::optional<std::int64_t> ignore_index,
                    nb::handle class_weight, nb::handle sample_weight) {
    const Buffer t(indices, rows * sizeof(std::int64_t)), w(class_weight, classes * sizeof(double)),
        s(sample_weight, rows * sizeof(double));
    Problem p;
    p.rows = rows;
    p.classes = classes;
    p.indices = t.data<std::int64_t>();
    p.options.ignore_index = ignore_index;
    p.class_weight = w.data<double>();
    p.sample_weight = s.data<double>();
    const Evaluation result = check_targets(p);
    if (result.bad_row != kNoRow) raise_bad_index(p, result.bad_row);
    return result.total_weight;
}

void softmax(nb::handle logits, std::size_t rows, std::size_t classes, std::size_t inner, int type, int output,
             nb::handle logsumexp, nb::handle out, int num_threads) {
    const std::size_t bytes = rows * classes * kLogitSize[type];
    const Buffer z(logits, bytes), values(logsumexp, rows * kRowSize[type], PyBUF_WRITABLE),
        matrix(out, bytes, PyBUF_WRITABLE);
    Problem p;
    p.rows = rows;
    p.classes = classes;
    p.class_stride = inner;
    p.type = ElementType(type);
    p.logits = z.data();
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
    m.def("loss", &loss, nb::arg("logits"), nb::arg("rows"), nb::arg("classes"), nb::arg("inner"), nb::arg("type"),
          nb::arg("indices").none(), nb::arg("probabilities").none(), nb::arg("probabilities_type"),
          nb::arg("sparse_indices").none(), nb::arg("k"), nb::arg("class_weight").none(),
          nb::arg("sample_weight").none(), nb::arg("ignore_index").none(), nb::arg("label_smoothing"),
          nb::arg("z_loss"), nb::arg("softcap"), nb::arg("temperature"), nb::arg("reduction"),
          nb::arg("gradient_scale"), nb::arg("grad_output").none(), nb::arg("losses").none(), nb::arg("dlogits").none(),
          nb::arg("diagonal").none(), nb::arg("num_threads"),
          "The reduced loss of rows x classes logits, the classes `inner` elements apart; writes losses, dlogits and "
          "the diagonal of the Hessian where given.");
    m.def(
        "bfloat16_bits",
        [](nb::handle array) {
            Dlpack found;
            if (!nb::try_cast(array, found)) throw nb::type_error("its __dlpack__ gives no array on the CPU");
            return bfloat16_bits(found);
        },
        nb::arg("array"), "The bits of a CPU array of bfloat16 given over DLPack, not copied.");
    m.def("total_weight", &total_weight, nb::arg("rows"), nb::arg("classes"), nb::arg("indices").none(),
          nb::arg("ignore_index").none(), nb::arg("class_weight").none(), nb::arg("sample_weight").none(),
          "What the mean divides by.");
    m.def("softmax", &softmax, nb::arg("logits"), nb::arg("rows"), nb::arg("classes"), nb::arg("inner"),
          nb::arg("type"), nb::arg("output"), nb::arg("logsumexp").none(), nb::arg("out").none(),
          nb::arg("num_threads"), "Writes log-sum-exp, and softmax (output 1) or log-softmax (output 2), where given.");
    nb::class_<FloatingPoint>(m, "DefaultFloatingPoint",
                              "Within it this thread rounds to nearest and keeps subnormals.")
        .def(nb::init<>())
        .def("__enter__", &FloatingPoint::enter)
        .def("__exit__", &FloatingPoint::exit);
    m.def(
        "advise_huge_pages",
        [](std::uintptr_t address, std::size_t bytes) { advise_huge_pages(reinterpret_cast<void*>(address), bytes); },
        nb::arg("address"), nb::arg("bytes"), "Makes fresh memory cheaper to fill, where there is much of it.");
    // A capsule as jax.ffi.register_ffi_target takes it.
    m.attr("xla_loss") = nb::capsule(reinterpret_cast<void*>(&xla::loss), "xla._CUSTOM_CALL_TARGET");
}
