/** Calls into native code, and the kernel tables. Part of `lib/kernels.ts`. */
import { fromNative, type NativeKernels, native } from '../native.js';

/** The name of the kernel table in use: that of `ALTIPLANO_ISA`, or the best available. */
export function isa(): string {
  return guarded(() => native().cpuInfo().selected);
}

/** The kernel tables that this processor can run, best last: values for `ALTIPLANO_ISA`. */
export function availableIsas(): string[] {
  return guarded(() => [...native().cpuInfo().available]);
}

/** Calls a kernel; native errors become errors of this realm. */
export function run(call: (kernels: NativeKernels) => void): void {
  guarded(() => call(native().kernels));
}

function guarded<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw fromNative(error);
  }
}
