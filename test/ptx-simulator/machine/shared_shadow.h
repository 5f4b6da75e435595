// The shadow of a block's shared memory: who touched each byte last, and which bytes were written.
//
// Records are kept for words of 4 bytes, four words (a row of 16 bytes, the unit of ldmatrix and
// cp.async) side by side, so that the common case, where all that lies in a row is long known to
// the accessing warp, is a few vector comparisons. A word of which parts are accessed gets records
// for each byte until everybody has synchronised.
//
// Of the accesses to a cell (word or byte) it keeps the last write and two reads, of different
// warps where there are such: the latest one and, at random, the one before it or an older one. A
// write that comes after a recorded access takes its place, since whoever synchronises with the
// write has synchronised with that, too. Only an atomic access that takes the place of a plain
// write hides it from other atomic accesses: then the write moves to the place of a read, with
// which they conflict just so.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "machine/happens_before.h"
#include "machine/shared_memory.h"
#include "machine/warp.h"

namespace ptx_simulator {

class SharedShadow {
 public:
  explicit SharedShadow(uint32_t size_bytes);

  void reset();
  HappensBefore& clocks() { return clocks_; }
  // After the clocks have advanced.
  void clocks_advanced();

  struct Access {
    Warp& warp;
    const Op& op;
    uint32_t mask;
    const uint32_t* addresses;
    int width;
    SharedMemory::Access kind;
    const uint8_t* values;
  };
  void access(const Access& access);

  // A cp.async: a write that leaves its words pending.
  void begin_copies(const Access& access);
  // The copy of one lane is complete: written now, by this lane of the warp.
  void complete_copy(int warp, int lane, int line, uint32_t address, int width);

 private:
  struct Row {
    Record write[4];
    Record read[4];
    Record older_read[4];  // of another warp
  };
  struct Cell {
    Record write, read, older_read;
  };
  // A cell in a row or of a byte.
  struct CellReference {
    Record& write;
    Record& read;
    Record& older_read;
  };
  // One access while it is worked on.
  struct Pass {
    const Access& access;
    int warp;
    Record limit;        // records below it are ordered for the whole warp
    Record lanes_limit;  // reads below it are ordered among the lanes
    Record record;       // of lane 0
    bool keep_older;     // an unordered older read stays, and the latest one gives way
    bool reported = false;
  };

  // Of a word: bits 0 to 3 are bytes that were written.
  static constexpr uint8_t kWritten = 0x0F;
  static constexpr uint8_t kSplit = 0x10;    // has records for each byte
  static constexpr uint8_t kPending = 0x20;  // a cp.async writes to it
  template <int kWords>
  static bool all_of(const uint8_t* state, uint8_t mask, uint8_t value);

  template <int kWords>
  void read_any(Pass& pass);
  template <int kWords>
  void read_broadcast(Pass& pass);
  template <int kWords, int kLanes>
  bool read(Pass& pass, uint32_t mask);
  template <int kWords, bool kCopy>
  void write_any(Pass& pass);
  template <int kWords, int kLanes, bool kCopy>
  void write(Pass& pass);
  void touch(Pass& pass, int lane, int width, bool copy);
  void touch_cell(Pass& pass, int lane, CellReference cell, uint32_t byte);
  bool same_instruction(Pass& pass, int lane, Record other, uint32_t byte);
  CellReference word(uint32_t index) {
    Row& row = rows_[index / 4];
    const uint32_t i = index % 4;
    return {row.write[i], row.read[i], row.older_read[i]};
  }
  void split(uint32_t index);
  void join(uint32_t index, Record write);
  void join_if_settled(uint32_t index);

  void report_race(Pass& pass, int lane, Record other, uint32_t byte);
  void report_pending(Pass& pass, int lane, uint32_t word_index);
  void report_unwritten(Pass& pass, int lane, uint32_t byte);

  HappensBefore clocks_;
  std::vector<Row> rows_;
  std::vector<uint8_t> states_;  // of words
  std::vector<uint32_t> parts_;  // of split words: an index into cells_
  std::vector<std::array<Cell, 4>> cells_;
  std::vector<uint32_t> free_cells_;
};

// "(33,0,0)"
std::string thread_name(const Warp& warp, int thread);

}  // namespace ptx_simulator
