// Names and texts of what a launch reports.
#include "machine/report.h"

#include <cstdio>

namespace ptx_simulator {

const char* name_of(FindingKind kind) {
  switch (kind) {
    case FindingKind::kSharedRace:
      return "shared race";
    case FindingKind::kAsyncCopyRace:
      return "asynchronous copy race";
    case FindingKind::kUninitialized:
      return "uninitialized shared memory";
    case FindingKind::kOutOfBounds:
      return "out of bounds";
    case FindingKind::kUseAfterFree:
      return "use after free";
    case FindingKind::kMisaligned:
      return "misaligned access";
    case FindingKind::kBarrierDivergence:
      return "barrier divergence";
    case FindingKind::kOpenAsyncGroup:
      return "open asynchronous copy";
    case FindingKind::kDeadlock:
      return "deadlock";
    case FindingKind::kIllegalInstruction:
      return "illegal instruction";
  }
  return "?";
}

const char* name_of(InstructionClass kind) {
  switch (kind) {
    case InstructionClass::kInteger:
      return "integer";
    case InstructionClass::kFloat32:
      return "float32";
    case InstructionClass::kFloat64:
      return "float64";
    case InstructionClass::kHalf:
      return "half";
    case InstructionClass::kConvert:
      return "convert";
    case InstructionClass::kMove:
      return "move";
    case InstructionClass::kSpecialFunction:
      return "special function";
    case InstructionClass::kControl:
      return "control";
    case InstructionClass::kSync:
      return "sync";
    case InstructionClass::kLoad:
      return "load";
    case InstructionClass::kStore:
      return "store";
    case InstructionClass::kAtomic:
      return "atomic";
    case InstructionClass::kAsyncCopy:
      return "asynchronous copy";
    case InstructionClass::kLdmatrix:
      return "ldmatrix";
    case InstructionClass::kMma:
      return "mma";
    case InstructionClass::kCount:
      break;
  }
  return "?";
}

std::string Finding::to_string() const {
  char place[192];
  std::snprintf(place, sizeof place, ", block (%u,%u,%u), thread (%u,%u,%u), PTX line %d", block[0],
                block[1], block[2], thread[0], thread[1], thread[2], line);
  std::string all = std::string(name_of(kind)) + " in kernel " + kernel + place;
  if (source_line != 0) all += " (source line " + std::to_string(source_line) + ")";
  return all + ": " + text;
}

void Counters::add(const Counters& other) {
  warp_instructions += other.warp_instructions;
  thread_instructions += other.thread_instructions;
  for (size_t i = 0; i < warp_instructions_of.size(); ++i) {
    warp_instructions_of[i] += other.warp_instructions_of[i];
  }
  global_read_bytes += other.global_read_bytes;
  global_read_sectors += other.global_read_sectors;
  global_write_bytes += other.global_write_bytes;
  global_write_sectors += other.global_write_sectors;
  shared_wavefronts += other.shared_wavefronts;
  shared_ideal_wavefronts += other.shared_ideal_wavefronts;
  barriers += other.barriers;
  mma_multiply_adds += other.mma_multiply_adds;
  local_bytes += other.local_bytes;
}

}  // namespace ptx_simulator
