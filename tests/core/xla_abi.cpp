// The structs of xla_abi.hpp against JAX's own header: compiled by tests/jax, which knows where that is.
#include "xla/ffi/api/c_api.h"
#include "xla_abi.hpp"

using namespace crossentropy::xla;

#define SAME(ours, field, theirs, their_field)                             \
    static_assert(offsetof(ours, field) == offsetof(theirs, their_field)); \
    static_assert(sizeof(ours::field) == sizeof(theirs::their_field))

SAME(Extension, type, XLA_FFI_Extension_Base, type);
SAME(Extension, next, XLA_FFI_Extension_Base, next);
SAME(ApiVersion, major_version, XLA_FFI_Api_Version, major_version);
SAME(ApiVersion, minor_version, XLA_FFI_Api_Version, minor_version);
SAME(Metadata, api_version, XLA_FFI_Metadata, api_version);
SAME(Metadata, traits, XLA_FFI_Metadata, traits);
SAME(MetadataExtension, metadata, XLA_FFI_Metadata_Extension, metadata);
SAME(ErrorCreateArgs, message, XLA_FFI_Error_Create_Args, message);
SAME(ErrorCreateArgs, code, XLA_FFI_Error_Create_Args, errc);
SAME(Api, error_create, XLA_FFI_Api, XLA_FFI_Error_Create);
SAME(Buffer, dtype, XLA_FFI_Buffer, dtype);
SAME(Buffer, data, XLA_FFI_Buffer, data);
SAME(Buffer, rank, XLA_FFI_Buffer, rank);
SAME(Buffer, dims, XLA_FFI_Buffer, dims);
SAME(ByteSpan, data, XLA_FFI_ByteSpan, ptr);
SAME(ByteSpan, size, XLA_FFI_ByteSpan, len);
SAME(Scalar, dtype, XLA_FFI_Scalar, dtype);
SAME(Scalar, value, XLA_FFI_Scalar, value);
SAME(Buffers, size, XLA_FFI_Args, size);
SAME(Buffers, buffers, XLA_FFI_Args, args);
SAME(Buffers, size, XLA_FFI_Rets, size);
SAME(Buffers, buffers, XLA_FFI_Rets, rets);
SAME(Attributes, size, XLA_FFI_Attrs, size);
SAME(Attributes, names, XLA_FFI_Attrs, names);
SAME(Attributes, values, XLA_FFI_Attrs, attrs);
SAME(CallFrame, api, XLA_FFI_CallFrame, api);
SAME(CallFrame, context, XLA_FFI_CallFrame, ctx);
SAME(CallFrame, stage, XLA_FFI_CallFrame, stage);
SAME(CallFrame, arguments, XLA_FFI_CallFrame, args);
SAME(CallFrame, results, XLA_FFI_CallFrame, rets);
SAME(CallFrame, attributes, XLA_FFI_CallFrame, attrs);

static_assert(sizeof(ErrorCreateArgs) == XLA_FFI_Error_Create_Args_STRUCT_SIZE + 4);
static_assert(kMetadataExtension == XLA_FFI_Extension_Metadata);
static_assert(int(ErrorCode::invalid_argument) == XLA_FFI_Error_Code_INVALID_ARGUMENT);
static_assert(int(ErrorCode::resource_exhausted) == XLA_FFI_Error_Code_RESOURCE_EXHAUSTED);
static_assert(int(ErrorCode::out_of_range) == XLA_FFI_Error_Code_OUT_OF_RANGE);
static_assert(int(ErrorCode::internal) == XLA_FFI_Error_Code_INTERNAL);
static_assert(kApiMajor == XLA_FFI_API_MAJOR && kApiMinor <= XLA_FFI_API_MINOR);

#define SAME_TYPE(ours, theirs) static_assert(int(DataType::ours) == XLA_FFI_DataType_##theirs)

SAME_TYPE(boolean, PRED);
SAME_TYPE(int8, S8);
SAME_TYPE(int16, S16);
SAME_TYPE(int32, S32);
SAME_TYPE(int64, S64);
SAME_TYPE(uint8, U8);
SAME_TYPE(uint16, U16);
SAME_TYPE(uint32, U32);
SAME_TYPE(uint64, U64);
SAME_TYPE(float16, F16);
SAME_TYPE(float32, F32);
SAME_TYPE(float64, F64);
SAME_TYPE(bfloat16, BF16);
