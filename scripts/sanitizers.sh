#!/usr/bin/env bash
# Runs the native code under the sanitizers: the native tests with AddressSanitizer and
# UndefinedBehaviorSanitizer, the engine's threads with ThreadSanitizer, and the test suites that go
# through the addon with an instrumented addon in an ordinary Node.
#   scripts/sanitizers.sh [asan] [tsan] [addon]      default: all three
set -euo pipefail
cd "$(dirname "$0")/.."

export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export TSAN_OPTIONS=halt_on_error=1
jobs=$(nproc)

# build FOLDER SANITIZERS TARGETS... - the native tests
build() {
  cmake -S . -B "$1" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DALTIPLANO_TESTS=ON \
    -DALTIPLANO_SANITIZE="$2" >/dev/null
  cmake --build "$1" --parallel "$jobs" --target "${@:3}"
}

asan() {
  build build/asan address,undefined kernels_test engine_test
  # Leaks count too: the native tests have no Node around them.
  ASAN_OPTIONS=detect_leaks=1 build/asan/kernels_test
  ASAN_OPTIONS=detect_leaks=1 build/asan/engine_test
}

tsan() {
  build build/tsan thread engine_test
  # Address randomisation of newer kernels leaves ThreadSanitizer no room for its shadow.
  setarch "$(uname -m)" --addr-no-randomize build/tsan/engine_test
}

addon() {
  # CMake writes the addon to build/<configuration>: the name keeps it apart from build/Release.
  cmake -S . -B build/cmake-sanitized -DCMAKE_BUILD_TYPE=Sanitized \
    -DALTIPLANO_SANITIZE=address,undefined \
    -DCMAKE_JS_INC="$(node -p 'require("node-api-headers").include_dir')" >/dev/null
  cmake --build build/cmake-sanitized --parallel "$jobs"
  # node-gyp-build looks for build/Release below $ALTIPLANO_PREBUILD.
  local folder="$PWD/build/sanitized-package"
  mkdir -p "$folder/build/Release"
  cp build/Sanitized/altiplano.node "$folder/build/Release/"
  local compiler libraries
  compiler=$(sed -n 's/^CMAKE_CXX_COMPILER:[A-Z]*=//p' build/cmake-sanitized/CMakeCache.txt)
  libraries="$("$compiler" -print-file-name=libasan.so) $("$compiler" -print-file-name=libubsan.so)"
  # V8 never frees all it holds at exit, so leaks cannot be told from that here.
  ALTIPLANO_PREBUILD="$folder" LD_PRELOAD="$libraries" \
    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
    node --experimental-vm-modules node_modules/jest/bin/jest.js --runInBand --forceExit \
    --testTimeout=600000 ${ALTIPLANO_SANITIZED_SUITES:-test/native test/kernels.test.ts test/llama.test.ts}
}

for section in "${@:-asan tsan addon}"; do
  for name in $section; do
    echo "--- sanitizers: $name"
    "$name"
  done
done
