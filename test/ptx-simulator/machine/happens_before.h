// Which accesses to shared memory come before which: vector clocks of a block.
//
// Time is one counter of the block that every synchronisation advances. Each access leaves a record
// with the time at which it was made. Of every other warp a warp knows up to which time it has seen
// that warp's accesses (barriers hand this knowledge on), and of itself up to which time its lanes
// have seen each other's; bar.warp.sync of part of the lanes is kept in a matrix that only warps
// that use it have. Threads that have ended take part in no barrier. A record is ordered before an
// access if the accessing thread has seen its time.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <memory>

namespace ptx_simulator {

// Who touched something when, in 63 bits: the time on top, so that "made at or before time t" is
// one signed comparison, then warp, lane, three flags and the PTX line. 0 is "never, or long ago".
using Record = int64_t;

inline constexpr int kRecordTimeShift = 36;
inline constexpr int kRecordWarpShift = 31;
inline constexpr int kRecordLaneShift = 26;
// An atomic or a relaxed, acquire or release access: these do not race with each other.
inline constexpr Record kRecordAtomic = Record{1} << 25;
// Other lanes (of a read), or other threads (of an atomic), did the same at about that time, so
// that not even the thread of the record is ordered behind it without synchronisation.
inline constexpr Record kRecordSeveral = Record{1} << 24;
inline constexpr Record kRecordWrote = Record{1} << 23;  // not only read
inline constexpr Record kRecordLineMask = kRecordWrote - 1;
inline constexpr Record kRecordLaneMask = Record{31} << kRecordLaneShift;
inline constexpr Record kRecordWarpMask = Record{31} << kRecordWarpShift;
// There is room for 2^27; less is enough, and can be tested.
inline constexpr uint32_t kMostTime = uint32_t{1} << 19;

inline uint32_t time_of(Record r) { return static_cast<uint32_t>(r >> kRecordTimeShift); }
inline int warp_of(Record r) { return static_cast<int>(r >> kRecordWarpShift & 31); }
inline int lane_of(Record r) { return static_cast<int>(r >> kRecordLaneShift & 31); }
inline int line_of(Record r) { return static_cast<int>(r & kRecordLineMask); }
// Records made later than `time` are not below this.
inline Record record_limit(uint32_t time) { return (Record{time} + 1) << kRecordTimeShift; }

class HappensBefore {
 public:
  HappensBefore();

  // How many warps the block has, and lanes of each.
  void start(int threads);
  bool started() const { return threads_ != 0; }

  // The record of an access now, by lane 0.
  Record record(int warp, int line) {
    last_[warp] = time_;
    return Record{time_} << kRecordTimeShift | Record{warp} << kRecordWarpShift |
           (line & kRecordLineMask);
  }
  // All records up to this time are ordered before what the warp does now.
  uint32_t floor(int warp) const { return floor_[warp]; }
  // ... before what any warp does now: they can be forgotten.
  uint32_t common_floor() const { return common_floor_; }
  // Up to this time the lanes of a warp have all seen each other's accesses.
  uint32_t lanes_floor(int warp) const { return known_[warp][warp]; }
  bool lanes_differ(int warp) const { return lanes_[warp] != nullptr; }

  bool ordered(Record r, int warp, int lane) const {
    const int from = warp_of(r);
    if (time_of(r) <= known_[warp][from]) return true;
    if (from != warp) return false;
    if (lanes_differ(warp)) {
      return lane_of(r) == lane || time_of(r) <= (*lanes_[warp])[lane][lane_of(r)];
    }
    return lane_of(r) == lane && (r & kRecordSeveral) == 0;
  }

  void arrive(int barrier, int warp);
  void barrier(int barrier, uint32_t syncing);
  void warp_barrier(int warp, uint32_t lanes);
  void exit(int warp, uint32_t lanes);

  // Another block begins: whatever was recorded until now counts as long ago.
  void restart();
  // Time has run out: the owner forgets all records, and then calls forget().
  bool is_full() const { return time_ >= kMostTime; }
  void forget();

 private:
  using Times = std::array<uint32_t, 32>;
  using LaneMatrix = std::array<Times, 32>;  // [of lane][about lane]

  uint32_t existing_lanes(int warp) const;
  void update_floor(int warp);
  void update_common_floor();

  int threads_ = 0;
  int warps_ = 32;
  uint32_t time_ = 1;
  std::array<Times, 32> known_{};  // [of warp][about warp]
  Times floor_{};
  uint32_t common_floor_ = 0;
  std::array<uint32_t, 32> exited_{};  // lanes of each warp
  uint32_t ended_ = 0;                 // warps all of whose lanes have exited
  Times last_{};                       // when each warp made its last record
  std::array<Times, 16> arrived_{};    // by barrier: what those in bar.arrive knew
  std::array<std::unique_ptr<LaneMatrix>, 32> lanes_;
};

}  // namespace ptx_simulator
