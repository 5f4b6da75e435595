// A launch: its blocks are spread over host threads, several resident on each, and run in turns of
// random length.
//
// A GPU starts a block only when another has ended, once it is full. Here far fewer are resident at
// first, because that is faster; more come when those that are only wait (inter-block waiting:
// locks, counters, split reductions), up to what a GPU would hold. What then still does not end is
// a deadlock there, too.
#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

#include "machine/host_threads.h"
#include "machine/launch_state.h"
#include "machine/warp.h"

namespace ptx_simulator {

namespace {

// Of one multiprocessor of sm_80.
constexpr uint64_t kBlocksPerMultiprocessor = 32;
constexpr uint64_t kThreadsPerMultiprocessor = 2048;
constexpr uint64_t kSharedBytesPerMultiprocessor = 164 * 1024;
constexpr uint64_t kReservedSharedBytes = 1024;  // for each block

constexpr uint64_t kFirstResidents = 4;  // on each host thread, if the grid is large enough
// A host thread looks around after so many warp instructions.
constexpr uint64_t kCheckInterval = 1 << 14;
// Resident blocks get company when, for so many warp instructions of a host thread, none ended and
// they seemed to wait, or even seemed to work. Long enough for whole blocks that read much and
// write nothing until their end, so that these do not crowd the caches.
constexpr uint64_t kLongWait = 1 << 18;
constexpr uint64_t kLongWork = 1 << 26;
// Nobody does anything but wait for so long (or LaunchOptions says less): it is a deadlock, though
// the launch may work without an end of a block for far longer.
constexpr uint64_t kEndlessWait = 200 * 1000 * 1000;
constexpr int kLongestTurn = 256;  // warp instructions

uint64_t resident_on_gpu(const LaunchContext& context) {
  const uint64_t threads = uint64_t{context.block[0]} * context.block[1] * context.block[2];
  const uint64_t warp_threads = (threads + kWarpSize - 1) / kWarpSize * kWarpSize;
  const uint64_t blocks =
      std::min({kBlocksPerMultiprocessor, kThreadsPerMultiprocessor / warp_threads,
                kSharedBytesPerMultiprocessor / (context.shared_bytes + kReservedSharedBytes)});
  return std::max<uint64_t>(blocks, 1) * static_cast<uint64_t>(context.multiprocessors);
}

class Random {  // xorshift64*
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 + 0x2545f4914f6cdd1d) {
    if (state_ == 0) state_ = 1;
  }
  uint64_t operator()() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1d >> 16;  // the low bits are the weak ones
  }

 private:
  uint64_t state_;
};

class Launch {
 public:
  Launch(const LaunchContext& launch_context, const LaunchOptions& launch_options, int host_threads)
      : context(launch_context),
        options(launch_options),
        seed(launch_options.seed ^ (launch_context.seed << 32)),
        blocks(uint64_t{context.grid[0]} * context.grid[1] * context.grid[2]),
        most_residents(resident_on_gpu(context)),
        first_residents(std::clamp<uint64_t>(blocks / host_threads, 1, kFirstResidents)) {}

  void work();  // of one host thread
  LaunchReport report();

  const LaunchContext& context;
  const LaunchOptions& options;
  const uint64_t seed;
  const uint64_t blocks;
  const uint64_t most_residents;
  const uint64_t first_residents;
  LaunchState state;
  std::atomic<uint64_t> next_block = 0;
  std::atomic<uint64_t> residents = 0;
  std::atomic<uint64_t> ended = 0;         // blocks
  std::atomic<uint64_t> without_end = 0;   // warp instructions since a block ended,
  std::atomic<uint64_t> without_work = 0;  // or since one did anything but wait
  std::atomic<int> workers = 0;
  std::atomic<bool> endless = false;
  std::mutex mutex;
  Counters counters;
  std::exception_ptr error;
};

// The part of one host thread.
class Worker {
 public:
  Worker(Launch& launch, int number)
      : launch_(launch),
        random_(launch.seed + static_cast<uint64_t>(number)),
        target_(launch.first_residents) {}
  ~Worker() { launch_.residents -= resident_.size(); }

  void run() {
    admit();
    while (!resident_.empty() && !launch_.state.stopped()) {
      const uint64_t random = random_();
      const size_t chosen = (random & 0xffff) % resident_.size();
      Block& block = *resident_[chosen];
      // Turns of 1, 2, 4, ... instructions, and in between: short ones interleave, long ones make
      // one warp run far ahead.
      const int longest =
          1 << (random >> 16 & 0xff) % (std::countr_zero(unsigned{kLongestTurn}) + 1);
      const int steps = 1 + static_cast<int>(random >> 24 & 0xff) % longest;
      const uint64_t executed = static_cast<uint64_t>(block.run(random >> 32, steps));
      clock_ += executed;
      unchecked_ += executed;
      if (block.ended()) {
        retire(chosen);
        admit();
      } else if (unchecked_ >= interval()) {
        check();
      }
    }
    if (launch_.endless) {
      for (const auto& block : resident_) block->report_endless();
    }
    for (const auto& block : resident_) counters_.add(block->counters);
    std::lock_guard lock(launch_.mutex);
    launch_.counters.add(counters_);
  }

 private:
  uint64_t interval() const {
    return std::min(kCheckInterval, launch_.options.most_warp_instructions / 8 + 1);
  }

  void admit() {
    while (resident_.size() < target_ && launch_.next_block < launch_.blocks) {
      if (launch_.residents.fetch_add(1) >= launch_.most_residents) {
        --launch_.residents;
        return;
      }
      const uint64_t index = launch_.next_block.fetch_add(1);
      if (index >= launch_.blocks) {
        --launch_.residents;
        return;
      }
      std::unique_ptr<Block> block;
      if (idle_ != nullptr) {
        block = std::move(idle_);
      } else {
        block = std::make_unique<Block>(launch_.context, launch_.state, clock_);
      }
      block->start(index, launch_.seed);
      resident_.push_back(std::move(block));
    }
  }

  void retire(size_t index) {
    counters_.add(resident_[index]->counters);
    resident_[index]->counters = {};
    idle_ = std::move(resident_[index]);
    resident_[index] = std::move(resident_.back());
    resident_.pop_back();
    --launch_.residents;
    ++launch_.ended;
  }

  // Looks for deadlocks, and admits more blocks if those here only wait.
  void check() {
    const uint64_t ended = launch_.ended;
    uint64_t work = 0;
    for (const auto& block : resident_) work += work_of(block->counters);
    if (ended != seen_ended_) {
      seen_ended_ = ended;
      launch_.without_end = launch_.without_work = 0;
      without_end_ = without_work_ = 0;
    } else if (work != seen_work_) {
      launch_.without_work = 0;
      without_work_ = 0;
    }
    seen_work_ = work;
    without_end_ += unchecked_;
    without_work_ += unchecked_;
    const uint64_t all_without_end = launch_.without_end += unchecked_;
    const uint64_t all_without_work = launch_.without_work += unchecked_;
    unchecked_ = 0;

    const uint64_t most = launch_.options.most_warp_instructions;
    if (all_without_end > most || all_without_work > std::min(most, kEndlessWait)) {
      launch_.endless = true;
      launch_.state.stop();
    } else if (without_work_ > kLongWait || without_end_ > kLongWork) {
      without_end_ = without_work_ = 0;
      target_ = std::max<uint64_t>(target_, resident_.size()) * 2;
      admit();
      target_ = std::max<uint64_t>(resident_.size(), launch_.first_residents);
    }
  }

  // Grows while a block does anything but wait. Waiting takes loads, arithmetic and atomics.
  static uint64_t work_of(const Counters& c) {
    const auto count = [&](InstructionClass kind) {
      return c.warp_instructions_of[static_cast<size_t>(kind)];
    };
    return count(InstructionClass::kStore) + count(InstructionClass::kMma) +
           count(InstructionClass::kAsyncCopy) + c.barriers;
  }

  Launch& launch_;
  Random random_;
  uint64_t target_;  // resident blocks
  uint64_t clock_ = 0;
  std::vector<std::unique_ptr<Block>> resident_;
  std::unique_ptr<Block> idle_;  // the last that ended, whose storage the next one takes
  Counters counters_;            // of blocks that ended
  uint64_t unchecked_ = 0;       // warp instructions since the last check
  uint64_t without_end_ = 0;     // as in Launch, but here, or since more blocks were admitted
  uint64_t without_work_ = 0;
  uint64_t seen_ended_ = 0;
  uint64_t seen_work_ = 0;
};

void Launch::work() {
  try {
    Worker(*this, workers.fetch_add(1)).run();
  } catch (...) {
    state.stop();
    std::lock_guard lock(mutex);
    if (error == nullptr) error = std::current_exception();
  }
}

LaunchReport Launch::report() {
  if (error != nullptr) std::rethrow_exception(error);
  LaunchReport report;
  report.kernel = context.program->name;
  report.grid = context.grid;
  report.block = context.block;
  report.dynamic_shared_bytes = context.shared_bytes - context.program->static_shared_bytes;
  report.counters = counters;
  report.findings = state.take_findings();
  report.stopped = state.stopped();
  return report;
}

}  // namespace

LaunchReport run(const LaunchContext& context, const LaunchOptions& options) {
  const uint64_t blocks = uint64_t{context.grid[0]} * context.grid[1] * context.grid[2];
  const uint64_t size = uint64_t{context.block[0]} * context.block[1] * context.block[2];
  if (blocks == 0 || size == 0 || size > kMostWarps * kWarpSize) {
    throw std::invalid_argument("a launch of " + std::to_string(blocks) + " blocks of " +
                                std::to_string(size) + " threads");
  }
  int threads = options.host_threads;
  if (threads <= 0) threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  threads = static_cast<int>(std::clamp<uint64_t>(blocks, 1, threads));
  Launch launch(context, options, threads);
  HostThreads::instance().run(threads - 1, [&] { launch.work(); });
  return launch.report();
}

}  // namespace ptx_simulator
