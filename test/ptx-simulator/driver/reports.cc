#include "driver/reports.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>

#include "driver/driver.h"
#include "driver/simulator.h"
#include "driver/work.h"

namespace ptx_simulator::driver {
namespace {

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", c);
      out += escape;
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string triple(const std::array<uint32_t, 3>& values) {
  return '[' + std::to_string(values[0]) + ',' + std::to_string(values[1]) + ',' +
         std::to_string(values[2]) + ']';
}

}  // namespace

size_t Reports::findings() const {
  size_t count = 0;
  for (const Entry& entry : entries_) count += entry.report.findings.size();
  return count;
}

std::string to_json(const LaunchReport& report) {
  std::string out = "{\"kernel\":" + quoted(report.kernel) + ",\"grid\":" + triple(report.grid) +
                    ",\"block\":" + triple(report.block) +
                    ",\"dynamicSharedBytes\":" + std::to_string(report.dynamic_shared_bytes) +
                    ",\"stopped\":" + (report.stopped ? "true" : "false");
  const Counters& c = report.counters;
  const auto number = [&](const char* name, uint64_t value) {
    out += std::string(",\"") + name + "\":" + std::to_string(value);
  };
  number("warpInstructions", c.warp_instructions);
  number("threadInstructions", c.thread_instructions);
  number("globalReadBytes", c.global_read_bytes);
  number("globalReadSectors", c.global_read_sectors);
  number("globalWriteBytes", c.global_write_bytes);
  number("globalWriteSectors", c.global_write_sectors);
  number("sharedWavefronts", c.shared_wavefronts);
  number("sharedIdealWavefronts", c.shared_ideal_wavefronts);
  number("barriers", c.barriers);
  number("mmaMultiplyAdds", c.mma_multiply_adds);
  number("localBytes", c.local_bytes);
  out += ",\"warpInstructionsOf\":{";
  for (size_t i = 0; i < c.warp_instructions_of.size(); ++i) {
    if (i != 0) out += ',';
    out += quoted(name_of(static_cast<InstructionClass>(i))) + ':' +
           std::to_string(c.warp_instructions_of[i]);
  }
  out += "},\"findings\":[";
  for (size_t i = 0; i < report.findings.size(); ++i) {
    const Finding& finding = report.findings[i];
    if (i != 0) out += ',';
    out += "{\"kind\":" + quoted(name_of(finding.kind)) + ",\"block\":" + triple(finding.block) +
           ",\"thread\":" + triple(finding.thread) + ",\"line\":" + std::to_string(finding.line) +
           ",\"sourceLine\":" + std::to_string(finding.source_line) +
           ",\"text\":" + quoted(finding.text) + '}';
  }
  return out + "]}";
}

bool append_line(const std::string& path, const std::string& line) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (file < 0) return false;
  const std::string text = line + '\n';
  const bool whole = write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  return close(file) == 0 && whole;
}

void note_report(Driver& state, const std::shared_ptr<Context>& context, LaunchReport report) {
  if (state.settings.strict && !report.findings.empty()) {
    for (const Finding& finding : report.findings)
      std::fprintf(stderr, "ptx-simulator: %s\n", finding.to_string().c_str());
    // Unless the kernel failed by itself, which says more.
    if (!report.stopped && context != nullptr) context->fail(CUDA_ERROR_ASSERT);
  }
  if (!state.settings.report_path.empty() &&
      !append_line(state.settings.report_path, to_json(report)))
    std::fprintf(stderr, "ptx-simulator: cannot write %s\n", state.settings.report_path.c_str());
  state.reports.add(std::move(report));
}

void note_finding(Driver& state, const std::shared_ptr<Context>& context, const char* function,
                  const RangeProblem& problem) {
  LaunchReport report;
  report.kernel = function;
  Finding finding;
  finding.kind = problem.kind;
  finding.kernel = function;
  finding.text = problem.text;
  report.findings.push_back(std::move(finding));
  note_report(state, context, std::move(report));
}

}  // namespace ptx_simulator::driver
