// Threads. A kernel is a function that every member of a team runs; members meet at barriers.
#pragma once
#include <cstdint>

struct GatedcellsTeam {
  int size;
  int waiting;   // members that have reached the barrier
  int passed;    // barriers passed so far
  int asleep;    // members that wait at the barrier without a core
  int failed;    // a member had no memory
  void* shared;  // memory that all members see
};

extern "C" {

typedef void (*GatedcellsWork)(const void* call, GatedcellsTeam* team, int rank);

// Run work(call, team, rank) on `threads` threads, this one among them. `shared_bytes` of memory lie in
// team->shared. Returns 0, or -1 where memory ran out.
int gatedcells_run_team(GatedcellsWork work, const void* call, int threads, int64_t shared_bytes);

// Wait until every member is here; what the others wrote before is then visible.
void gatedcells_barrier(GatedcellsTeam* team);

// This thread's working memory, at least so many bytes, aligned to a cache line; null where memory ran out.
void* gatedcells_scratch(int64_t bytes);

// How many steps this thread has made so far; adds `more`.
int64_t gatedcells_steps(int64_t more);

}  // extern "C"
