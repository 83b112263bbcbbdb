// What the loss needs of XLA's foreign function interface: its C ABI, version 0.3, declared here so that nothing of JAX
// is needed to build. tests/core/xla_abi.cpp compares every offset with JAX's own header.
#pragma once

#include <cstddef>
#include <cstdint>

namespace crossentropy::xla {

struct Extension {
    std::size_t struct_size;
    int type;
    Extension* next;
};
constexpr int kMetadataExtension = 1;

struct ApiVersion {
    std::size_t struct_size;
    Extension* extension_start;
    int major_version;
    int minor_version;
};
constexpr int kApiMajor = 0, kApiMinor = 3;

struct Metadata {
    std::size_t struct_size;
    ApiVersion api_version;
    std::uint32_t traits;
};

struct MetadataExtension {
    Extension base;
    Metadata* metadata;
};

struct Error;

enum class ErrorCode : int { invalid_argument = 3, resource_exhausted = 8, out_of_range = 11, internal = 13 };

struct ErrorCreateArgs {
    std::size_t struct_size;
    Extension* extension_start;
    const char* message;
    ErrorCode code;
};

struct Api {
    std::size_t struct_size;
    Extension* extension_start;
    ApiVersion api_version;
    const void* internal_api;
    Error* (*error_create)(ErrorCreateArgs*);
};

enum class DataType : int {
    boolean = 1,
    int8 = 2,
    int16 = 3,
    int32 = 4,
    int64 = 5,
    uint8 = 6,
    uint16 = 7,
    uint32 = 8,
    uint64 = 9,
    float16 = 10,
    float32 = 11,
    float64 = 12,
    bfloat16 = 16
};

struct Buffer {
    std::size_t struct_size;
    Extension* extension_start;
    DataType dtype;
    void* data;
    std::int64_t rank;
    std::int64_t* dims;
};

struct ByteSpan {
    const char* data;
    std::size_t size;
};

struct Scalar {
    DataType dtype;
    void* value;
};

// Arguments and results alike.
struct Buffers {
    std::size_t struct_size;
    Extension* extension_start;
    std::int64_t size;
    int* types;
    Buffer** buffers;
};

constexpr int kScalar = 3, kString = 4;  // types of attributes: Scalar, ByteSpan

struct Attributes {
    std::size_t struct_size;
    Extension* extension_start;
    std::int64_t size;
    int* types;
    ByteSpan** names;
    void** values;  // each of the type in `types`
};

struct CallFrame {
    std::size_t struct_size;
    Extension* extension_start;
    const Api* api;
    void* context;
    int stage;
    Buffers arguments;
    Buffers results;
    Attributes attributes;
};

}  // namespace crossentropy::xla
