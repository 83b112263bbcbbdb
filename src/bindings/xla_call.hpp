// What the foreign calls share: XLA's arguments and attributes as the core takes them, and errors.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <limits>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "problem.hpp"
#include "xla_abi.hpp"

namespace crossentropy::xla {

inline Error* error(const CallFrame* frame, ErrorCode code, const std::string& message) {
    ErrorCreateArgs args{sizeof(ErrorCreateArgs), nullptr, message.c_str(), code};
    return frame->api->error_create(&args);
}

template <class T>
const T& attribute(const CallFrame* frame, std::string_view name, int type) {
    const Attributes& all = frame->attributes;
    for (std::int64_t i = 0; i < all.size; ++i)
        if (std::string_view(all.names[i]->data, all.names[i]->size) == name && all.types[i] == type)
            return *static_cast<const T*>(all.values[i]);
    throw std::invalid_argument("crossentropy: no such attribute: " + std::string(name));
}

template <class T>
T number(const CallFrame* frame, std::string_view name, DataType type) {
    const Scalar& scalar = attribute<Scalar>(frame, name, kScalar);
    if (scalar.dtype != type)
        throw std::invalid_argument("crossentropy: an attribute of another type: " + std::string(name));
    return *static_cast<const T*>(scalar.value);
}

inline std::int64_t integer(const CallFrame* frame, std::string_view name) {
    return number<std::int64_t>(frame, name, DataType::int64);
}

inline bool flag(const CallFrame* frame, std::string_view name) { return number<bool>(frame, name, DataType::boolean); }

// An option from the attribute of its name.
inline void read(const CallFrame* frame, std::string_view name, double& option) {
    option = number<double>(frame, name, DataType::float64);
}
inline void read(const CallFrame* frame, std::string_view name, std::optional<std::int64_t>& option) {
    const bool none = attribute<Scalar>(frame, name, kScalar).dtype == DataType::boolean;
    option = none ? std::nullopt : std::optional(integer(frame, name));
}
inline void read(const CallFrame* frame, std::string_view name, Reduction& option) {
    const ByteSpan& value = attribute<ByteSpan>(frame, name, kString);
    option = reduction_of({value.data, value.size});
}

inline std::size_t product(const Buffer& buffer, std::int64_t first, std::int64_t last) {
    std::size_t n = 1;
    for (std::int64_t i = first; i < last; ++i) n *= std::size_t(buffer.dims[i]);
    return n;
}

// Of logits and of probabilities; Python converts all others.
inline ElementType element_type(DataType type) {
    switch (type) {
        case DataType::float64:
            return ElementType::float64;
        case DataType::float16:
            return ElementType::float16;
        case DataType::bfloat16:
            return ElementType::bfloat16;
        case DataType::float32:
            return ElementType::float32;
        default:
            throw std::invalid_argument("crossentropy: an element type of logits or targets that is not known here");
    }
}

template <class From, class To>
inline std::vector<To> converted(const Buffer& buffer) {
    const From* data = static_cast<const From*>(buffer.data);
    return {data, data + product(buffer, 0, buffer.rank)};
}

// Class indices as the core reads them; an unsigned one beyond int64 stays out of range.
inline std::vector<std::int64_t> indices(const Buffer& buffer) {
    switch (buffer.dtype) {
        case DataType::uint32:
            return converted<std::uint32_t, std::int64_t>(buffer);
        case DataType::int64:
            return converted<std::int64_t, std::int64_t>(buffer);
        case DataType::uint64: {
            std::vector<std::int64_t> all = converted<std::int64_t, std::int64_t>(buffer);
            for (std::int64_t& index : all)
                if (index < 0) index = std::numeric_limits<std::int64_t>::min();
            return all;
        }
        case DataType::int32:
            return converted<std::int32_t, std::int64_t>(buffer);
        default:
            throw std::invalid_argument("crossentropy: an element type of class indices that is not known here");
    }
}

inline std::vector<double> reals(const Buffer& buffer) {
    if (buffer.dtype == DataType::float64) return converted<double, double>(buffer);
    if (buffer.dtype == DataType::float32) return converted<float, double>(buffer);
    throw std::invalid_argument("crossentropy: an element type of weights that is not known here");
}

// The rule of crossentropy._arrays.as_weights, for values that Python has not seen. One that breaks it is an error, or
// where errors are marked NaN.
inline Error* check_weights(const CallFrame* frame, const char* name, std::vector<double>& weights, bool marks) {
    for (double& w : weights)
        if (!(w == 0.0 || (std::fabs(w) >= 1e-100 && std::fabs(w) <= 1e100))) {
            if (marks) {
                w = std::numeric_limits<double>::quiet_NaN();
                continue;
            }
            char got[32];
            std::snprintf(got, sizeof got, "%g", w);
            return error(
                frame, ErrorCode::invalid_argument,
                std::string(name) + ": expected finite weights, each 0 or of a size in [1e-100, 1e100], got " + got);
        }
    return nullptr;
}

template <class T>
T* at(const Buffer& buffer, std::size_t offset) {
    return static_cast<T*>(buffer.data) + offset;
}

// A handler: what XLA asks of it before it calls it, and C++'s exceptions.
inline Error* handled(CallFrame* frame, Error* (*call)(const CallFrame*)) {
    if (frame->extension_start != nullptr && frame->extension_start->type == kMetadataExtension) {
        Metadata* const metadata = reinterpret_cast<MetadataExtension*>(frame->extension_start)->metadata;
        metadata->api_version.major_version = kApiMajor;
        metadata->api_version.minor_version = kApiMinor;
        metadata->traits = 0;
        return nullptr;
    }
    try {
        return call(frame);
    } catch (const std::bad_alloc&) {
        return error(frame, ErrorCode::resource_exhausted, "crossentropy: out of memory");
    } catch (const std::exception& exception) {
        return error(frame, ErrorCode::internal, exception.what());
    }
}

}  // namespace crossentropy::xla
