// mma.sync: the tensor cores, D[16][8] = A[16][K] * B[K][8] + C[16][8].
//
// All layouts of PTX follow from one fact. Taken over the 32 lanes, a register of A or B is a tile
// of 8 rows: lane / 4 is the row (of A: m, of B: n), and the four lanes of a row hold its elements
// one after the other along k. A has two tiles on top of each other, then the next two along k; B
// has its tiles along k. C and D are two tiles of 8 x 8 on top of each other, of which each lane
// holds two neighbours.
//
// Products are exact. In which order, and with how many bits, a tensor core adds them is not
// specified: LaunchContext::accumulation_order chooses one of the orders below. It stays the same
// for all launches on a device, since real tensor cores give equal bits for equal operands, which
// programs may rely on; tests run under several. All of them keep within
//   |d - exact| <= 2 K 2^-23 (|c| + sum |a b|)
// where one addend in a block of n that is cut off k bits below the largest one loses 2^-(23+k) of
// it, n + 1 times a block, and one more bit is lost when the sum is cut.
#include <algorithm>
#include <cstring>

#include "instructions/half.h"
#include "machine/decoder.h"
#include "machine/warp.h"

namespace ptx_simulator {
namespace {

enum class Element : uint8_t { kF16, kBf16, kTf32, kS8, kU8, kS4, kU4 };

constexpr int bits_of(Element element) {
  switch (element) {
    case Element::kTf32:
      return 32;
    case Element::kF16:
    case Element::kBf16:
      return 16;
    case Element::kS8:
    case Element::kU8:
      return 8;
    default:
      return 4;
  }
}
// Elements along k of a tile.
constexpr int width_of(Element element) { return 4 * 32 / bits_of(element); }

// One row of a tile, the registers of four lanes, as numbers. All of them are exact in f32; so are
// the sums of integer products (64 * 8 * 8 and 32 * 255 * 255 are below 2^24).
template <Element kElement>
inline void unpack_row(const uint32_t* lanes, float* row) {
  if constexpr (kElement == Element::kF16) {
    uint16_t halves[8];
    std::memcpy(halves, lanes, sizeof(halves));
    for (int i = 0; i < 8; ++i) row[i] = F16::value(halves[i]);
  } else if constexpr (kElement == Element::kBf16) {
    uint32_t bits[8];
    for (int i = 0; i < 4; ++i) {
      bits[2 * i] = lanes[i] << 16;
      bits[2 * i + 1] = lanes[i] & 0xFFFF0000u;
    }
    std::memcpy(row, bits, sizeof(bits));
  } else if constexpr (kElement == Element::kTf32) {
    uint32_t bits[4];  // the unit does not look at the low 13 bits
    for (int i = 0; i < 4; ++i) bits[i] = lanes[i] & ~0x1FFFu;
    std::memcpy(row, bits, sizeof(bits));
  } else if constexpr (kElement == Element::kS8 || kElement == Element::kU8) {
    using Byte = std::conditional_t<kElement == Element::kS8, int8_t, uint8_t>;
    Byte bytes[16];
    std::memcpy(bytes, lanes, sizeof(bytes));
    for (int i = 0; i < 16; ++i) row[i] = bytes[i];
  } else {
    uint8_t bytes[16];
    std::memcpy(bytes, lanes, sizeof(bytes));
    for (int i = 0; i < 32; ++i) {
      const int value = (bytes[i / 2] >> (4 * (i % 2))) & 15;
      row[i] = kElement == Element::kS4 ? (value ^ 8) - 8 : value;
    }
  }
}

// Eight neighbours in a row of D; also accessed as floats.
using Row = float __attribute__((vector_size(32), may_alias));
using IntegerRow = int32_t __attribute__((vector_size(32)));
using UnsignedRow = uint32_t __attribute__((vector_size(32)));

inline IntegerRow bits_of(Row row) {
  IntegerRow bits;
  std::memcpy(&bits, &row, sizeof(bits));
  return bits;
}
inline Row from_bits(IntegerRow bits) {
  Row row;
  std::memcpy(&row, &bits, sizeof(row));
  return row;
}
inline bool any(IntegerRow row) {
  uint64_t words[4];
  std::memcpy(words, &row, sizeof(words));
  return (words[0] | words[1] | words[2] | words[3]) != 0;
}

// --- orders of accumulation: c + sum of a[k] * b[k] ---

// One after the other, each sum rounded to nearest.
template <int kDepth>
inline Row add_in_sequence(const float* a, const Row* b, Row c) {
  for (int k = 0; k < kDepth; ++k) c += a[k] * b[k];
  return c;
}

// In a tree, c last, each sum rounded to nearest.
template <int kDepth>
inline Row add_in_tree(const float* a, const Row* b, Row c) {
  Row sums[kDepth];
  for (int k = 0; k < kDepth; ++k) sums[k] = a[k] * b[k];
  for (int count = kDepth / 2; count > 0; count /= 2) {
    for (int k = 0; k < count; ++k) sums[k] += sums[k + count];
  }
  return c + sums[0];
}

// In blocks, as measured on tensor cores (Fasi and others, Numerical behavior of NVIDIA tensor
// cores, 2021): the sum so far and the block's products are cut off at the same place, kExtraBits
// below the last bit of the largest of them, added exactly, and the sum is cut to 24 bits.
template <int kDepth, int kBlock, int kExtraBits>
inline Row add_in_blocks(const float* a, const Row* b, Row c) {
  Row sum = c;
  IntegerRow unusual{};
  for (int first = 0; first < kDepth; first += kBlock) {
    Row products[kBlock];
    IntegerRow largest = bits_of(sum) & 0x7FFFFFFF;
    for (int k = 0; k < kBlock; ++k) {
      products[k] = a[first + k] * b[first + k];
      const IntegerRow magnitude = bits_of(products[k]) & 0x7FFFFFFF;
      largest = magnitude > largest ? magnitude : largest;
    }
    // Near the ends of f32's range the scales below would leave it.
    constexpr int kLeast = 32 << 23, kMost = 0xFF << 23;
    unusual |= (largest >= kMost) | ((largest < kLeast) & (largest != 0));
    const IntegerRow exponent = (largest < kLeast ? kLeast + IntegerRow{} : largest) >> 23;
    const Row scale = from_bits((2 * 127 + 23 + kExtraBits - exponent) << 23);
    const Row unit = from_bits((exponent - 23 - kExtraBits) << 23);
    // Unsigned, since what infinities convert to may overflow; those sums are not used.
    UnsignedRow bits = (UnsignedRow) __builtin_convertvector(sum * scale, IntegerRow);
    for (int k = 0; k < kBlock; ++k) {
      bits += (UnsignedRow) __builtin_convertvector(products[k] * scale, IntegerRow);
    }
    const IntegerRow total = (IntegerRow)bits;
    const Row nearest = __builtin_convertvector(total, Row);
    const IntegerRow back = __builtin_convertvector(nearest, IntegerRow);
    const IntegerRow too_far = (total >= 0) ? (back > total) : (back < total);
    sum = from_bits(bits_of(nearest) + too_far) * unit;  // true is -1
  }
  if (any(unusual)) sum = unusual ? add_in_sequence<kDepth>(a, b, c) : sum;
  return sum;
}

template <int kDepth, class Add>
inline void multiply(const float* a, const Row* b, Row* c, Add add) {
  for (int m = 0; m < 16; ++m) c[m] = add(a + m * kDepth, b, c[m]);
}

// --- operands ---

template <Element kElement, int kDepth>
inline void gather_a(const Warp& warp, const Slot* slots, float* a) {
  constexpr int kWidth = width_of(kElement);
  for (int tile = 0; tile < 2 * kDepth / kWidth; ++tile) {
    const uint32_t* lanes = warp.values<uint32_t>(slots[tile]);
    float* corner = a + (tile % 2) * 8 * kDepth + (tile / 2) * kWidth;
    for (int row = 0; row < 8; ++row) {
      unpack_row<kElement>(lanes + 4 * row, corner + row * kDepth);
    }
  }
}

template <Element kElement, int kDepth>
inline void gather_b(const Warp& warp, const Slot* slots, Row* b) {
  constexpr int kWidth = width_of(kElement);
  for (int tile = 0; tile < kDepth / kWidth; ++tile) {
    const uint32_t* lanes = warp.values<uint32_t>(slots[tile]);
    float numbers[8][kWidth];
    for (int n = 0; n < 8; ++n) unpack_row<kElement>(lanes + 4 * n, numbers[n]);
    float* to = reinterpret_cast<float*>(b + tile * kWidth);
    for (int k = 0; k < kWidth; ++k) {
      for (int n = 0; n < 8; ++n) to[k * 8 + n] = numbers[n][k];
    }
  }
}

// C and D of 32-bit elements: four registers; the first two are the upper tile's even and odd
// columns.
template <class T>
inline void gather_c(const Warp& warp, const Slot* slots, T* c) {
  for (int tile = 0; tile < 2; ++tile) {
    const T* even = warp.values<T>(slots[2 * tile]);
    const T* odd = warp.values<T>(slots[2 * tile + 1]);
    for (int lane = 0; lane < kWarpSize; ++lane) {
      c[tile * 64 + 2 * lane] = even[lane];
      c[tile * 64 + 2 * lane + 1] = odd[lane];
    }
  }
}

template <class T>
inline void scatter_d(Warp& warp, const Slot* slots, const T* d) {
  for (int tile = 0; tile < 2; ++tile) {
    for (int part = 0; part < 2; ++part) {
      if (slots[2 * tile + part].none()) continue;
      T* lanes = warp.lanes<T>(slots[2 * tile + part]);
      for (int lane = 0; lane < kWarpSize; ++lane) lanes[lane] = d[tile * 64 + 2 * lane + part];
    }
  }
}

// C and D of f16: two registers, one for each tile.
inline void gather_c_f16(const Warp& warp, const Slot* slots, float* c) {
  for (int tile = 0; tile < 2; ++tile) {
    const uint32_t* lanes = warp.values<uint32_t>(slots[tile]);
    for (int row = 0; row < 8; ++row) {
      unpack_row<Element::kF16>(lanes + 4 * row, c + tile * 64 + row * 8);
    }
  }
}

inline void scatter_d_f16(Warp& warp, const Slot* slots, const float* d) {
  for (int tile = 0; tile < 2; ++tile) {
    if (slots[tile].none()) continue;
    uint32_t* lanes = warp.lanes<uint32_t>(slots[tile]);
    for (int lane = 0; lane < kWarpSize; ++lane) {
      const float* pair = d + tile * 64 + 2 * lane;
      lanes[lane] = F16::round(pair[0]) | F16::round(pair[1]) << 16;
    }
  }
}

// --- execution ---

enum Flags : uint32_t { kHalves = 1, kSaturate = 2 };  // C and D are f16; .satfinite

// Lanes that come to the instruction one after the other wait for the rest of the warp. `compute`
// runs once for all of them.
template <void (*compute)(Warp&, const Op&)>
void execute(Warp& warp, const Op& op, uint32_t mask) {
  if (mask == UINT32_MAX) {
    compute(warp, op);
    return;
  }
  warp.synchronize(op, mask, UINT32_MAX, Warp::Meet::kWarp,
                   [](Warp& all, const Op& instruction, uint32_t lanes) {
                     if (lanes == UINT32_MAX) {
                       compute(all, instruction);
                     } else {
                       all.fail(FindingKind::kBarrierDivergence, instruction,
                                std::countr_zero(lanes),
                                "mma.sync by a warp that has only " +
                                    std::to_string(std::popcount(lanes)) + " threads");
                     }
                   });
}

template <Element kElement, int kDepth>
void multiply_floats(Warp& warp, const Op& op) {
  constexpr int kTiles = kDepth / width_of(kElement);
  // A unit multiplies half as many tf32 at a time.
  constexpr int kBlock = std::min(kElement == Element::kTf32 ? 4 : 8, kDepth);
  alignas(64) float a[16 * kDepth];
  alignas(64) Row b[kDepth];
  alignas(64) Row c[16];
  float* const numbers = reinterpret_cast<float*>(c);
  gather_a<kElement, kDepth>(warp, op.s.data(), a);
  gather_b<kElement, kDepth>(warp, op.s.data() + 2 * kTiles, b);
  const Slot* const slots = op.s.data() + 3 * kTiles;
  if (op.flags & kHalves) {
    gather_c_f16(warp, slots, numbers);
  } else {
    gather_c<float>(warp, slots, numbers);
  }
  switch (warp.block.launch.accumulation_order) {
    case AccumulationOrder::kSequence:
      multiply<kDepth>(a, b, c, add_in_sequence<kDepth>);
      break;
    case AccumulationOrder::kTree:
      multiply<kDepth>(a, b, c, add_in_tree<kDepth>);
      break;
    case AccumulationOrder::kNarrowBlocks:
      multiply<kDepth>(a, b, c, add_in_blocks<kDepth, 4, 0>);
      break;
    case AccumulationOrder::kBlocks:
      multiply<kDepth>(a, b, c, add_in_blocks<kDepth, kBlock, 1>);
      break;
  }
  if (op.flags & kHalves) {
    scatter_d_f16(warp, op.d.data(), numbers);
  } else {
    scatter_d<float>(warp, op.d.data(), numbers);
  }
  warp.counters().mma_multiply_adds += 16 * 8 * kDepth;
}

template <Element kA, Element kB, int kDepth>
void multiply_integers(Warp& warp, const Op& op) {
  constexpr int kTiles = kDepth / width_of(kA);
  alignas(64) float a[16 * kDepth];
  alignas(64) Row b[kDepth];
  alignas(64) Row sums[16] = {};
  alignas(64) int32_t c[128];
  gather_a<kA, kDepth>(warp, op.s.data(), a);
  gather_b<kB, kDepth>(warp, op.s.data() + 2 * kTiles, b);
  gather_c<int32_t>(warp, op.s.data() + 3 * kTiles, c);
  multiply<kDepth>(a, b, sums, add_in_sequence<kDepth>);
  const float* const products = reinterpret_cast<const float*>(sums);
  if (op.flags & kSaturate) {
    for (int i = 0; i < 128; ++i) {
      const int64_t sum = int64_t{c[i]} + static_cast<int32_t>(products[i]);
      c[i] = static_cast<int32_t>(std::clamp<int64_t>(sum, INT32_MIN, INT32_MAX));
    }
  } else {
    for (int i = 0; i < 128; ++i) {
      c[i] = static_cast<int32_t>(static_cast<uint32_t>(c[i]) +
                                  static_cast<uint32_t>(static_cast<int32_t>(products[i])));
    }
  }
  scatter_d<int32_t>(warp, op.d.data(), c);
  warp.counters().mma_multiply_adds += 16 * 8 * kDepth;
}

// --- decoding ---

// An index in Element, or -1.
int take_element(Decoder& d) {
  return d.take_one_of({"f16", "bf16", "tf32", "s8", "u8", "s4", "u4"});
}

struct Shape {
  Element a, b;
  int depth;
  Execute execute;
};

using enum Element;
constexpr Shape kShapes[] = {
    {kF16, kF16, 8, execute<multiply_floats<kF16, 8>>},
    {kF16, kF16, 16, execute<multiply_floats<kF16, 16>>},
    {kBf16, kBf16, 8, execute<multiply_floats<kBf16, 8>>},
    {kBf16, kBf16, 16, execute<multiply_floats<kBf16, 16>>},
    {kTf32, kTf32, 4, execute<multiply_floats<kTf32, 4>>},
    {kTf32, kTf32, 8, execute<multiply_floats<kTf32, 8>>},
    {kS8, kS8, 16, execute<multiply_integers<kS8, kS8, 16>>},
    {kS8, kU8, 16, execute<multiply_integers<kS8, kU8, 16>>},
    {kU8, kS8, 16, execute<multiply_integers<kU8, kS8, 16>>},
    {kU8, kU8, 16, execute<multiply_integers<kU8, kU8, 16>>},
    {kS8, kS8, 32, execute<multiply_integers<kS8, kS8, 32>>},
    {kS8, kU8, 32, execute<multiply_integers<kS8, kU8, 32>>},
    {kU8, kS8, 32, execute<multiply_integers<kU8, kS8, 32>>},
    {kU8, kU8, 32, execute<multiply_integers<kU8, kU8, 32>>},
    {kS4, kS4, 32, execute<multiply_integers<kS4, kS4, 32>>},
    {kS4, kU4, 32, execute<multiply_integers<kS4, kU4, 32>>},
    {kU4, kS4, 32, execute<multiply_integers<kU4, kS4, 32>>},
    {kU4, kU4, 32, execute<multiply_integers<kU4, kU4, 32>>},
    {kS4, kS4, 64, execute<multiply_integers<kS4, kS4, 64>>},
    {kS4, kU4, 64, execute<multiply_integers<kS4, kU4, 64>>},
    {kU4, kS4, 64, execute<multiply_integers<kU4, kS4, 64>>},
    {kU4, kU4, 64, execute<multiply_integers<kU4, kU4, 64>>},
};

// Appends the registers of one operand, which must be so many.
void operand(Decoder& d, size_t index, Type type, size_t registers, bool is_destination) {
  const size_t found = is_destination ? d.destinations(index, type).size()  //
                                      : d.sources(index, type).size();
  if (found != registers) {
    d.fail("operand " + std::to_string(index + 1) + " has " + std::to_string(found) +
           " registers, this shape has " + std::to_string(registers));
  }
}

// mma.sync.aligned.SHAPE.row.col{.satfinite}.D.A.B.C d, a, b, c;
void decode_mma(Decoder& d) {
  if (!d.take("sync") || !d.take("aligned")) d.fail("mma must be .sync.aligned");
  constexpr int kDepths[] = {4, 8, 16, 32, 64};
  const int shape_index = d.take_one_of({"m16n8k4", "m16n8k8", "m16n8k16", "m16n8k32", "m16n8k64"});
  if (shape_index < 0) d.fail("unknown shape of mma");
  const int depth = kDepths[shape_index];
  if (!d.take("row") || !d.take("col")) d.fail("mma must be .row.col");
  Op& op = d.op();
  op.kind = InstructionClass::kMma;
  if (d.take("satfinite")) op.flags |= kSaturate;

  const Type d_type = d.take_type({Type::kF16, Type::kF32, Type::kS32});
  const int a_index = take_element(d), b_index = take_element(d);
  const Type c_type = d.take_type({Type::kF16, Type::kF32, Type::kS32});
  const Shape* shape = nullptr;
  for (const Shape& known : kShapes) {
    if (known.depth == depth && static_cast<int>(known.a) == a_index &&
        static_cast<int>(known.b) == b_index) {
      shape = &known;
    }
  }
  if (shape == nullptr) d.fail("unknown types of A and B for this shape");
  const bool is_integer = shape->a >= Element::kS8;
  if ((op.flags & kSaturate) && !is_integer) d.fail(".satfinite is for integers");
  if (c_type != d_type || is_integer != (d_type == Type::kS32) ||
      (d_type == Type::kF16 && shape->a != Element::kF16)) {
    d.fail("types of C and D do not suit each other, or those of A and B");
  }
  if (d_type == Type::kF16) op.flags |= kHalves;
  op.type = d_type;
  op.execute = shape->execute;

  const size_t tiles = static_cast<size_t>(depth / width_of(shape->a));
  const Type accumulator = d_type == Type::kF16 ? Type::kB32 : d_type;
  const size_t accumulators = d_type == Type::kF16 ? 2 : 4;
  operand(d, 0, accumulator, accumulators, true);
  operand(d, 1, Type::kB32, 2 * tiles, false);
  operand(d, 2, Type::kB32, tiles, false);
  operand(d, 3, accumulator, accumulators, false);
}

}  // namespace

const InstructionTable kMmaInstructions = {{"mma", decode_mma}};

}  // namespace ptx_simulator
