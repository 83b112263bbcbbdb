// What Python passes to the core: memory, and the fields of records, which are read by name.
#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>

#include "problem.hpp"

namespace crossentropy::python {

namespace nb = nanobind;

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

// A field of named tuples. Of those of the first type that is asked for it, it is read by its place, which takes a
// tenth of the time.
class Field {
 public:
    explicit Field(const char* name) : name_(PyUnicode_InternFromString(name)) {}

    // A new reference; null with an exception set.
    PyObject* of(PyObject* record) const {
        if (Py_TYPE(record) == tuple_.load(std::memory_order_acquire))
            return Py_XNewRef(PyTuple_GetItem(record, place_));
        PyObject* const value = PyObject_GetAttr(record, name_);
        if (value != nullptr && PyTuple_Check(record) && !found_.exchange(true)) remember(record);
        return value;
    }

 private:
    void remember(PyObject* record) const {
        nb::object fields = nb::borrow(record).type().attr("_fields");
        place_ = PySequence_Index(fields.ptr(), name_);
        if (place_ < 0) throw nb::python_error();
        Py_INCREF(Py_TYPE(record));  // no other type will have its address
        tuple_.store(Py_TYPE(record), std::memory_order_release);
    }

    PyObject* const name_;
    mutable std::atomic<bool> found_{false};
    mutable std::atomic<PyTypeObject*> tuple_{nullptr};
    mutable Py_ssize_t place_ = 0;
};

// The fields of records, made once.
struct Names {
    const Field options{"options"};
    const Field core{"core"};
    const Field logits{"logits"};
    const Field targets{"targets"};
    const Field class_weight{"class_weight"};
    const Field sample_weight{"sample_weight"};
    const Field num_threads{"num_threads"};
    const Field data{"data"};
    const Field type{"type"};
    const Field rows{"rows"};
    const Field classes{"classes"};
    const Field class_stride{"class_stride"};
    const Field indices{"indices"};
    const Field probabilities{"probabilities"};
    const Field sparse_indices{"sparse_indices"};
    const Field k{"k"};
    const Field remainder{"remainder"};
};

inline const Names& names() {
    static const Names all;
    return all;
}

// A record of Python's, such as a named tuple.
class Record {
 public:
    explicit Record(nb::object record) : record_(std::move(record)) {}

    nb::object operator[](const Field& field) const {
        PyObject* const value = field.of(record_.ptr());
        if (value == nullptr) throw nb::python_error();
        return nb::steal(value);
    }
    std::size_t size(const Field& field) const {
        const std::size_t number = PyLong_AsSize_t((*this)[field].ptr());
        if (number == std::size_t(-1) && PyErr_Occurred()) throw nb::python_error();
        return number;
    }
    ElementType type(const Field& field, std::size_t types) const {
        const std::size_t code = size(field);
        if (code >= types) throw nb::value_error("expected the code of an element type");
        return ElementType(int(code));
    }

 private:
    nb::object record_;
};

// Holds the memory of logits while a call runs, and enters it in a problem.
class HeldLogits {
 public:
    HeldLogits(const Record& logits, Problem& p) : bytes_(read_shape(logits, p)), data_(logits[names().data], bytes_) {
        p.logits = data_.data();
    }
    std::size_t bytes() const { return bytes_; }

 private:
    static std::size_t read_shape(const Record& logits, Problem& p) {
        p.rows = logits.size(names().rows);
        p.classes = logits.size(names().classes);
        p.class_stride = logits.size(names().class_stride);
        p.type = logits.type(names().type, kLogitTypes);
        return p.rows * p.classes * kLogitSize[int(p.type)];
    }

    std::size_t bytes_;
    Buffer data_;
};

// The same of targets. The problem has the numbers of rows and classes. The order of the members matters: each size
// depends on what was read before.
class HeldTargets {
 public:
    HeldTargets(const Record& targets, Problem& p)
        : indices_(targets[names().indices], p.rows * sizeof(std::int64_t)),
          sparse_indices_(targets[names().sparse_indices], read_slots(targets, p) * sizeof(std::int64_t)),
          probabilities_(targets[names().probabilities], read_bytes(targets, p)),
          remainder_(targets[names().remainder], p.rows * sizeof(double)) {
        p.indices = indices_.data<std::int64_t>();
        p.sparse_indices = sparse_indices_.data<std::int64_t>();
        p.probabilities = probabilities_.data();
        p.remainder = remainder_.data<double>();
    }

 private:
    static std::size_t read_slots(const Record& targets, Problem& p) {
        p.k = targets.size(names().k);
        return p.rows * p.k;
    }
    std::size_t read_bytes(const Record& targets, Problem& p) const {
        p.probabilities_type = targets.type(names().type, std::size(kElementSize));
        return sparse_indices_.data() != nullptr ? p.rows * p.k * sizeof(double)
                                                 : p.rows * p.classes * kElementSize[int(p.probabilities_type)];
    }

    Buffer indices_, sparse_indices_, probabilities_, remainder_;
};

// The same of the weights of classes and rows.
class HeldWeights {
 public:
    HeldWeights(nb::handle class_weight, nb::handle sample_weight, Problem& p)
        : class_weight_(class_weight, p.classes * sizeof(double)),
          sample_weight_(sample_weight, p.rows * sizeof(double)) {
        p.class_weight = class_weight_.data<double>();
        p.sample_weight = sample_weight_.data<double>();
    }

 private:
    Buffer class_weight_, sample_weight_;
};

}  // namespace crossentropy::python
