// What the library exports: each call is passed to the kernels of one instruction set.
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "calls.h"
#include "level.h"

#ifndef GATEDCELLS_SOURCES
#define GATEDCELLS_SOURCES "unknown"
#endif

#ifndef GATEDCELLS_LEVELS
#define GATEDCELLS_LEVELS 1  // how many of the list below were compiled
#endif

namespace {

const GatedcellsLevel* const LEVELS[] = {
    &gatedcells_baseline,
#if GATEDCELLS_LEVELS > 1
    &gatedcells_avx2,
#endif
#if GATEDCELLS_LEVELS > 2
    &gatedcells_avx512,
#endif
#if GATEDCELLS_LEVELS > 3
    &gatedcells_avx512_bf16,
#endif
};
constexpr int COUNT = sizeof(LEVELS) / sizeof(LEVELS[0]);

bool runs_here(int level) {
#ifdef GATEDCELLS_X86
  __builtin_cpu_init();
  if (level >= 1 && !(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))) return false;
  if (level >= 2 &&
      !(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw")))
    return false;
#if GATEDCELLS_LEVELS > 3  // a compiler without the instruction set does not know its name either
  if (level >= 3 && !__builtin_cpu_supports("avx512bf16")) return false;
#endif
#endif
  return level >= 0 && level < COUNT;
}

bool is_stale(int level, const void* given) {
  if (given == nullptr) return false;
  const GatedcellsOrigin& origin = *static_cast<const GatedcellsOrigin*>(given);
  return LEVELS[level]->hash(origin.matrix, origin.bytes) != static_cast<uint64_t>(origin.hash);
}

}  // namespace

extern "C" {

#define GATEDCELLS_EXPORT __attribute__((visibility("default")))

// A digest of the sources that this library was built from.
GATEDCELLS_EXPORT const char* gatedcells_sources() { return GATEDCELLS_SOURCES; }

GATEDCELLS_EXPORT int gatedcells_levels() { return COUNT; }
GATEDCELLS_EXPORT const char* gatedcells_level_name(int level) { return LEVELS[level]->name; }
GATEDCELLS_EXPORT int gatedcells_level_runs(int level) { return runs_here(level); }
GATEDCELLS_EXPORT int gatedcells_multiplies_pairs(int level) { return LEVELS[level]->multiplies_pairs; }

GATEDCELLS_EXPORT int64_t gatedcells_packed_size(const GatedcellsPack* call) {
  return LEVELS[call->level]->packed_size(*call);
}
GATEDCELLS_EXPORT void gatedcells_pack(const GatedcellsPack* call) { LEVELS[call->level]->pack(*call); }

GATEDCELLS_EXPORT int64_t gatedcells_hash(int level, const void* memory, int64_t bytes) {
  return static_cast<int64_t>(LEVELS[level]->hash(memory, bytes));
}
// Ask for pages of 2 MB under memory that is about to be written for the first time: a page fault for each
// 4 KB of a tape can take longer than computing it.
GATEDCELLS_EXPORT void gatedcells_large_pages(void* memory, int64_t bytes) {
#if defined(MADV_HUGEPAGE)
  const uintptr_t page = uintptr_t(1) << 21, from = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t first = (from + page - 1) & ~(page - 1);
  const uintptr_t last = (from + static_cast<uintptr_t>(bytes)) & ~(page - 1);
  // advice only: where the system does not take it, nothing is different
  if (first < last) (void)madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)memory, (void)bytes;
#endif
}

GATEDCELLS_EXPORT int gatedcells_gru_forward(const GatedcellsGRU* call) {
  if (is_stale(call->level, call->origin_x) || is_stale(call->level, call->origin_h)) return GATEDCELLS_STALE;
  return LEVELS[call->level]->gru_forward(*call);
}
GATEDCELLS_EXPORT int gatedcells_gru_backward(const GatedcellsGRUBackward* call) {
  if (is_stale(call->level, call->origin_h)) return GATEDCELLS_STALE;
  return LEVELS[call->level]->gru_backward(*call);
}
GATEDCELLS_EXPORT int gatedcells_lstm_forward(const GatedcellsLSTM* call) {
  if (is_stale(call->level, call->origin_x) || is_stale(call->level, call->origin_h)) return GATEDCELLS_STALE;
  return LEVELS[call->level]->lstm_forward(*call);
}
GATEDCELLS_EXPORT int gatedcells_lstm_backward(const GatedcellsLSTMBackward* call) {
  if (is_stale(call->level, call->origin_h)) return GATEDCELLS_STALE;
  return LEVELS[call->level]->lstm_backward(*call);
}
GATEDCELLS_EXPORT int gatedcells_weight_gradients(const GatedcellsWeightGradients* call) {
  return LEVELS[call->level]->weight_gradients(*call);
}
GATEDCELLS_EXPORT int gatedcells_input_gradient(const GatedcellsInputGradient* call) {
  return LEVELS[call->level]->input_gradient(*call);
}
GATEDCELLS_EXPORT void gatedcells_activation(int level, int which, int dtype, int64_t n, const void* x,
                                             void* y) {
  LEVELS[level]->activation(which, dtype, n, x, y);
}

}  // extern "C"
