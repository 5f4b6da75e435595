#include "util/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "util/error.h"

namespace altiplano {

File::File(const std::string& path) : path_(path) {
  // O_NONBLOCK: opening a pipe must not wait for its other end.
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0) {
    const int error = errno;
    throw Error(error == ENOENT ? "ALTIPLANO_FILE_NOT_FOUND" : "ALTIPLANO_FILE_READ",
                path + ": cannot be opened: " + std::strerror(error));
  }
  struct stat st = {};
  if (::fstat(fd_, &st) != 0 || !S_ISREG(st.st_mode)) {
    ::close(fd_);
    throw Error("ALTIPLANO_FILE_READ", path + ": not a regular file");
  }
}

File::~File() { ::close(fd_); }

void File::read_at(uint64_t offset, void* out, size_t bytes) const {
  constexpr size_t kMostPerCall = size_t{1} << 30;  // Linux reads at most 2 GiB at once
  auto* to = static_cast<char*>(out);
  size_t left = bytes;
  while (left > 0) {
    const ssize_t got = ::pread(fd_, to, std::min(left, kMostPerCall), static_cast<off_t>(offset));
    if (got < 0) {
      if (errno == EINTR) continue;
      throw Error("ALTIPLANO_FILE_READ", path_ + ": reading at byte " + std::to_string(offset) +
                                             " failed: " + std::strerror(errno));
    }
    if (got == 0) {
      throw Error("ALTIPLANO_FILE_READ",
                  path_ + ": the file ends at byte " + std::to_string(offset) + ", " +
                      std::to_string(left) +
                      " bytes before the end of a tensor. Did it change while it was read?");
    }
    to += got;
    offset += static_cast<uint64_t>(got);
    left -= static_cast<size_t>(got);
  }
}

}  // namespace altiplano
