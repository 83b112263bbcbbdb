// The kernels of Mode::general.
#include "layouts.hpp"

CE_BEGIN

CE_COMPILE(Mode::general)

CE_END
