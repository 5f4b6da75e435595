#include "machine/liveness.h"

#include <algorithm>
#include <bit>

namespace ptx_simulator {
namespace {

constexpr size_t kWordBits = 64;

using Bits = std::vector<uint64_t>;

void set(Bits& bits, size_t index) { bits[index / kWordBits] |= uint64_t{1} << index % kWordBits; }
void clear(Bits& bits, size_t index) {
  bits[index / kWordBits] &= ~(uint64_t{1} << index % kWordBits);
}

// From what is live behind an op to what is live before it.
void step_back(const RegisterUse& op, Bits& live) {
  if (op.always_writes) {
    for (const uint32_t reg : op.writes) clear(live, reg);
  }
  for (const uint32_t reg : op.reads) set(live, reg);
}

// Ops that follow each other without a jump in or out.
struct Block {
  size_t begin;
  size_t end;
  Bits live_in;
};

std::vector<Block> blocks_of(const std::vector<RegisterUse>& ops, size_t words) {
  std::vector<bool> begins(ops.size() + 1);
  begins[0] = true;
  for (size_t i = 0; i < ops.size(); ++i) {
    const std::vector<int32_t>& next = ops[i].successors;
    if (next.size() == 1 && static_cast<size_t>(next[0]) == i + 1) continue;
    begins[i + 1] = true;
    for (const int32_t successor : next) begins[static_cast<size_t>(successor)] = true;
  }
  std::vector<Block> blocks;
  for (size_t i = 0; i < ops.size(); ++i) {
    if (begins[i]) blocks.push_back({i, i, Bits(words)});
    blocks.back().end = i + 1;
  }
  return blocks;
}

}  // namespace

Liveness::Liveness(const std::vector<RegisterUse>& ops, size_t registers)
    : ops_(ops.size()), lives_(registers) {
  const size_t words = (registers + kWordBits - 1) / kWordBits;
  std::vector<Block> blocks = blocks_of(ops, words);
  std::vector<size_t> block_at(ops.size());
  for (size_t b = 0; b < blocks.size(); ++b) block_at[blocks[b].begin] = b;

  const auto live_out = [&](const Block& block) {
    Bits live(words);
    for (const int32_t successor : ops[block.end - 1].successors) {
      const Bits& in = blocks[block_at[static_cast<size_t>(successor)]].live_in;
      for (size_t w = 0; w < words; ++w) live[w] |= in[w];
    }
    return live;
  };
  // Backwards, as values flow; loops take another round for each level.
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t b = blocks.size(); b-- > 0;) {
      Bits live = live_out(blocks[b]);
      for (size_t i = blocks[b].end; i-- > blocks[b].begin;) step_back(ops[i], live);
      if (live == blocks[b].live_in) continue;
      blocks[b].live_in = std::move(live);
      changed = true;
    }
  }
  // In ascending order, so that lives grow at their end only.
  std::vector<Bits> before;
  for (const Block& block : blocks) {
    before.assign(block.end - block.begin, Bits());
    Bits live = live_out(block);
    for (size_t i = block.end; i-- > block.begin;) {
      step_back(ops[i], live);
      before[i - block.begin] = live;
    }
    for (size_t i = block.begin; i < block.end; ++i) {
      const Bits& here = before[i - block.begin];
      for (size_t w = 0; w < words; ++w) {
        for (uint64_t rest = here[w]; rest != 0; rest &= rest - 1) {
          add(w * kWordBits + static_cast<size_t>(std::countr_zero(rest)), i);
        }
      }
      for (const uint32_t reg : ops[i].writes) add(reg, i);
    }
  }
}

void Liveness::add(size_t reg, size_t op) {
  Life& life = lives_[reg];
  const size_t word = op / kWordBits;
  if (life.begin == life.end) life.begin = life.end = word;
  if (word >= life.end) {
    life.end = word + 1;
    life.bits.resize(life.end - life.begin);
  }
  life.bits[word - life.begin] |= uint64_t{1} << op % kWordBits;
}

// First come, first served: in the order of their first ops, each takes the first place that is
// free wherever it lives. So the few lowest places are used most.
size_t Liveness::share(const std::vector<uint32_t>& chosen, std::vector<uint32_t>& places) const {
  const size_t words = (ops_ + kWordBits - 1) / kWordBits;
  const auto first_op = [&](uint32_t reg) {
    const Life& life = lives_[reg];
    return life.begin * kWordBits +
           (life.bits.empty() ? 0 : static_cast<size_t>(std::countr_zero(life.bits.front())));
  };
  std::vector<uint32_t> order = chosen;
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return first_op(a) < first_op(b); });
  std::vector<Bits> taken;
  for (const uint32_t reg : order) {
    const Life& life = lives_[reg];
    const auto is_free = [&](const Bits& place) {
      for (size_t w = 0; w < life.bits.size(); ++w) {
        if ((place[life.begin + w] & life.bits[w]) != 0) return false;
      }
      return true;
    };
    const auto found = std::find_if(taken.begin(), taken.end(), is_free);
    places[reg] = static_cast<uint32_t>(found - taken.begin());
    if (found == taken.end()) taken.emplace_back(words);
    Bits& place = taken[places[reg]];
    for (size_t w = 0; w < life.bits.size(); ++w) place[life.begin + w] |= life.bits[w];
  }
  return taken.size();
}

}  // namespace ptx_simulator
