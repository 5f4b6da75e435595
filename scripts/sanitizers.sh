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
# Test suites whose native paths the instrumented addon runs.
suites=(test/kernels test/addon test/abort test/generation/lifecycle test/generation/concurrency)

# build FOLDER SANITIZERS TARGETS... - native tests, and the addon as build/<configuration>/*.node:
# a configuration of its own keeps that apart from build/Release.
build() {
  cmake -S . -B "$1" -DCMAKE_BUILD_TYPE=Sanitized -DALTIPLANO_TESTS=ON -DALTIPLANO_SANITIZE="$2" \
    -DCMAKE_JS_INC="$(node -p 'require("node-api-headers").include_dir')" >/dev/null
  cmake --build "$1" --parallel "$jobs" --target "${@:3}"
}

asan() {
  build build/asan address,undefined kernels_test engine_test
  # Leaks count too: the native tests have no Node around them.
  ASAN_OPTIONS=detect_leaks=1 build/asan/kernels_test --quick
  ASAN_OPTIONS=detect_leaks=1 build/asan/engine_test
}

tsan() {
  build build/tsan thread engine_test
  # Address randomisation of newer kernels leaves ThreadSanitizer no room for its shadow.
  setarch "$(uname -m)" --addr-no-randomize build/tsan/engine_test
}

addon() {
  build build/asan address,undefined altiplano
  # node-gyp-build looks for build/Release below $ALTIPLANO_PREBUILD.
  local folder="$PWD/build/sanitized-package"
  mkdir -p "$folder/build/Release"
  cp build/Sanitized/altiplano.node "$folder/build/Release/"
  local compiler libraries
  compiler=$(sed -n 's/^CMAKE_CXX_COMPILER:[A-Z]*=//p' build/asan/CMakeCache.txt)
  libraries="$("$compiler" -print-file-name=libasan.so) $("$compiler" -print-file-name=libubsan.so)"
  # V8 never frees all it holds at exit, so leaks cannot be told from that here.
  ALTIPLANO_PREBUILD="$folder" LD_PRELOAD="$libraries" \
    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
    node --experimental-vm-modules --disable-warning=ExperimentalWarning \
    node_modules/jest/bin/jest.js --runInBand --testTimeout=600000 "${suites[@]}"
}

for section in "${@:-asan tsan addon}"; do
  for name in $section; do
    echo "--- sanitizers: $name"
    "$name"
  done
done
