#!/usr/bin/env node
/** The `altiplano` command: hands the arguments and this process's streams to the program. */
import { processContext } from './context.js';
import { run } from './program.js';

// The exit code is only set, so that what was written still reaches its reader.
run(process.argv.slice(2), processContext()).then((exitCode) => {
  process.exitCode = exitCode;
});
