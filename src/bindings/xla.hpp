// The loss as XLA calls it.
#pragma once

#include "xla_abi.hpp"

namespace crossentropy::xla {

// The loss of a batch of problems, and its gradient where there is a second result.
//   arguments   logits (batch..., rows..., classes, rest...), targets, and, of size 0 if there are none, class weights,
//               sample weights and what multiplies the gradient (a number, or one a row for reduction 0)
//   results     losses (batch...), or one a row for reduction 0; gradient, of the logits' shape
//   attributes  as crossentropy._core.loss names them; "axes": of the rows and the classes, what is before is batch
Error* loss(CallFrame* frame);

}  // namespace crossentropy::xla
