// The binary loss as Python calls it.
#pragma once

#include <nanobind/nanobind.h>

namespace crossentropy::python {

void define_binary(nanobind::module_& m);

}  // namespace crossentropy::python
