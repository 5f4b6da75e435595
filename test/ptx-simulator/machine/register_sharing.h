// Gives the registers of a decoded program their final places, which shortens
// Program::register_bytes; machine/liveness.h says why they share them.
#pragma once

#include "machine/layout.h"

namespace ptx_simulator {

void share_registers(ProgramLayout& layout);

}  // namespace ptx_simulator
