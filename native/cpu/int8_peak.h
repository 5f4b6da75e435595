// How fast this machine multiplies int8 numbers: the limit of prefill with quantized weights.
#pragma once

namespace altiplano::cpu {

// Multiply-adds a second that `threads` threads together do with the best instructions for int8 dot
// products that this processor has (dispatch.h, int8_dot), from registers to registers: the median
// of five passes, each of some ten milliseconds. A kernel must also load, unpack and scale, so it
// stays below. 0 where there is no such measurement for the processor. Throws Error
// ALTIPLANO_OUT_OF_MEMORY if the system refuses the threads.
double measure_int8_peak(int threads);

}  // namespace altiplano::cpu
