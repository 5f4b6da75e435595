#include "cuda/linear.h"

#include <algorithm>

#include "util/error.h"

namespace altiplano::cuda {
namespace {

// Bytes of rows that are read, converted and copied at once.
constexpr size_t kStageBytes = size_t{16} << 20;

size_t aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

// Where the arrays of some canonical rows stand in a block of memory.
struct CanonicalLayout {
  CanonicalLayout(WeightFormat format, int64_t rows, int64_t cols)
      : values_bytes(static_cast<size_t>(rows * canonical_row_bytes(format, cols))),
        scales_bytes(static_cast<size_t>(rows * format.groups(cols)) * 2),
        zeros_bytes(format.zero_points ? scales_bytes / 2 : 0),
        scales(aligned(values_bytes)),
        zeros(scales + aligned(scales_bytes)),
        bytes(zeros + aligned(zeros_bytes)) {}

  CanonicalArrays on_host(uint8_t* base) const {
    return {base, reinterpret_cast<uint16_t*>(base + scales), base + zeros};
  }
  // The places of arrays that are there, else 0.
  CUdeviceptr scales_at(CUdeviceptr base) const { return scales_bytes > 0 ? base + scales : 0; }
  CUdeviceptr zeros_at(CUdeviceptr base) const { return zeros_bytes > 0 ? base + zeros : 0; }

  size_t values_bytes, scales_bytes, zeros_bytes;
  size_t scales, zeros;  // offsets
  size_t bytes;          // of all
};

bool is_embedding(LinearUse use) {
  return use == LinearUse::kEmbedding || use == LinearUse::kEmbeddingAndHead;
}

// What matrices are multiplied as: all float types become the type of activations. A weight that is
// too large for it is an error that names its row.
WeightFormat multiplied_format(WeightFormat format, ActivationType activations) {
  if (format.quantized()) return format;
  return {activations == ActivationType::kBF16 ? WeightType::kBF16 : WeightType::kF16, 0, false};
}

// The matrices that become of a stack: neighbours of one format are one.
// fn(first part, parts, shape)
template <class Fn>
void each_matrix(std::span<const PartShape> parts, LinearUse use, bool int8_activations,
                 ActivationType activations, const Fn& fn) {
  for (size_t first = 0, last; first < parts.size(); first = last) {
    const WeightFormat format = multiplied_format(parts[first].format, activations);
    int64_t rows = 0;
    for (last = first;
         last < parts.size() && multiplied_format(parts[last].format, activations) == format;
         ++last) {
      rows += parts[last].rows;
    }
    MatrixShape shape;
    shape.format = format;
    shape.rows = rows;
    shape.cols = parts[0].cols;
    if (use == LinearUse::kGateUp && last - first == 2) shape.order = RowOrder::kGateUp;
    shape.int8_activations = int8_activations && format.type == WeightType::kInt8;
    shape.activations = activations;
    fn(first, last - first, shape);
  }
}

}  // namespace

bool CudaLinear::takes_int8() const {
  return std::ranges::all_of(
      parts, [](const Part& part) { return part.matrix.kind == MatmulKind::kW8A8; });
}

size_t CudaLinear::bytes() const {
  size_t sum = embedding_memory.bytes();
  for (const Part& part : parts) sum += part.matrix.memory.bytes();
  return sum;
}

LinearLoader::LinearLoader(const Stream& stream, Matmul& matmul, RowReader& reader,
                           const StepLimits& limits)
    : stream_(stream),
      context_(stream.context()),
      matmul_(matmul),
      reader_(reader),
      limits_(limits),
      stages_{Stage(context_), Stage(context_)} {}

uint64_t LinearLoader::device_bytes(std::span<const PartShape> parts, LinearUse use,
                                    bool int8_activations) {
  uint64_t sum = 0;
  if (is_embedding(use)) {
    sum += CanonicalLayout(parts[0].format, parts[0].rows, parts[0].cols).bytes;
  }
  if (use != LinearUse::kEmbedding) {
    // f16 and bf16 take the same.
    each_matrix(parts, use, int8_activations, ActivationType::kF16,
                [&](size_t, size_t, const MatrixShape& shape) { sum += packed_bytes(shape); });
  }
  return sum;
}

std::unique_ptr<CudaLinear> LinearLoader::load(std::span<const MatrixPart> parts, LinearUse use,
                                               LoadMonitor& monitor) {
  auto result = std::make_unique<CudaLinear>();
  try {
    if (is_embedding(use)) load_embedding(parts[0], *result, monitor);
    if (use != LinearUse::kEmbedding) {
      std::vector<PartShape> shapes;
      for (const MatrixPart& part : parts) {
        shapes.push_back({part.format, part.source->rows(), part.source->cols()});
      }
      int64_t first_row = 0;
      each_matrix(
          shapes, use, limits_.int8_activations, limits_.activations,
          [&](size_t first, size_t count, const MatrixShape& shape) {
            result->parts.push_back({matmul_.allocate(shape), first_row});
            int64_t row = 0;
            for (const MatrixPart& part : parts.subspan(first, count)) {
              load_part({part.source, shape.format}, row, result->parts.back().matrix, monitor);
              row += part.source->rows();
            }
            first_row += shape.rows;
          });
    }
  } catch (...) {
    // What was made goes away: nothing may write to it any more.
    try {
      stream_.synchronize();
    } catch (const Error&) {
      // The first error is the one that is told.
    }
    throw;
  }
  return result;
}

// A stage that nothing uses any more, with room for so many bytes.
LinearLoader::Stage& LinearLoader::next_stage(size_t bytes) {
  Stage& stage = stages_[next_];
  next_ = 1 - next_;
  stage.copied.synchronize();
  if (stage.host.bytes() < bytes) {
    stage.host = {};
    stage.host = PinnedMemory(context_, bytes, "reading weights");
    stage.device = {};
    stage.device = DeviceMemory(context_, bytes, "reading weights");
  }
  return stage;
}

void LinearLoader::load_embedding(const MatrixPart& part, CudaLinear& to, LoadMonitor& monitor) {
  const int64_t rows = part.source->rows(), cols = part.source->cols();
  const CanonicalLayout whole(part.format, rows, cols);
  to.embedding_memory = DeviceMemory(context_, whole.bytes, "the embedding");
  const CUdeviceptr base = to.embedding_memory.get();
  to.embedding_format = part.format;
  to.embedding = {reinterpret_cast<const void*>(base),
                  reinterpret_cast<const uint16_t*>(whole.scales_at(base)),
                  reinterpret_cast<const uint8_t*>(whole.zeros_at(base)), cols, part.format.group};
  const int64_t row_bytes = canonical_row_bytes(part.format, cols);
  const int64_t groups = part.format.groups(cols);
  const int64_t at_once = std::max<int64_t>(1, static_cast<int64_t>(kStageBytes) / row_bytes);
  for (int64_t row = 0; row < rows; row += at_once) {
    const int64_t count = std::min(at_once, rows - row);
    const CanonicalLayout layout(part.format, count, cols);
    Stage& stage = next_stage(layout.bytes);
    uint8_t* const host = stage.host.data();
    reader_.read(part, row, count, layout.on_host(host), monitor);
    copy_to_device(stream_, base + row * row_bytes, host, layout.values_bytes);
    copy_to_device(stream_, base + whole.scales + row * groups * 2, host + layout.scales,
                   layout.scales_bytes);
    copy_to_device(stream_, base + whole.zeros + row * groups, host + layout.zeros,
                   layout.zeros_bytes);
    stage.copied.record(stream_);
  }
}

void LinearLoader::load_part(const MatrixPart& part, int64_t first_row, PackedMatrix& to,
                             LoadMonitor& monitor) {
  const int64_t rows = part.source->rows(), cols = part.source->cols();
  const CanonicalLayout one(part.format, 1, cols);
  int64_t at_once = static_cast<int64_t>(kStageBytes / (one.values_bytes + one.scales_bytes + 1));
  at_once = std::max<int64_t>(at_once / kPackRows, 1) * kPackRows;
  for (int64_t row = 0; row < rows; row += at_once) {
    const int64_t count = std::min(at_once, rows - row);
    const CanonicalLayout layout(part.format, count, cols);
    Stage& stage = next_stage(layout.bytes);
    reader_.read(part, row, count, layout.on_host(stage.host.data()), monitor);
    const CUdeviceptr device = stage.device.get();
    copy_to_device(stream_, device, stage.host.data(), layout.bytes);
    matmul_.pack(stream_,
                 {.row_begin = first_row + row,
                  .rows = count,
                  .values = device,
                  .scales = layout.scales_at(device),
                  .zeros = layout.zeros_at(device)},
                 to);
    stage.copied.record(stream_);
  }
}

}  // namespace altiplano::cuda
