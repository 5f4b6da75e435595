// Tests of the CPU run on the CPU, also where "auto" would take a GPU: the driver then finds none.
// Those of the GPU (npm run test:gpu, test/cuda) set up what they run on themselves.
process.env.CUDA_VISIBLE_DEVICES = '';

export default {
  testEnvironment: 'node',
  roots: ['<rootDir>/test'],
  testMatch: ['**/*.test.ts'],
  extensionsToTreatAsEsm: ['.ts'],
  transform: {
    '\\.ts$': [
      '@swc/jest',
      { jsc: { parser: { syntax: 'typescript' }, target: 'es2022' }, module: { type: 'es6' } },
    ],
  },
  // Sources import each other as they will be called after compilation (./errors.js).
  moduleNameMapper: { '^(\\.{1,2}/.*)\\.js$': ['$1', '$1.js'] },
  testTimeout: 60_000,
};
