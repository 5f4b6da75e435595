// What the shadow of shared memory says when it finds something.
#include <string>

#include "machine/shared_shadow.h"

namespace ptx_simulator {

using Kind = SharedMemory::Access;

std::string thread_name(const Warp& warp, int thread) {
  const std::array<uint32_t, 3> t = warp.block.thread_index(thread);
  std::string text = "(";
  for (int i = 0; i < 3; ++i) text.append(i == 0 ? "" : ",").append(std::to_string(t[i]));
  return text += ")";
}

// Of each access of a warp the first finding is enough.

void SharedShadow::report_race(Pass& pass, int lane, Record other, uint32_t byte) {
  if (pass.reported) return;
  pass.reported = true;
  const Access& a = pass.access;
  const bool same_thread = warp_of(other) == pass.warp && lane_of(other) == lane;
  const char* did = (other & kRecordWrote) == 0    ? " read "
                    : (other & kRecordAtomic) != 0 ? " updated "
                                                   : " wrote ";
  const char* does = a.kind == Kind::kAtomic                                    ? " updates it"
                     : (a.kind == Kind::kWrite || a.kind == Kind::kStrongWrite) ? " writes it"
                                                                                : " reads it";
  a.warp.report(
      FindingKind::kSharedRace, a.op, lane,
      (same_thread ? std::string("another thread, and this one,")
                   : "thread " + thread_name(a.warp, warp_of(other) * kWarpSize + lane_of(other))) +
          did + "byte " + std::to_string(byte) + " of shared memory at PTX line " +
          std::to_string(line_of(other)) + "; thread " + thread_name(a.warp, a.warp.thread(lane)) +
          does + " at line " + std::to_string(a.op.line) +
          (warp_of(other) == pass.warp ? ", and no barrier or bar.warp.sync lies between"
                                       : ", and no barrier lies between"));
}

void SharedShadow::report_pending(Pass& pass, int lane, uint32_t word_index) {
  if (pass.reported) return;
  pass.reported = true;
  const Access& a = pass.access;
  const Record copy = word(word_index).write;
  const bool same_thread = warp_of(copy) == pass.warp && lane_of(copy) == lane;
  a.warp.report(
      FindingKind::kAsyncCopyRace, a.op, lane,
      "byte " + std::to_string(word_index * 4) +
          " of shared memory is the destination of the cp.async of " +
          (same_thread
               ? std::string("this thread")
               : "thread " + thread_name(a.warp, warp_of(copy) * kWarpSize + lane_of(copy))) +
          " at PTX line " + std::to_string(line_of(copy)) + ", which has not waited for it yet");
}

void SharedShadow::report_unwritten(Pass& pass, int lane, uint32_t byte) {
  if (pass.reported) return;
  pass.reported = true;
  const Access& a = pass.access;
  a.warp.report(FindingKind::kUninitialized, a.op, lane,
                "byte " + std::to_string(byte) + " of shared memory is read and was never written");
}

}  // namespace ptx_simulator
