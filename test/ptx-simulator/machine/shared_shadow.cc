#include "machine/shared_shadow.h"

#include <algorithm>
#include <cstring>

namespace ptx_simulator {

using Kind = SharedMemory::Access;

namespace {

bool is_write(Kind kind) { return kind != Kind::kRead && kind != Kind::kStrongRead; }
bool is_read(Kind kind) {
  return kind == Kind::kRead || kind == Kind::kStrongRead || kind == Kind::kAtomic;
}
bool is_strong(Kind kind) { return kind != Kind::kRead && kind != Kind::kWrite; }

Record of_lane(Record of_lane_0, int lane) { return of_lane_0 | Record{lane} << kRecordLaneShift; }
bool same_warp(Record a, Record b) { return ((a ^ b) & kRecordWarpMask) == 0; }

}  // namespace

SharedShadow::SharedShadow(uint32_t size_bytes)
    : rows_((size_bytes + 15) / 16), states_(rows_.size() * 4), parts_(rows_.size() * 4) {}

void SharedShadow::reset() {
  clocks_.restart();
  clocks_advanced();
  std::fill(states_.begin(), states_.end(), 0);
  cells_.clear();
  free_cells_.clear();
}

void SharedShadow::clocks_advanced() {
  if (!clocks_.is_full()) return;
  std::fill(rows_.begin(), rows_.end(), Row{});
  std::fill(cells_.begin(), cells_.end(), std::array<Cell, 4>{});
  clocks_.forget();
}

template <int kWords>
inline bool SharedShadow::all_of(const uint8_t* state, uint8_t mask, uint8_t value) {
  uint32_t states = 0;
  std::memcpy(&states, state, kWords);
  constexpr uint32_t kOnes = kWords == 4 ? 0x01010101u : kWords == 2 ? 0x0101u : 1u;
  return (states & (kOnes * mask)) == kOnes * value;
}

void SharedShadow::complete_copy(int warp, int lane, int line, uint32_t address, int width) {
  const Record record = of_lane(clocks_.record(warp, line), lane) | kRecordWrote;
  for (uint32_t index = address / 4; index < (address + width) / 4; ++index) {
    word(index).write = record;
    states_[index] = static_cast<uint8_t>((states_[index] | kWritten) & ~kPending);
  }
}

// The fast paths: everything in the row is ordered before this warp's accesses, or was done by the
// same thread. The words of an access are worked on together, as vectors; comparisons give masks.

template <int kWords>
struct WordsOf {
  typedef Record type __attribute__((vector_size(kWords * sizeof(Record))));
};
template <>
struct WordsOf<1> {
  using type = Record;
};
template <int kWords>
using Words = typename WordsOf<kWords>::type;

inline Record below(Record a, Record b) { return -static_cast<Record>(a < b); }
inline Record zero(Record a) { return -static_cast<Record>(a == 0); }
inline bool any(Record a) { return a != 0; }
template <class Vector>
inline Vector below(Vector a, Record b) {
  return a < b;
}
template <class Vector>
inline Vector zero(Vector a) {
  return a == 0;
}
template <class Vector>
inline bool any(Vector a) {
  Record all = 0;
  for (size_t i = 0; i < sizeof(Vector) / sizeof(Record); ++i) all |= a[i];
  return all != 0;
}
template <int kWords>
inline Words<kWords> load(const Record* from) {
  Words<kWords> words;
  std::memcpy(&words, from, sizeof words);
  return words;
}

// Of another thread, or of several: what a record below the limit may be, and others not.
constexpr Record kOtherThread = kRecordWarpMask | kRecordLaneMask | kRecordSeveral;

// The record of a lane, or of each word of neighbouring lanes.
template <int kWords, int kLanes>
inline auto records_of(Record of_lane_0, int lane) {
  if constexpr (kLanes == 1) {
    return of_lane(of_lane_0, lane);
  } else {
    Words<kWords * kLanes> records{};
    for (int i = 0; i < kWords * kLanes; ++i) records[i] = Record{i / kWords} << kRecordLaneShift;
    return records | of_lane(of_lane_0, lane);
  }
}

// Each lane has kWords words; of kLanes lanes they lie side by side, if that is not 1.
template <int kLanes, class Body>
inline void for_each_group(uint32_t mask, Body body) {
  if constexpr (kLanes == 1) {
    for_each_lane(mask, body);
  } else {
    for (int lane = 0; lane < kWarpSize; lane += kLanes) body(lane);
  }
}

// False if it was left to the slow path, for all lanes of the access.
template <int kWords, int kLanes>
bool SharedShadow::read(Pass& pass, uint32_t mask) {
  using W = Words<kWords * kLanes>;
  // Copies that the compiler knows no store to change.
  const Record limit = pass.limit, lanes_limit = pass.lanes_limit, record = pass.record;
  Row* const rows = rows_.data();
  const uint8_t* const states = states_.data();
  const uint32_t* const addresses = pass.access.addresses;
  W slow{};
  bool other_state = false;
  for_each_group<kLanes>(mask, [&](int lane) {
    const uint32_t word = addresses[lane] / 4;
    const W write = load<kWords * kLanes>(&rows[word / 4].write[word % 4]);
    slow |= ~below(write, limit) &
            ~zero((write ^ records_of<kWords, kLanes>(record, lane)) & kOtherThread);
    other_state |= !all_of<kWords * kLanes>(&states[word], kWritten | kSplit | kPending, kWritten);
  });
  if (other_state || any(slow)) [[unlikely]] {
    for_each_lane(pass.access.mask, [&](int lane) { touch(pass, lane, pass.access.width, false); });
    return false;
  }
  const Record keep_limit = pass.keep_older ? limit : INT64_MAX;
  for_each_group<kLanes>(mask, [&](int lane) {
    const uint32_t word = addresses[lane] / 4;
    Row& row = rows[word / 4];
    const W last = load<kWords * kLanes>(&row.read[word % 4]);
    const W older = load<kWords * kLanes>(&row.older_read[word % 4]);
    const auto me = records_of<kWords, kLanes>(record, lane);
    const W mine = zero((last ^ me) & kRecordWarpMask);
    const W replace = below(last, limit) | mine | ~below(older, keep_limit);
    const W next_older = (replace & older) | (~replace & last);
    const W other_lanes = ~zero((last ^ me) & (kRecordLaneMask | kRecordSeveral));
    const W several = mine & ~below(last, lanes_limit) & other_lanes & kRecordSeveral;
    const W next = several | me;
    std::memcpy(&row.older_read[word % 4], &next_older, sizeof next_older);
    std::memcpy(&row.read[word % 4], &next, sizeof next);
  });
  return true;
}

// In order of the lanes, so that a later one meets the records of an earlier one.
template <int kWords, int kLanes, bool kCopy>
void SharedShadow::write(Pass& pass) {
  using W = Words<kWords * kLanes>;
  const Record limit = pass.limit, record = pass.record;
  Row* const rows = rows_.data();
  uint8_t* const states = states_.data();
  for_each_group<kLanes>(pass.access.mask, [&](int lane) {
    const uint32_t word = pass.access.addresses[lane] / 4;
    Row& row = rows[word / 4];
    const auto me = records_of<kWords, kLanes>(record, lane);
    const W write = load<kWords * kLanes>(&row.write[word % 4]);
    const W read = load<kWords * kLanes>(&row.read[word % 4]);
    const W older = load<kWords * kLanes>(&row.older_read[word % 4]);
    const W slow = (~below(write, limit) & ~zero((write ^ me) & kOtherThread)) |
                   (~below(read, limit) & ~zero((read ^ me) & kOtherThread)) |
                   (~below(older, limit) & ~zero((older ^ me) & kOtherThread));
    uint8_t* state = &states[word];
    if (any(slow) || !all_of<kWords * kLanes>(state, kSplit | kPending, 0)) [[unlikely]] {
      for (int i = 0; i < kLanes; ++i) touch(pass, lane + i, pass.access.width, kCopy);
      return;
    }
    const W now = W{} | me;
    std::memcpy(&row.write[word % 4], &now, sizeof now);
    for (int i = 0; i < kWords * kLanes; ++i) {
      state[i] = kCopy ? static_cast<uint8_t>(state[i] | kPending) : kWritten;
    }
  });
}

namespace {

// Whether all lanes are active and each 16 / width of them share an aligned row, in order.
bool fills_rows(uint32_t mask, const uint32_t* addresses, uint32_t width) {
  if (mask != UINT32_MAX) return false;
  const uint32_t lanes = 16 / width;
  uint32_t wrong = 0;
  for (uint32_t lane = 0; lane < kWarpSize; ++lane) {
    const uint32_t first = addresses[lane & ~(lanes - 1)];
    wrong |= (first % 16) | (addresses[lane] ^ (first + width * (lane & (lanes - 1))));
  }
  return wrong == 0;
}

// Whether all active lanes have one address.
bool is_broadcast(uint32_t mask, const uint32_t* addresses) {
  const uint32_t first = addresses[std::countr_zero(mask)];
  uint32_t wrong = 0;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    wrong |= (addresses[lane] ^ first) & -(mask >> lane & 1);
  }
  return wrong == 0;
}

}  // namespace

// All lanes read the same: it is recorded for one of them, once as if for another before it.
template <int kWords>
void SharedShadow::read_broadcast(Pass& pass) {
  const uint32_t last = std::bit_floor(pass.access.mask);
  const uint32_t others = pass.access.mask & ~last;
  if (others != 0 && !read<kWords, 1>(pass, std::bit_floor(others))) return;
  read<kWords, 1>(pass, last);
}

template <int kWords>
void SharedShadow::read_any(Pass& pass) {
  const uint32_t mask = pass.access.mask;
  const uint32_t* addresses = pass.access.addresses;
  if (is_broadcast(mask, addresses)) return read_broadcast<kWords>(pass);
  if (kWords < 4 && fills_rows(mask, addresses, 4 * kWords)) {
    read<kWords, 4 / kWords>(pass, mask);
  } else {
    read<kWords, 1>(pass, mask);
  }
}

template <int kWords, bool kCopy>
void SharedShadow::write_any(Pass& pass) {
  if (kWords < 4 && fills_rows(pass.access.mask, pass.access.addresses, 4 * kWords)) {
    return write<kWords, 4 / kWords, kCopy>(pass);
  }
  write<kWords, 1, kCopy>(pass);
}

void SharedShadow::access(const Access& access) {
  const int warp = access.warp.index;
  Record record = clocks_.record(warp, access.op.line);
  if (is_strong(access.kind)) record |= kRecordAtomic;
  if (is_write(access.kind)) record |= kRecordWrote;
  Pass pass{access,
            warp,
            record_limit(clocks_.floor(warp)),
            clocks_.lanes_differ(warp) ? INT64_MAX : record_limit(clocks_.lanes_floor(warp)),
            record,
            (access.warp.random() >> 16 & 1) != 0};
  if (access.kind == Kind::kRead && access.width >= 4) {
    if (access.width == 16) return read_any<4>(pass);
    return access.width == 8 ? read_any<2>(pass) : read_any<1>(pass);
  }
  if (access.kind == Kind::kWrite && access.width >= 4) {
    if (access.width == 16) return write_any<4, false>(pass);
    return access.width == 8 ? write_any<2, false>(pass) : write_any<1, false>(pass);
  }
  for_each_lane(access.mask, [&](int lane) { touch(pass, lane, access.width, false); });
}

void SharedShadow::begin_copies(const Access& access) {
  const int warp = access.warp.index;
  Pass pass{access,
            warp,
            record_limit(clocks_.floor(warp)),
            INT64_MAX,
            clocks_.record(warp, access.op.line) | kRecordWrote,
            false};
  if (access.width == 16) return write_any<4, true>(pass);
  return access.width == 8 ? write_any<2, true>(pass) : write_any<1, true>(pass);
}

// The slow path: word by word, and byte by byte where parts of words are accessed.
void SharedShadow::touch(Pass& pass, int lane, int width, bool copy) {
  const uint32_t begin = pass.access.addresses[lane];
  const uint32_t end = begin + width;
  for (uint32_t index = begin / 4; index * 4 < end; ++index) {
    uint8_t& state = states_[index];
    if ((state & kPending) != 0) {
      report_pending(pass, lane, index);
      continue;
    }
    const uint32_t first_byte = std::max(begin, index * 4) % 4;
    const uint32_t last_byte = (std::min(end, index * 4 + 4) - 1) % 4;
    const auto bytes = static_cast<uint8_t>((2u << last_byte) - (1u << first_byte));
    if (is_read(pass.access.kind) && (state & bytes) != bytes) {
      report_unwritten(pass, lane, index * 4 + std::countr_zero<uint32_t>(bytes & ~state));
    }
    if ((state & kSplit) != 0) join_if_settled(index);
    if ((state & kSplit) == 0 && bytes != kWritten) split(index);
    if ((state & kSplit) == 0) {
      touch_cell(pass, lane, word(index), index * 4);
    } else {
      for (uint32_t b = first_byte; b <= last_byte; ++b) {
        Cell& cell = cells_[parts_[index]][b];
        touch_cell(pass, lane, {cell.write, cell.read, cell.older_read}, index * 4 + b);
      }
      // A write of all of the word takes the place of all records, which it was compared with.
      if (bytes == kWritten && pass.access.kind == Kind::kWrite) {
        join(index, of_lane(pass.record, lane));
      }
    }
    if (copy) {
      state |= kPending;
    } else if (is_write(pass.access.kind)) {
      state |= bytes;
    }
  }
}

void SharedShadow::touch_cell(Pass& pass, int lane, CellReference cell, uint32_t byte) {
  const Kind kind = pass.access.kind;
  const Record me = of_lane(pass.record, lane);
  const auto conflicts = [&](Record other) {
    return other >= pass.limit && !(is_strong(kind) && (other & kRecordAtomic) != 0) &&
           !clocks_.ordered(other, pass.warp, lane);
  };
  if (conflicts(cell.write) && !same_instruction(pass, lane, cell.write, byte)) {
    report_race(pass, lane, cell.write, byte);
  }
  if (!is_write(kind)) {
    const bool mine = same_warp(cell.read, me);
    const bool several = mine && cell.read >= pass.lanes_limit &&
                         (lane_of(cell.read) != lane || (cell.read & kRecordSeveral) != 0);
    if (!mine && cell.read >= pass.limit && !(pass.keep_older && cell.older_read >= pass.limit)) {
      cell.older_read = cell.read;
    }
    cell.read = several ? me | kRecordSeveral : me;
    return;
  }
  if (conflicts(cell.read)) {
    report_race(pass, lane, cell.read, byte);
  } else if (conflicts(cell.older_read)) {
    report_race(pass, lane, cell.older_read, byte);
  }
  const bool hides_plain_write = is_strong(kind) && (cell.write & kRecordAtomic) == 0 &&
                                 cell.write >= record_limit(clocks_.common_floor());
  if (hides_plain_write) {
    (cell.older_read >= pass.limit && cell.read < pass.limit ? cell.read : cell.older_read) =
        cell.write;
  }
  // An atomic operation that takes the place of another thread's stands for both.
  const bool several = is_strong(kind) && cell.write >= pass.limit &&
                       (cell.write & kRecordAtomic) != 0 &&
                       ((cell.write & kRecordSeveral) != 0 || warp_of(cell.write) != pass.warp ||
                        lane_of(cell.write) != lane) &&
                       !clocks_.ordered(cell.write, pass.warp, lane);
  cell.write = several ? me | kRecordSeveral : me;
}

// Whether `other` is a write of an earlier lane of this very instruction, in which case it is a
// race only if the values differ.
bool SharedShadow::same_instruction(Pass& pass, int lane, Record other, uint32_t byte) {
  const Access& a = pass.access;
  const int earlier = lane_of(other);
  if (a.kind != Kind::kWrite || a.values == nullptr || !same_warp(other, pass.record) ||
      time_of(other) != time_of(pass.record) || line_of(other) != line_of(pass.record) ||
      earlier >= lane || (a.mask >> earlier & 1) == 0 || byte < a.addresses[earlier] ||
      byte >= a.addresses[earlier] + a.width) {
    return false;
  }
  // Of a whole word, all bytes have to agree.
  const uint32_t end = std::min({a.addresses[earlier] + a.width, a.addresses[lane] + a.width,
                                 a.width >= 4 ? byte + 4 : byte + 1});
  for (uint32_t at = byte; at < end; ++at) {
    if (a.values[earlier * a.width + (at - a.addresses[earlier])] !=
        a.values[lane * a.width + (at - a.addresses[lane])]) {
      if (!pass.reported) {
        pass.reported = true;
        a.warp.report(FindingKind::kSharedRace, a.op, lane,
                      "threads " + thread_name(a.warp, a.warp.thread(earlier)) + " and " +
                          thread_name(a.warp, a.warp.thread(lane)) +
                          " write different values to byte " + std::to_string(at) +
                          " of shared memory in the same instruction");
      }
      break;
    }
  }
  return true;
}

void SharedShadow::split(uint32_t index) {
  if (free_cells_.empty()) {
    free_cells_.push_back(static_cast<uint32_t>(cells_.size()));
    cells_.emplace_back();
  }
  parts_[index] = free_cells_.back();
  free_cells_.pop_back();
  const CellReference w = word(index);
  cells_[parts_[index]].fill({w.write, w.read, w.older_read});
  states_[index] |= kSplit;
}

// Back to records of the word.
void SharedShadow::join(uint32_t index, Record write) {
  const CellReference w = word(index);
  w.write = write;
  w.read = w.older_read = 0;
  free_cells_.push_back(parts_[index]);
  states_[index] &= static_cast<uint8_t>(~kSplit);
}

void SharedShadow::join_if_settled(uint32_t index) {
  const Record limit = record_limit(clocks_.common_floor());
  for (const Cell& cell : cells_[parts_[index]]) {
    if (cell.write >= limit || cell.read >= limit || cell.older_read >= limit) return;
  }
  join(index, 0);
}

}  // namespace ptx_simulator
