// A file that is read by offset. Plain reads instead of a mapping: a file that shrinks or fails
// while it is read is then an error and not a signal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace altiplano {

class File {
 public:
  // Throws Error ALTIPLANO_FILE_NOT_FOUND or ALTIPLANO_FILE_READ (not a regular file included).
  explicit File(const std::string& path);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  // Reads exactly `bytes` bytes from `offset`, from any thread. Throws Error ALTIPLANO_FILE_READ.
  void read_at(uint64_t offset, void* out, size_t bytes) const;

 private:
  std::string path_;
  int fd_ = -1;
};

}  // namespace altiplano
