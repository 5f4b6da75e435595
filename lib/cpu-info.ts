/** What the processor offers. */
import { type CpuInfo, fromNative, native } from './native.js';

/**
 * Kernel tables, cores and default threads.
 * @throws ALTIPLANO_OUT_OF_RANGE if ALTIPLANO_ISA names a table that this processor cannot run;
 *   ALTIPLANO_NATIVE_MISSING
 */
export function cpuInfo(): CpuInfo {
  try {
    return native().cpuInfo();
  } catch (error) {
    throw fromNative(error);
  }
}
