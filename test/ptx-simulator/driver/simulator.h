/* What tests ask of the simulator behind the driver API: settings, injected faults, live objects,
 * and the reports of launches. Exported from the same libcuda.so.1; nothing of it exists in a real
 * driver, so a test finds these functions with dlsym, and learns by that whether it runs simulated.
 *
 * The settings can also be given as environment variables, read when the library is first used:
 *
 *   PTX_SIMULATOR_SEED=n              order of warps, blocks, graph nodes, and delays      (1)
 *   PTX_SIMULATOR_THREADS=n           host threads that run blocks, 0: one per processor   (0)
 *   PTX_SIMULATOR_ARITHMETIC=n        what PTX leaves open: the last bits of approximate functions
 *                                     and the order of sums in mma; one GPU, another GPU   (0)
 *   PTX_SIMULATOR_DEVICES=n           devices, 0 to 64                                     (1)
 *   PTX_SIMULATOR_MEMORY=bytes        of each device; suffixes K, M, G                     (80G)
 *   PTX_SIMULATOR_CAPABILITY=n[,...]  compute capability that each device says it has, the last
 *                                     for all behind it; kernels run as on 8.0 anyway      (80)
 *   PTX_SIMULATOR_DRIVER_VERSION=n    what cuDriverGetVersion says                         (13000)
 *   PTX_SIMULATOR_DELAY_US=n          work that nobody waits for yet may start so much
 *                                     later, 0: never                                      (2000)
 *   PTX_SIMULATOR_FAIL_ALLOCATION=n   the n-th allocation from now on is out of memory
 *   PTX_SIMULATOR_FAIL_LAUNCH=n       the n-th kernel from now on fails on the device
 *   PTX_SIMULATOR_FAIL=name:n:code[,...]  the n-th call of a driver function returns a code
 *   PTX_SIMULATOR_MOST_INSTRUCTIONS=n warp instructions after which a kernel counts as hanging
 *   PTX_SIMULATOR_REPORT=path         appends a line of JSON as each launch ends, and one at exit
 *   PTX_SIMULATOR_STRICT=1            prints findings; after one, calls of its context fail with
 *                                     CUDA_ERROR_ASSERT
 */
#ifndef PTX_SIMULATOR_DRIVER_SIMULATOR_H_
#define PTX_SIMULATOR_DRIVER_SIMULATOR_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Sets one of the settings above by its name without the prefix ("SEED", "FAIL_LAUNCH"), to the
 * value as it would stand in the environment. DEVICES is only read by the first cuInit.
 * Returns 0, or -1 for a name or value that is unknown. */
int ptx_simulator_set(const char* name, const char* value);

/* --- injected faults --- */
void ptx_simulator_fail_allocation(uint64_t n); /* 1: the next one; 0: none */
void ptx_simulator_fail_launch(uint64_t n); /* asynchronous and sticky: CUDA_ERROR_LAUNCH_FAILED */
/* The n-th call from now on of a function ("cuMemAlloc", or with a version, "cuMemAlloc_v2")
 * returns `code` (a CUresult) and does nothing else. Several may be set. */
void ptx_simulator_fail_call(const char* function, uint64_t n, int code);
/* Takes back all faults that have not happened, and sets the counts below to zero. */
void ptx_simulator_clear_faults(void);
/* What a test counts once, in order to fail each one in turn. */
uint64_t ptx_simulator_allocations(void);
uint64_t ptx_simulator_launches(void);
uint64_t ptx_simulator_calls(const char* function); /* "": of all functions */

/* --- live objects --- */
typedef struct {
  uint64_t contexts;
  uint64_t allocations; /* device memory and pinned host memory */
  uint64_t allocated_bytes;
  uint64_t streams; /* that the application created */
  uint64_t events;
  uint64_t modules;
  uint64_t graphs;
  uint64_t graph_execs;
  uint64_t pending;   /* pieces of work not yet done */
  uint64_t abandoned; /* objects of all kinds alive when their context was destroyed, so far */
} ptx_simulator_objects;
void ptx_simulator_live(ptx_simulator_objects* objects);

/* --- reports --- */
typedef struct {
  const char* kernel; /* or the driver function that a finding is about */
  uint32_t grid[3];
  uint32_t block[3];
  uint32_t dynamic_shared_bytes;
  int32_t stopped; /* the kernel did not run to its end */
  uint64_t findings;
  uint64_t warp_instructions;
  uint64_t thread_instructions;
  uint64_t global_read_bytes;
  uint64_t global_read_sectors;
  uint64_t global_write_bytes;
  uint64_t global_write_sectors;
  uint64_t shared_wavefronts;
  uint64_t shared_ideal_wavefronts;
  uint64_t barriers;
  uint64_t mma_multiply_adds;
  uint64_t local_bytes;
} ptx_simulator_report;

/* Reports are kept in the order in which launches ended, until they are cleared; strings stay valid
 * as long. Whoever wants those of work in flight synchronises first. */
size_t ptx_simulator_report_count(void);
int ptx_simulator_get_report(size_t index, ptx_simulator_report* report); /* 0, or -1: no such */
/* One finding as a line of text, or null. */
const char* ptx_simulator_finding(size_t report, size_t index);
/* Findings of all reports together. */
size_t ptx_simulator_finding_count(void);
/* A report as a line of JSON without a line feed, with all counters and findings; null if none. */
const char* ptx_simulator_report_json(size_t index);
/* Appends all reports as lines of JSON. 0, or -1: the file cannot be written. */
int ptx_simulator_write_reports(const char* path);
void ptx_simulator_clear_reports(void);

/* Why the last failed driver call of this thread failed, or "". */
const char* ptx_simulator_last_message(void);

#ifdef __cplusplus
}
#endif

#endif
