// The tests of test/cuda/on-device run on a CUDA device: a GPU's (npm run test:gpu), or the simulated
// one, for which test/cuda/on-device.test.ts calls jest a second time. All others run on the CPU, also
// where "auto" would take a GPU: the driver then finds none.
const onDevice = process.env.ALTIPLANO_TEST_DEVICE !== undefined;
if (!onDevice) process.env.CUDA_VISIBLE_DEVICES = '';

export default {
  testPathIgnorePatterns: onDevice ? ['/node_modules/'] : ['/node_modules/', '/on-device/'],
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
