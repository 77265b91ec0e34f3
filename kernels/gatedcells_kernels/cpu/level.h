// The kernels of one instruction set, as native.cpp finds them.
#pragma once
#include "calls.h"

struct GatedcellsLevel {
  const char* name;
  int vector_bytes;
  int64_t (*packed_size)(const GatedcellsPack&);
  int (*pack)(const GatedcellsPack&);
  uint64_t (*hash)(const void* memory, int64_t bytes);
  int (*gru_forward)(const GatedcellsGRU&);
  int (*gru_backward)(const GatedcellsGRUBackward&);
  int (*lstm_forward)(const GatedcellsLSTM&);
  int (*lstm_backward)(const GatedcellsLSTMBackward&);
  int (*weight_gradients)(const GatedcellsWeightGradients&);
  int (*input_gradient)(const GatedcellsInputGradient&);
  // y = f(x) for n numbers: which = 0 the logistic function, 1 tanh; for tests
  void (*activation)(int which, int dtype, int64_t n, const void* x, void* y);
  int multiplies_pairs;  // of bfloat16, by an instruction
};

extern const GatedcellsLevel gatedcells_baseline;
#ifdef GATEDCELLS_X86
extern const GatedcellsLevel gatedcells_avx2;
extern const GatedcellsLevel gatedcells_avx512;
extern const GatedcellsLevel gatedcells_avx512_bf16;
#endif
