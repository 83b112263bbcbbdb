// The kernels of Mode::capped.
#include "layouts.hpp"

CE_BEGIN

#if CE_FUSED
CE_COMPILE(Mode::capped)
#endif

CE_END
