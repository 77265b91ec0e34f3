// Teams of threads: torch's own OpenMP threads where they are GNU's, fresh threads elsewhere.
//
// torch's CPU operators keep a pool of OpenMP threads, which spin for a while after each operator. A second
// pool would have to share the cores with those; asking the runtime that is already loaded does not.
#include "team.h"

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <exception>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <dlfcn.h>
#endif
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

struct Buffer {
  void* memory = nullptr;
  int64_t bytes = 0;
  ~Buffer() { std::free(memory); }

  void* at_least(int64_t wanted) {
    if (wanted <= bytes) return memory;
    std::free(memory);
    memory = nullptr;
    bytes = 0;
    const int64_t rounded = (wanted + 4095) / 4096 * 4096;
    memory = std::aligned_alloc(64, static_cast<size_t>(rounded));
    if (memory != nullptr) bytes = rounded;
    return memory;
  }
};

thread_local Buffer scratch, shared;
thread_local int64_t steps_made = 0;

typedef void (*ParallelRegion)(void (*function)(void*), void* argument, unsigned threads, unsigned flags);
typedef int (*Count)();

// GNU's OpenMP as torch loaded it; all null where it did not.
struct OpenMP {
  ParallelRegion parallel = nullptr;
  Count threads = nullptr, in_parallel = nullptr;

  OpenMP() {
#if defined(__unix__)
    threads = reinterpret_cast<Count>(dlsym(RTLD_DEFAULT, "omp_get_num_threads"));
    in_parallel = reinterpret_cast<Count>(dlsym(RTLD_DEFAULT, "omp_in_parallel"));
    if (threads != nullptr && in_parallel != nullptr)
      parallel = reinterpret_cast<ParallelRegion>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
#endif
  }
};

const OpenMP& openmp() {
  static const OpenMP found;
  return found;
}

struct Job {
  GatedcellsWork work;
  const void* call;
  GatedcellsTeam* team;
  int next_rank;
};

void take_part(void* argument) {
  Job* job = static_cast<Job*>(argument);
  const int rank = __atomic_fetch_add(&job->next_rank, 1, __ATOMIC_RELAXED);
  job->work(job->call, job->team, rank);
}

// A region may get fewer threads than it asked for; all members note the same number.
void take_part_in_region(void* argument) {
  Job* job = static_cast<Job*>(argument);
  __atomic_store_n(&job->team->size, openmp().threads(), __ATOMIC_RELAXED);
  take_part(argument);
}

// Wait for the team to pass more than `passed` barriers, where the system can without a core; may return early.
void rest(GatedcellsTeam* team, int passed) {
#if defined(__linux__) && defined(SYS_futex)
  __atomic_add_fetch(&team->asleep, 1, __ATOMIC_SEQ_CST);
  syscall(SYS_futex, &team->passed, FUTEX_WAIT_PRIVATE, passed, nullptr, nullptr, 0);
  __atomic_sub_fetch(&team->asleep, 1, __ATOMIC_SEQ_CST);
#else
  (void)team, (void)passed;
  std::this_thread::yield();
#endif
}

// A step takes microseconds: spin. A member that has not come by then has lost its core, and gets one again the
// sooner if those that wait hold none. Who has slept spins shorter at the next barriers, now and then as long as
// ever: the machine may be quiet again.
void wait(GatedcellsTeam* team, int passed) {
  constexpr int most = 20000, least = 300, again = 64;
  thread_local int patience = most;
  thread_local unsigned waits = 0;
  const int limit = ++waits % again == 0 ? most : patience;
  int spins = 0;
  while (__atomic_load_n(&team->passed, __ATOMIC_ACQUIRE) == passed) {
    if (spins < limit) {
      ++spins;
#if defined(__x86_64__) || defined(__i386__)
      __builtin_ia32_pause();
#endif
    } else {
      rest(team, passed);
    }
  }
  patience = spins < limit ? std::min(most, 2 * std::max(patience, spins)) : std::max(least, patience / 8);
}

// The last member has come: let the others go on.
void release(GatedcellsTeam* team, int passed) {
  // before `asleep` is read: who is not counted there yet finds this number and does not fall asleep
  __atomic_store_n(&team->passed, passed, __ATOMIC_SEQ_CST);
#if defined(__linux__) && defined(SYS_futex)
  if (__atomic_load_n(&team->asleep, __ATOMIC_SEQ_CST) > 0)
    syscall(SYS_futex, &team->passed, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
#endif
}

void run_on_fresh_threads(Job* job, int threads) {
  int go = 0;
  std::vector<std::thread> others;
  try {
    while (static_cast<int>(others.size()) < threads - 1)
      others.emplace_back([job, &go] {
        while (!__atomic_load_n(&go, __ATOMIC_ACQUIRE)) std::this_thread::yield();
        take_part(job);
      });
  } catch (const std::exception&) {
    // the system has no more threads: those that started do the work
  }
  job->team->size = static_cast<int>(others.size()) + 1;
  __atomic_store_n(&go, 1, __ATOMIC_RELEASE);
  take_part(job);
  for (std::thread& other : others) other.join();
}

}  // namespace

extern "C" int gatedcells_run_team(GatedcellsWork work, const void* call, int threads, int64_t shared_bytes) {
  GatedcellsTeam team = {1, 0, 0, 0, 0, nullptr};
  if (shared_bytes > 0) {
    team.shared = shared.at_least(shared_bytes);
    if (team.shared == nullptr) return -1;
  }
  Job job = {work, call, &team, 0};
  // inside somebody's parallel region a nested one would have a single thread
  if (threads <= 1 || (openmp().parallel != nullptr && openmp().in_parallel())) {
    take_part(&job);
  } else if (openmp().parallel != nullptr) {
    openmp().parallel(take_part_in_region, &job, static_cast<unsigned>(threads), 0);
  } else {
    run_on_fresh_threads(&job, threads);
  }
  return team.failed ? -1 : 0;
}

extern "C" void gatedcells_barrier(GatedcellsTeam* team) {
  const int size = __atomic_load_n(&team->size, __ATOMIC_RELAXED);
  if (size == 1) return;
  const int passed = __atomic_load_n(&team->passed, __ATOMIC_ACQUIRE);
  if (__atomic_add_fetch(&team->waiting, 1, __ATOMIC_ACQ_REL) == size) {
    __atomic_store_n(&team->waiting, 0, __ATOMIC_RELAXED);
    release(team, passed + 1);
    return;
  }
  wait(team, passed);
}

extern "C" void* gatedcells_scratch(int64_t bytes) { return scratch.at_least(bytes); }

extern "C" int64_t gatedcells_steps(int64_t more) {
  const int64_t before = steps_made;
  steps_made += more;
  return before;
}
