import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';

const read = (path: string) => JSON.parse(readFileSync(path, 'utf8'));
const manifest = read('package.json');
const lock = read('package-lock.json');

describe('the manifest and its lock file', () => {
  test('the lock file belongs to the manifest', () => {
    const { name, version, dependencies, devDependencies } = lock.packages[''];
    expect({ name, version, dependencies, devDependencies }).toEqual({
      name: manifest.name,
      version: manifest.version,
      dependencies: manifest.dependencies,
      devDependencies: manifest.devDependencies,
    });
  });

  test('every locked package has a version and a checksum, and names no server', () => {
    for (const [path, entry] of Object.entries<Record<string, unknown>>(lock.packages)) {
      if (path === '') continue;
      expect({ path, ...entry }).toMatchObject({
        path,
        version: expect.stringMatching(/^\d/),
        integrity: expect.stringMatching(/^sha512-/),
      });
      expect(entry).not.toHaveProperty('resolved');
    }
  });

  test('packages for other platforms are locked as well', () => {
    // npm drops them from a lock file that is made while they cannot be reached, and "npm ci" then
    // fails everywhere.
    for (const [path, entry] of Object.entries<Record<string, object>>(lock.packages)) {
      for (const name of Object.keys(entry.optionalDependencies ?? {})) {
        const places = [`${path}/node_modules/${name}`, `node_modules/${name}`];
        expect({ name, locked: places.some((place) => place in lock.packages) }).toEqual({
          name,
          locked: true,
        });
      }
    }
  });

  test('cmake-js builds for Node-API, which needs no headers of Node', () => {
    expect(manifest.binary.napi_versions).toEqual([8]);
    expect(readFileSync('CMakeLists.txt', 'utf8')).toContain('NAPI_VERSION=8');
  });

  test('what the install script and binding.gyp run is packed', () => {
    for (const script of ['install', 'build-native', 'toolchain']) {
      expect(manifest.files).toContain(`scripts/${script}.mjs`);
    }
    for (const path of ['native', 'CMakeLists.txt', 'binding.gyp', 'prebuilds', 'dist']) {
      expect(manifest.files).toContain(path);
    }
    for (const name of ['cmake-js', 'node-addon-api', 'node-gyp-build']) {
      expect(manifest.dependencies).toHaveProperty(name);
    }
  });

  test('no script named "build" exists, since npm would run "prebuild" before it', () => {
    expect(manifest.scripts).not.toHaveProperty('build');
    expect(manifest.scripts).toHaveProperty('prebuild');
  });
});
