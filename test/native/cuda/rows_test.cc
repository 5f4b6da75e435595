// What rows of logits are reduced to: candidates in their exact order, sums, ids asked for, and
// whether all is finite.
#include <algorithm>
#include <numeric>

#include "cuda/operations.h"
#include "cuda/row_results.h"
#include "cuda/step_inputs.h"
#include "device.h"

namespace altiplano::test {
namespace {

// What a row asks for.
struct Asked {
  int32_t candidates;
  float inverse_temperature;
  std::vector<int32_t> ids;
};

// The order of native/cpu/select.cc: the greater logit, of equals the lower id; NaN is -infinity.
std::vector<int32_t> ranked(const std::vector<float>& row) {
  std::vector<int32_t> ids(row.size());
  std::iota(ids.begin(), ids.end(), 0);
  const auto value = [&](int32_t id) { return row[id] == row[id] ? row[id] : -INFINITY; };
  std::stable_sort(ids.begin(), ids.end(),
                   [&](int32_t a, int32_t b) { return value(a) > value(b); });
  return ids;
}

// exp(x) of |x| < 30 is off by 2^-22 (expf) and by |x| 2^-23 (the rounding of the difference and of
// its product with the inverse temperature), relative; smaller terms weigh nothing in a sum of 1 or
// more. Sums of four are rounded twice in f32: 2^-23. The logarithm of the sum is off by as much,
// absolute.
constexpr double kSumError = 0x1p-22 + 31 * 0x1p-23;

double log_sum_exp(const std::vector<float>& row, double factor) {
  const double most = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (const float x : row) sum += std::exp((x - most) * factor);
  return most * factor + std::log(sum);
}

void check_rows(CudaDevice& device, const std::vector<std::vector<float>>& rows,
                const std::vector<Asked>& asked, const char* what) {
  const auto vocab = static_cast<int64_t>(rows[0].size());
  AttentionShape shape;
  shape.head_dim = 2;
  shape.kv_type = KvType::kF16;
  const cuda::Operations operations(device.kernels(), shape);
  Batch batch;
  batch.sequence_starts = batch.block_starts = batch.id_starts = {0};
  std::vector<float> logits;
  int32_t most = 0;
  for (size_t r = 0; r < rows.size(); ++r) {
    logits.insert(logits.end(), rows[r].begin(), rows[r].end());
    batch.rows.push_back(0);
    batch.candidates.push_back(asked[r].candidates);
    batch.inverse_temperatures.push_back(asked[r].inverse_temperature);
    batch.ids.insert(batch.ids.end(), asked[r].ids.begin(), asked[r].ids.end());
    batch.id_starts.push_back(static_cast<int32_t>(batch.ids.size()));
    batch.full_rows.push_back(0);
    most = std::max(most, asked[r].candidates);
  }
  cuda::StepInputs inputs(device.context(), 1, 1, 0);
  inputs.set(device.stream(), batch);
  const cuda::ResultLayout layout = cuda::result_layout(batch, batch.rows.size());
  const cuda::DeviceMemory memory = device.upload(logits);
  const cuda::DeviceMemory results(device.context(), layout.words * 4, "results");
  const cuda::DeviceMemory chosen(device.context(), rows.size() * 4, "chosen");
  int64_t stride = 1;
  while (stride < most) stride *= 2;
  const cuda::DeviceMemory keys(
      device.context(),
      most > cuda::kCandidatesInSharedMemory ? rows.size() * stride * sizeof(uint64_t) : 0, "keys");
  const auto count = static_cast<uint32_t>(rows.size());
  operations.row_results(device.stream(), memory.get(), vocab, count, inputs.requests(),
                         inputs.words(), results.get(), results.get(), chosen.get());
  operations.candidates(device.stream(), memory.get(), vocab, count, inputs.requests(),
                        results.get(), keys.get(), stride);

  const auto words = device.download<uint32_t>(results, layout.words);
  const auto ids = device.download<int32_t>(chosen, rows.size());
  const uint32_t* pair = words.data() + layout.candidates;
  const uint32_t* id_logit = words.data() + layout.ids;
  for (size_t r = 0; r < rows.size(); ++r) {
    const std::vector<float>& row = rows[r];
    const std::vector<int32_t> order = ranked(row);
    CHECK(ids[r] == order[0], "%s: chose %d, expected %d", what, ids[r], order[0]);
    for (int32_t i = 0; i < asked[r].candidates; ++i, pair += 2) {
      float logit;
      std::memcpy(&logit, pair + 1, 4);
      const float expected = row[order[i]] == row[order[i]] ? row[order[i]] : -INFINITY;
      CHECK(static_cast<int32_t>(pair[0]) == order[i] && logit == expected,
            "%s: candidate %d is %d (%g), expected %d (%g)", what, i, static_cast<int>(pair[0]),
            logit, order[i], expected);
    }
    for (const int32_t id : asked[r].ids) {
      CHECK(std::memcmp(id_logit++, &row[id], 4) == 0, "%s: the logit of %d", what, id);
    }
    cuda::RowRecord record;
    std::memcpy(&record, words.data() + r * sizeof(record) / 4, sizeof(record));
    const float largest = *std::max_element(row.begin(), row.end());
    const bool finite =
        std::none_of(row.begin(), row.end(), [](float x) { return x != x || x == INFINITY; }) &&
        largest > -INFINITY;
    CHECK((record.finite != 0) == finite, "%s: finite is %d", what, record.finite);
    CHECK(record.best == order[0], "%s: the best", what);
    if (!finite) continue;
    const double factor = asked[r].inverse_temperature;
    const double one = record.maximum + std::log(record.one);
    const double scaled = record.maximum * factor + std::log(record.scaled);
    CHECK(record.maximum == largest, "%s: the greatest logit", what);
    CHECK(std::abs(one - log_sum_exp(row, 1)) <= kSumError, "%s: the sum %g", what, one);
    CHECK(std::abs(scaled - log_sum_exp(row, factor)) <= kSumError, "%s: the scaled sum %g", what,
          scaled);
  }
  device.launches();
}

}  // namespace

void test_row_results(CudaDevice& device) {
  Random random(7);
  for (const int32_t vocab : {1, 2, 33, 1024, 2048, 5003, 32000, 40002}) {
    if (quick && vocab > 2048) continue;
    std::vector<std::vector<float>> rows;
    std::vector<Asked> asked;
    for (int r = 0; r < 4; ++r) {
      std::vector<float> row = random.normals(vocab, 5);
      // Few different values, zeros of both signs among them: many are equal.
      if (r % 2 == 1) {
        for (float& x : row) x = std::round(x / 4) * (random.integer(0, 1) ? 1.f : 0.5f);
      }
      rows.push_back(row);
      Asked a = {
          static_cast<int32_t>(random.integer(0, vocab)), r == 3 ? 1.f : 1 / (0.3f + 0.4f * r), {}};
      if (r == 0) a.candidates = 1;
      if (r == 2) a.candidates = std::min(vocab, 64);
      for (int64_t i = random.integer(0, 5); i > 0; --i) {
        a.ids.push_back(static_cast<int32_t>(random.integer(0, vocab - 1)));
      }
      asked.push_back(a);
    }
    check_rows(device, rows, asked, "some");
    asked[3].candidates = vocab;  // all of them, sorted in global memory where they are many
    check_rows(device, rows, asked, "all");
  }
}

void test_row_results_not_finite(CudaDevice& device) {
  Random random(8);
  std::vector<std::vector<float>> rows(6, random.normals(1500));
  rows[1][700] = NAN;
  rows[2][1499] = INFINITY;
  rows[3][0] = -INFINITY;
  for (float& x : rows[4]) x = -INFINITY;
  for (float& x : rows[5]) x = NAN;
  const std::vector<Asked> asked(6, Asked{40, 1.25f, {700, 1499, 0}});
  check_rows(device, rows, asked, "not finite");
}

}  // namespace altiplano::test
