/** Listening to the callers' `AbortSignal`s. */
import { defaultMaxListeners, getMaxListeners, setMaxListeners } from 'node:events';

/**
 * Calls `listener` when the signal fires, once. One signal may serve any number of requests (that of
 * a server that shuts down, say), which is no leak: Node's warning for more than ten listeners is
 * turned off, unless the caller has set a limit.
 * @returns takes the listener off
 */
export function onAbort(signal: AbortSignal | null | undefined, listener: () => void): () => void {
  if (signal == null) return () => {};
  try {
    if (getMaxListeners(signal) === defaultMaxListeners) setMaxListeners(0, signal);
  } catch {
    // Not one of Node's own signals: there is no such warning.
  }
  signal.addEventListener('abort', listener, { once: true });
  return () => signal.removeEventListener('abort', listener);
}
