// Memory of the device, and pinned memory of the host that the device copies from and to.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>
#include <memory>

#include "cuda/context.h"

namespace altiplano::cuda {

// Aligned to 256 bytes. Contents are undefined.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  // Throws Error ALTIPLANO_OUT_OF_MEMORY with what was asked for `purpose`, what is free and what
  // there is. No bytes, no memory: get() is then 0.
  DeviceMemory(std::shared_ptr<const Context> context, size_t bytes, const char* purpose);
  ~DeviceMemory();
  DeviceMemory(DeviceMemory&& other) noexcept { swap(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    DeviceMemory(std::move(other)).swap(*this);
    return *this;
  }

  CUdeviceptr get() const { return pointer_; }
  size_t bytes() const { return bytes_; }

 private:
  void swap(DeviceMemory& other) noexcept {
    std::swap(context_, other.context_);
    std::swap(pointer_, other.pointer_);
    std::swap(bytes_, other.bytes_);
  }

  std::shared_ptr<const Context> context_;
  CUdeviceptr pointer_ = 0;
  size_t bytes_ = 0;
};

// Page-locked memory: copies from and to it are asynchronous.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  // Throws as DeviceMemory does.
  PinnedMemory(std::shared_ptr<const Context> context, size_t bytes, const char* purpose);
  ~PinnedMemory();
  PinnedMemory(PinnedMemory&& other) noexcept { swap(other); }
  PinnedMemory& operator=(PinnedMemory&& other) noexcept {
    PinnedMemory(std::move(other)).swap(*this);
    return *this;
  }

  uint8_t* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  void swap(PinnedMemory& other) noexcept {
    std::swap(context_, other.context_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }

  std::shared_ptr<const Context> context_;
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

// Asynchronous copies, in the order of the stream. Host memory must be pinned, and live and stay as
// it is until the stream has come by.
void copy_to_device(const Stream& stream, CUdeviceptr to, const void* from, size_t bytes);
void copy_to_host(const Stream& stream, void* to, CUdeviceptr from, size_t bytes);
void copy_on_device(const Stream& stream, CUdeviceptr to, CUdeviceptr from, size_t bytes);
void fill_bytes(const Stream& stream, CUdeviceptr to, uint8_t value, size_t bytes);

}  // namespace altiplano::cuda
