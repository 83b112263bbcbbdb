// The kernels of Mode::scaled.
#include "layouts.hpp"

CE_BEGIN

#if CE_FUSED
CE_COMPILE(Mode::scaled)
#endif

CE_END
