#!/usr/bin/env bash
# The native kernel test on the instruction sets that it must run on, not only on this machine's:
#   - natively, every table
#   - as a Haswell (AVX2 only): the AVX-VNNI and AVX-512 tables must be left out, the others run
#   - as a Nehalem (SSE4.2, no AVX): only the portable table may be left, and must run
# The emulation is Debian's qemu-user, which has neither AVX-VNNI nor AVX-512. And no file for an
# instruction set may contribute code that the linker could choose for everyone: their objects must
# have no weak symbols, optimised or not.
#
#   scripts/test-isa.sh [--quick] [--sanitize]
#     --quick     fewer shapes everywhere (under emulation always so)
#     --sanitize  also natively under AddressSanitizer and UndefinedBehaviorSanitizer
# Without qemu-x86_64 the emulated runs are skipped with a message; under CI=true that is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."

quick=() sanitize=false
for argument in "$@"; do
  case "$argument" in
    --quick) quick=(--quick) ;;
    --sanitize) sanitize=true ;;
    *) echo "usage: $0 [--quick] [--sanitize]" >&2; exit 2 ;;
  esac
done

cxx=${CXX:-g++}
flags=(-std=c++20 -ffp-contract=off -fno-math-errno -Wall -Wextra -Werror -Inative -Itest/native)
avx2=(-mavx2 -mfma -mf16c)
# GCC 12 warns of its own headers' "undefined" operands (bug 105593).
avxvnni=("${avx2[@]}" -mavxvnni)
avx512=("${avx2[@]}" -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni
  -Wno-uninitialized -Wno-maybe-uninitialized)
sources=(native/cpu/{portable,portable_matrix,portable_attend,portable_convert,dispatch}.cc
  test/native/{kernels,int8,matrix,quantize,vector,convert,attend}_test.cc
  test/native/random_matrix.cc)
x86_sources=()
x86=false
case "$(uname -m)" in
  x86_64 | amd64)
    x86=true
    flags+=(-DALTIPLANO_X86)
    x86_sources=(native/cpu/avx2*.cc native/cpu/avx512*.cc)
    # Compilers before GCC 11 do not know AVX-VNNI: its table is then left out.
    if "$cxx" -mavxvnni -fsyntax-only -x c++ /dev/null 2> /dev/null; then
      flags+=(-DALTIPLANO_AVXVNNI)
      x86_sources+=(native/cpu/avxvnni*.cc)
    fi
    ;;
esac

# Checks of every pointer and reference that the inlined vector code passes along: they take the
# compiler minutes and gigabytes, and AddressSanitizer sees the accesses anyway.
unchecked=(-fno-sanitize=null,alignment,object-size,pointer-overflow)

# isa_flags SOURCE: sets `isa` to the flags of the instruction set that a file is for.
isa_flags() {
  case "$1" in
    native/cpu/avx512*) isa=("${avx512[@]}") ;;
    native/cpu/avxvnni*) isa=("${avxvnni[@]}") ;;
    *) isa=("${avx2[@]}") ;;
  esac
}

# build FOLDER FLAG...: compiles and links kernels_test; files for an instruction set with its flags.
build() {
  local out=$1 objects=() source object extra
  shift
  mkdir -p "$out"
  for source in "${sources[@]}" ${x86_sources[@]+"${x86_sources[@]}"}; do
    object=$out/$(basename "$source" .cc).o
    objects+=("$object")
    extra=()
    if [[ $source == native/cpu/avx* ]]; then
      isa_flags "$source"
      extra=("${isa[@]}")
      [[ "$*" == *-fsanitize=* ]] && extra+=("${unchecked[@]}")
    fi
    # Unchanged objects are kept: any header counts as used by all.
    if [[ -e $object && -z $(find native test/native \( -name '*.h' -o -path "$source" \) -newer "$object") ]]; then
      continue
    fi
    "$cxx" "${flags[@]}" "$@" ${extra[@]+"${extra[@]}"} -c "$source" -o "$object"
  done
  "$cxx" "$@" "${objects[@]}" -o "$out/kernels_test"
}

# Symbols that the linker merges across files: weak (W, V, w, v) and unique (u). The reference to
# the C++ personality routine is a pointer, not code.
check_no_shared_code() {
  local object symbols
  for object in "$@"; do
    symbols=$(nm -C "$object" | grep -E '^[0-9a-f]* *[WVwvu] ' | grep -v 'DW.ref.__gxx_personality_v0' || true)
    if [[ -n $symbols ]]; then
      echo "$object: code that other files could end up using:" >&2
      echo "$symbols" >&2
      return 1
    fi
  done
}

echo "== native"
build build/test-isa/native -O3
build/test-isa/native/kernels_test ${quick[@]+"${quick[@]}"}

if $sanitize; then
  echo "== AddressSanitizer and UndefinedBehaviorSanitizer"
  build build/test-isa/sanitize -O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all
  build/test-isa/sanitize/kernels_test --quick
fi

if ! $x86; then
  echo "== instruction sets: not an x86-64 machine, nothing to emulate"
  exit 0
fi

echo "== shared code in AVX2, AVX-VNNI and AVX-512 files"
check_no_shared_code build/test-isa/native/avx*.o
for source in "${x86_sources[@]}"; do
  object=build/test-isa/unoptimised-$(basename "$source" .cc).o
  isa_flags "$source"
  "$cxx" "${flags[@]}" -O0 "${isa[@]}" -c "$source" -o "$object"
  check_no_shared_code "$object"
done

if ! command -v qemu-x86_64 > /dev/null; then
  echo "== emulation: qemu-x86_64 is missing (Debian: apt install qemu-user), skipped" >&2
  [[ ${CI:-} != true ]] || exit 1
  exit 0
fi

# emulate CPU TABLES: runs the quick test and asserts which tables ran.
emulate() {
  local cpu=$1 expected=$2 output tables
  echo "== emulated $cpu"
  output=$(qemu-x86_64 -cpu "$cpu" build/test-isa/native/kernels_test --quick)
  echo "$output"
  tables=$(sed -n 's/^table \(.*\): done$/\1/p' <<< "$output" | paste -sd ' ')
  if [[ $tables != "$expected" ]]; then
    echo "a $cpu should run the tables: $expected; it ran: $tables" >&2
    return 1
  fi
}
emulate Haswell "portable avx2"
ALTIPLANO_ISA=portable emulate Nehalem "portable"
emulate Nehalem "portable"
