// Large results of NumPy and PyTorch in memory that is kept.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <cstdlib>
#include <vector>

#include "kept_memory.hpp"
#include "problem.hpp"

namespace nb = nanobind;

namespace crossentropy::python {

namespace {

// NumPy's PyDataMem_Handler (NEP 49), and where its C API has PyDataMem_SetHandler (numpy/__multiarray_api.h): both are
// the same since NumPy 1.22, and NumPy is not needed to build.
struct Handler {
    char name[127];
    std::uint8_t version;
    void* context;
    void* (*malloc)(void* context, std::size_t bytes);
    void* (*calloc)(void* context, std::size_t count, std::size_t bytes);
    void* (*realloc)(void* context, void* data, std::size_t bytes);
    void (*free)(void* context, void* data, std::size_t bytes);
};
constexpr int kSetHandler = 304;

Handler results{"crossentropy",
                1,
                nullptr,
                [](void*, std::size_t bytes) { return allocate_result(bytes); },
                [](void*, std::size_t count, std::size_t bytes) { return std::calloc(count, bytes); },
                [](void*, void* data, std::size_t bytes) { return resize_result(data, bytes); },
                [](void*, void* data, std::size_t) { free_result(data); }};

nb::object empty(nb::handle shape, nb::handle dtype) {
    const nb::module_ numpy = nb::module_::import_("numpy._core._multiarray_umath");  // under this name in 1.26 too
    const nb::object make = numpy.attr("empty"), api = numpy.attr("_ARRAY_API");
    if (kept_memory().limit == 0) return make(shape, dtype);
    void** const table = static_cast<void**>(PyCapsule_GetPointer(api.ptr(), nullptr));
    if (table == nullptr) throw nb::python_error();
    const auto set_handler = reinterpret_cast<PyObject* (*)(PyObject*)>(table[kSetHandler]);
    const nb::object previous = nb::steal(set_handler(nb::capsule(&results, "mem_handler").ptr()));
    if (!previous.is_valid()) throw nb::python_error();
    const nb::object array = nb::steal(PyObject_CallFunctionObjArgs(make.ptr(), shape.ptr(), dtype.ptr(), nullptr));
    {
        const nb::error_scope failure;
        nb::steal(set_handler(previous.ptr()));
    }
    if (!array.is_valid()) throw nb::python_error();
    return array;
}

// DLPack's DLManagedTensor. Its deleter needs no Python: a tensor may die on any thread, and after the interpreter.
struct ManagedTensor {
    nb::dlpack::dltensor tensor{};
    void* context = nullptr;
    void (*deleter)(ManagedTensor*) = [](ManagedTensor* self) { delete self; };
    std::vector<std::int64_t> shape, strides;

    ~ManagedTensor() { free_result(tensor.data); }
};

nb::object empty_dlpack(std::vector<std::int64_t> shape, std::vector<std::int64_t> strides, int type) {
    if (kept_memory().limit == 0) return nb::none();
    const auto code =
        ElementType(type) == ElementType::bfloat16 ? nb::dlpack::dtype_code::Bfloat : nb::dlpack::dtype_code::Float;
    std::size_t bytes = kLogitSize[type];
    for (const std::int64_t n : shape)
        if (n < 0 || __builtin_mul_overflow(bytes, std::size_t(n), &bytes)) throw std::bad_alloc();
    auto* const managed = new ManagedTensor;
    // Whoever takes the tensor gives the capsule another name.
    const nb::object capsule = nb::steal(PyCapsule_New(managed, "dltensor", [](PyObject* self) {
        if (PyCapsule_IsValid(self, "dltensor"))
            delete static_cast<ManagedTensor*>(PyCapsule_GetPointer(self, "dltensor"));
    }));
    if (!capsule.is_valid()) throw nb::python_error();
    managed->shape = std::move(shape);
    managed->strides = std::move(strides);
    managed->tensor = {allocate_result(bytes),
                       {nb::device::cpu::value, 0},
                       std::int32_t(managed->shape.size()),
                       {std::uint8_t(code), std::uint8_t(8 * kLogitSize[type]), 1},
                       managed->shape.data(),
                       managed->strides.data(),
                       0};
    if (managed->tensor.data == nullptr) throw std::bad_alloc();
    return capsule;
}

}  // namespace

void define_memory(nb::module_& m) {
    m.attr("kept_from") = kKeptFrom;
    m.attr("no_limit") = kNoLimit;
    m.def("empty", &empty, nb::arg("shape"), nb::arg("dtype"),
          nb::sig("def empty(shape: object, dtype: object) -> numpy.typing.NDArray[typing.Any]"),
          "numpy.empty, from kept_from bytes on in memory that is kept for the next such array.");
    m.def("empty_dlpack", &empty_dlpack, nb::arg("shape"), nb::arg("strides"), nb::arg("type"),
          "The same as a capsule of DLPack: elements of a type, each in a place of its own. None if nothing is kept.");
    m.def("limit_kept_memory", &limit_kept_memory, nb::arg("bytes"), "At most so many bytes are kept from now on.");
    m.def(
        "kept_memory",
        [] {
            const KeptMemory now = kept_memory();
            return nb::make_tuple(now.live, now.kept);
        },
        "How many bytes of such memory results have, and how many are kept.");
}

}  // namespace crossentropy::python
