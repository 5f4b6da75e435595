// How many threads this process may usefully run.
#pragma once

namespace altiplano {

// Physical cores among the processors of the affinity mask, at least 1.
int physical_cores();

// Cores granted by the tightest cgroup quota (v1 and v2) above this process; infinity without one.
double quota_cores();

// The physical cores, at most the quota rounded up, at least 1.
int default_threads();

}  // namespace altiplano
