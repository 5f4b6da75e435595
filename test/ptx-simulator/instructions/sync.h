// What sync.cc and barrier.cc share.
#pragma once

#include <cstdio>
#include <string>

#include "machine/decoder.h"
#include "machine/warp.h"

namespace ptx_simulator {

void decode_bar(Decoder& d);
void decode_barrier(Decoder& d);
void decode_warp_barrier(Decoder& d);  // behind "bar.warp"

inline void set_sync(Decoder& d, Execute execute) {
  d.op().execute = execute;
  d.op().kind = InstructionClass::kSync;
}

// The first operand is a result alone, or `result|predicate`.
inline void result_and_predicate(Decoder& d, Type type) {
  const Operand& both = d.operand(0);
  if (both.kind == Operand::Kind::kPair) {
    d.destination(both.parts[0], type);
    d.predicate_destination(both.parts[1]);
  } else {
    d.destination(0, type);
  }
}

inline void store_to_all(Warp& warp, Slot slot, uint32_t lanes, uint32_t value) {
  uint32_t* d = warp.lanes<uint32_t>(slot);
  for_each_lane(lanes, [&](int lane) { d[lane] = value; });
}

inline std::string hex(uint32_t lanes) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", lanes);
  return text;
}

}  // namespace ptx_simulator
