#include "heads_problem.h"

#include <algorithm>
#include <numeric>

#include "cuda/kv_page.h"
#include "cuda/operations.h"

namespace altiplano::test {
namespace {

using cuda::DeviceMemory;
using cuda::Epilogue;
using cuda::HeadsTarget;

constexpr int kPositions = 200;
constexpr uint8_t kGuard = 0xff;  // NaN in every float type

}  // namespace

// What is on the device after the multiplication.
struct HeadsProblem::Result {
  Way way;
  std::vector<uint8_t> q, pages;
  int64_t q_stride, head_bytes;
};

HeadsProblem::HeadsProblem(CudaDevice& device, cuda::Matmul& matmul, const HeadsShape& shape,
                           const std::vector<HeadsPart>& parts, Random& random, float weight)
    : device_(device), matmul_(matmul), shape_(shape), random_(random) {
  int first_head = 0;
  for (const HeadsPart& part : parts) {
    Matrix m = random_matrix(part.format, int64_t{part.heads} * shape.head_dim, shape.cols, random);
    if (weight != 1.f) {  // f32 only
      auto* values = reinterpret_cast<float*>(m.values.data());
      for (size_t i = 0; i < m.exact.size(); ++i) m.exact[i] = values[i] *= weight;
    }
    cuda::PackedMatrix packed = pack(device, matmul, m, cuda::RowOrder::kPlain,
                                     part.int8_activations, random, shape.activations);
    parts_.push_back({first_head, std::move(m), std::move(packed)});
    first_head += part.heads;
  }
  CHECK(first_head == shape.heads + 2 * shape.kv_heads, "a stack of %d heads", first_head);
  for (int position = 0; position < kPositions; ++position) {
    for (int i = 0; i < shape.head_dim / 2; ++i) {
      const double angle = position / std::pow(1e4, 2. * i / shape.head_dim);
      rotations_.push_back(static_cast<float>(std::cos(angle)));
      rotations_.push_back(static_cast<float>(std::sin(angle)));
    }
  }
}

std::vector<ptx_simulator_report> HeadsProblem::check(const std::vector<float>& x, int64_t tokens,
                                                      Way way) {
  const int64_t cols = shape_.cols, x_stride = round_up(cols, 16) + 16;
  std::vector<uint16_t> x16(tokens * x_stride, kNan16);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t k = 0; k < cols; ++k) {
      x16[t * x_stride + k] = to_bits(shape_.activations, x[t * cols + k]);
    }
  }
  const int64_t pages = tokens / kKvPageTokens + 2;
  std::vector<int32_t> free_slots(pages * kKvPageTokens), positions, slots;
  std::iota(free_slots.begin(), free_slots.end(), 0);
  for (int64_t t = 0; t < tokens; ++t) {
    std::swap(free_slots[t],
              free_slots[random_.integer(t, static_cast<int64_t>(free_slots.size()) - 1)]);
    const bool padding = t % 7 == 6;
    positions.push_back(padding ? 0 : static_cast<int32_t>(random_.integer(0, kPositions - 1)));
    slots.push_back(padding ? -1 : free_slots[t]);
  }

  Result r;
  r.way = way;
  // Rows in whole sectors.
  r.q_stride = int64_t{shape_.heads + 2 * shape_.kv_heads} * shape_.head_dim + 16;
  r.head_bytes = static_cast<int64_t>(cuda::kv_head_bytes(shape_.kv_type, shape_.head_dim));
  r.q.assign((tokens + 1) * r.q_stride * 2, kGuard);
  r.pages.assign(pages * shape_.kv_heads * r.head_bytes, kGuard);
  const DeviceMemory x_memory = device_.upload(x16), q_memory = device_.upload(r.q),
                     pages_memory = device_.upload(r.pages), at = device_.upload(positions),
                     to = device_.upload(slots), rotations = device_.upload(rotations_);
  device_.launches();
  const HeadsTarget all = {
      0,        shape_.heads,    shape_.kv_heads,    shape_.head_dim, at.get(),
      to.get(), rotations.get(), pages_memory.get(), r.head_bytes,    shape_.kv_type};
  for (const Part& part : parts_) {
    HeadsTarget target = all;
    target.first_head = part.first_head;
    const auto first = static_cast<CUdeviceptr>(part.first_head * shape_.head_dim * 2);
    matmul_.multiply(device_.stream(), part.packed, {x_memory.get(), x_stride}, tokens,
                     way == kFused ? Epilogue::kHeads : Epilogue::kStore16,
                     q_memory.get() + (way == kFused ? 0 : first), r.q_stride,
                     way == kFused ? &target : nullptr);
  }
  if (way == kApart) {
    AttentionShape shape;
    shape.heads = shape_.heads;
    shape.kv_heads = shape_.kv_heads;
    shape.head_dim = shape_.head_dim;
    shape.kv_type = shape_.kv_type;
    shape.activations = shape_.activations;
    cuda::KvCache cache;
    cache.pages = all.pages;
    cache.head_bytes = all.head_bytes;
    cuda::StepTokens step;
    step.count = static_cast<uint32_t>(tokens);
    step.positions = all.positions;
    step.slots = all.slots;
    cuda::Operations(device_.kernels(), shape)
        .rope_and_store(device_.stream(), step, q_memory.get(), r.q_stride, all.rotations, cache,
                        0);
  }
  std::vector<ptx_simulator_report> launches = device_.launches();
  for (const ptx_simulator_report& launch : launches) {
    CHECK(launch.shared_wavefronts == launch.shared_ideal_wavefronts,
          "%llu wavefronts, %llu without bank conflicts",
          static_cast<unsigned long long>(launch.shared_wavefronts),
          static_cast<unsigned long long>(launch.shared_ideal_wavefronts));
    CHECK(launch.local_bytes == 0, "local memory is not used");
  }
  r.q = device_.download<uint8_t>(q_memory, r.q.size());
  r.pages = device_.download<uint8_t>(pages_memory, r.pages.size());
  for (int64_t t = 0; t < tokens; ++t) {
    check_token(r, t, &x[t * cols], positions[t], slots[t]);
  }

  // Nothing beside. What was checked is guards again.
  const int64_t d = shape_.head_dim;
  const int64_t q_bytes = (shape_.heads + (way == kApart ? 2 * shape_.kv_heads : 0)) * d * 2;
  const auto element = static_cast<int64_t>(cuda::kv_element_bytes(shape_.kv_type));
  for (int64_t t = 0; t < tokens; ++t) {
    std::fill_n(&r.q[t * r.q_stride * 2], q_bytes, kGuard);
    if (slots[t] < 0) continue;
    for (int64_t h = 0; h < shape_.kv_heads; ++h) {
      uint8_t* const head =
          &r.pages[(slots[t] / kKvPageTokens * shape_.kv_heads + h) * r.head_bytes];
      for (int64_t which = 0; which < 2; ++which) {
        const int64_t row = which * kKvPageTokens + slots[t] % kKvPageTokens;
        std::fill_n(head + row * d * element, d * element, kGuard);
        if (shape_.kv_type == KvType::kInt8) {
          std::fill_n(head + 2 * kKvPageTokens * d + row * 4, 4, kGuard);
        }
      }
    }
  }
  const auto untouched = [](uint8_t byte) { return byte == kGuard; };
  CHECK(std::all_of(r.q.begin(), r.q.end(), untouched), "something beside q was written");
  CHECK(std::all_of(r.pages.begin(), r.pages.end(), untouched), "another slot was written");
  return launches;
}

// A head of a token, with its bounds before it is rounded to what it is stored in: two products of
// rotated numbers, each of them rounded to f32, and so is their sum.
std::vector<Expected> HeadsProblem::expected_head(Way way, int head, const float* x,
                                                  int position) const {
  const auto part = std::find_if(parts_.rbegin(), parts_.rend(),
                                 [&](const Part& p) { return p.first_head <= head; });
  const int64_t d = shape_.head_dim, half = d / 2;
  std::vector<Expected> rows;
  for (int64_t i = 0; i < d; ++i) {
    const int64_t row = (head - part->first_head) * d + i;
    rows.push_back(stored_f32(part->packed.shape.int8_activations
                                  ? expected_int8(part->matrix, row, x)
                                  : expected(part->matrix, row, x, shape_.activations)));
    if (way == kApart) rows.back() = stored_16(rows.back(), shape_.activations);
  }
  if (head >= shape_.heads + shape_.kv_heads) return rows;
  std::vector<Expected> rotated(d);
  for (int64_t i = 0; i < half; ++i) {
    const double cosine = rotations_[(position * half + i) * 2];
    const double sine = rotations_[(position * half + i) * 2 + 1];
    const Expected a = rows[i], b = rows[i + half];
    const double sizes = std::abs(a.value) + a.bound + std::abs(b.value) + b.bound;
    const auto bound = [&](double of_a, double of_b) {
      return std::abs(of_a) * a.bound + std::abs(of_b) * b.bound + 3 * kEps * sizes;
    };
    rotated[i] = {a.value * cosine - b.value * sine, bound(cosine, sine)};
    rotated[i + half] = {b.value * cosine + a.value * sine, bound(sine, cosine)};
  }
  return rotated;
}

void HeadsProblem::check_token(const Result& r, int64_t token, const float* x, int position,
                               int slot) const {
  const int64_t d = shape_.head_dim;
  for (int head = 0; head < shape_.heads + 2 * shape_.kv_heads; ++head) {
    const std::vector<Expected> expected = expected_head(r.way, head, x, position);
    if (head < shape_.heads) {
      const bool bf16 = shape_.activations == ActivationType::kBF16;
      check_head("q", expected, bf16 ? KvType::kBF16 : KvType::kF16,
                 &r.q[(token * r.q_stride + head * d) * 2], nullptr);
    } else if (slot >= 0) {
      const int which = (head - shape_.heads) / shape_.kv_heads;
      const int64_t kv_head = (head - shape_.heads) % shape_.kv_heads;
      const uint8_t* const at =
          &r.pages[(slot / kKvPageTokens * shape_.kv_heads + kv_head) * r.head_bytes];
      const int64_t row = which * kKvPageTokens + slot % kKvPageTokens;
      float scale = 1;
      if (shape_.kv_type == KvType::kInt8) {
        std::memcpy(&scale, at + 2 * kKvPageTokens * d + row * 4, 4);
      }
      check_head(which == 0 ? "key" : "value", expected, shape_.kv_type,
                 at + row * d * static_cast<int64_t>(cuda::kv_element_bytes(shape_.kv_type)),
                 &scale);
    }
  }
}

// int8: a code is off by half a step, and by what three roundings to f32 move it (127 * 3 * 2^-24 <
// 2^-15); the step by as much as the largest number, and by its own roundings; below f32's normal
// numbers by 2^-150.
void HeadsProblem::check_head(const char* what, const std::vector<Expected>& expected, KvType type,
                              const uint8_t* numbers, const float* scale) const {
  double largest = 0, most_bound = 0;
  bool finite = true;
  for (const Expected& e : expected) {
    finite = finite && std::isfinite(e.value);
    largest = std::max(largest, std::abs(e.value));
    most_bound = std::max(most_bound, e.bound);
  }
  int most_code = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const Expected& e = expected[i];
    double found, bound = e.bound;
    if (type == KvType::kF16 || type == KvType::kBF16) {
      const ActivationType of = type == KvType::kF16 ? ActivationType::kF16 : ActivationType::kBF16;
      uint16_t bits;
      std::memcpy(&bits, numbers + i * 2, 2);
      found = from_bits(of, bits);
      bound = stored_16(e, of).bound;
    } else if (type == KvType::kF32) {
      float value;
      std::memcpy(&value, numbers + i * 4, 4);
      found = value;
    } else {
      const int code = static_cast<int8_t>(numbers[i]);
      most_code = std::max(most_code, std::abs(code));
      found = static_cast<double>(code) * *scale;
      bound += (largest + most_bound) / 127 * (0.5 + 0x1p-14) + 0x1p-143;
    }
    if (finite) {
      CHECK(std::abs(found - e.value) <= bound, "%s %d of %d dimensions: %g, exactly %g, bound %g",
            what, static_cast<int>(i), shape_.head_dim, found, e.value, bound);
    } else if (type == KvType::kInt8 || !std::isfinite(e.value)) {
      CHECK(!std::isfinite(found), "%s %d is %g, not finite", what, static_cast<int>(i), found);
    }
  }
  if (type == KvType::kInt8 && finite) {
    CHECK(std::abs(*scale * 127. - largest) <= most_bound + largest * 0x1p-22 + 0x1p-142,
          "%s: the scale is %g, the largest number %g", what, *scale, largest);
    CHECK(most_code == (*scale > 0x1p-126f ? 127 : most_code) && most_code <= 127,
          "%s: the largest code is %d", what, most_code);
  }
}

}  // namespace altiplano::test
