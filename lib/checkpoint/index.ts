/** Checkpoints: any supported format on disk becomes a configuration and tensor sources. */
export { type OpenCheckpointOptions, openCheckpoint } from './open.js';
export * from './types.js';
