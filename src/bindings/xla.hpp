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

}  // namespace crossentropy::xla
