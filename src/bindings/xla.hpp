// The loss as XLA calls it.
#pragma once

#include "xla_abi.hpp"

namespace crossentropy::xla {

// The loss of a batch of problems, and its gradient where there is a second result.
//   arguments   logits (batch..., rows..., classes, rows...), targets, and, of size 0 if there are none, class weights,
//               sample weights and the upstream gradient (a number, or one a row for reduction 'none')
//   results     losses (batch...), or one a row for 'none'; gradient, of the logits' shape
//   attributes  the options by name, ignore_index a boolean if there is none; "axes": how many hold rows and classes,
//               those before are the batch; "axis": which of them the classes are on; "num_threads";
//               "by_rows": reduction is 'none', classes are on the last axis, and all arrays lead with the rows, since
//               these may be some of a problem whose others are elsewhere: class weights are one a row, that of its
//               target, if "weighted"; "marks_bad_rows": a row whose class index is out of range is NaN, not an error
Error* loss(CallFrame* frame);

// An error if a row has a class index out of range.
//   arguments   that row, and its index, int64
//   result      0, int32
//   attributes  "rows", how many there are, of which a bad one is; "classes", "ignore_index", for the message
Error* raise(CallFrame* frame);

// Rows whose classes are split into shards of equal size, of which each device has one; what is beyond the last class
// is padding. Numbers in float64 travel as twice as many of uint32, since JAX's mode of 64 bits is off by default.
//   attributes  as of `loss`, of reduction 'none'; "classes": of all shards; "fields": how many numbers a part has
//
// What the classes of a shard tell of each row.
//   arguments   logits (rows..., classes), targets, class weights of the shard (or of size 0), sample weights, each 0
//   or
//               1 here, and the first class of the shard, int32
//   result      (rows..., 2 fields), uint32
Error* part(CallFrame* frame);

// What all shards tell, joined in their order: losses, class weights of the targets, and all that the gradient needs.
//   arguments   parts (rows..., shards, 2 fields), targets (which are not read if "probabilities"), sample weights
//   results     losses (rows...); weights (rows...), of the same type; (rows..., 2 kPartFields), uint32
//   attributes  "element_type": the logits'
Error* whole(CallFrame* frame);

// The gradient of a shard's logits.
//   arguments   as of `part`, then the last result of `whole` and the upstream gradient, one a row
//   result      gradient, of the logits' shape
Error* gradient_of_part(CallFrame* frame);

}  // namespace crossentropy::xla
