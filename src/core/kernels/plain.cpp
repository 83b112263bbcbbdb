// The kernels of Mode::plain.
#include "layouts.hpp"

CE_BEGIN

CE_COMPILE(Mode::plain)

CE_END
