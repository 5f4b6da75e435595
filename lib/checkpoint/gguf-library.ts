/**
 * What is used of `@huggingface/gguf`. The set-up puts it into this one file (scripts/setup.mjs): as a
 * package it imports 76 modules of `@huggingface/tasks` for the names of tensor types, 35 ms of
 * every start with a GGUF file.
 */
export { GGMLQuantizationType, gguf } from '@huggingface/gguf';
