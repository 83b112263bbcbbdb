// The options of a call, which Python holds in a capsule.
#pragma once

#include <nanobind/nanobind.h>

#include "options.hpp"

namespace crossentropy::python {

const Options& options_in(nanobind::handle capsule);  // python.cpp

}  // namespace crossentropy::python
