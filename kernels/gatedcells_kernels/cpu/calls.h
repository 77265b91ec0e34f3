// The C ABI: what a call to a kernel is told. Python fills these structs by name (library.py).
//
// The letters: T time, B batch, I input features, H hidden units, P width of the hidden state that is
// handed on (H, or that of the LSTM's projection). All tensors are contiguous and of one floating
// type, but for widened weights; a pointer that may be null says so. Sizes are counted in elements.
#pragma once
#include <cstdint>

extern "C" {

// The type of a call's tensors. What is bfloat16 in memory is computed with as float32.
enum GatedcellsDtype : int32_t { GATEDCELLS_FLOAT32 = 0, GATEDCELLS_FLOAT64 = 1, GATEDCELLS_BFLOAT16 = 2 };

// How a call's weights lie: the matrices, panels of them (pack.h), or panels of float32 where tensors are bfloat16.
enum GatedcellsForm : int32_t { GATEDCELLS_AS_THEY_ARE = 0, GATEDCELLS_PACKED = 1, GATEDCELLS_WIDENED = 2 };

// Packed weights: see pack.h.
struct GatedcellsPack {
  int64_t rows;           // of the matrix: what a panel's column is made of
  int64_t columns;        // of the matrix
  int64_t row_stride;     // elements between two rows of the matrix
  int64_t gates;          // gates that share a panel, stacked along the matrix's rows
  int32_t by_rows;        // 1: columns of a panel are rows of the matrix (x W^T); 0: its columns (d W)
  int32_t dtype;
  int32_t level;
  const void* matrix;
  void* packed;           // gatedcells_packed_size elements
};

// What a call's packed weights were made from. If it has another hash now, the call does nothing and returns
// GATEDCELLS_STALE. A null pointer is not checked.
struct GatedcellsOrigin {
  const void* matrix;
  int64_t bytes, hash;
};

enum { GATEDCELLS_STALE = 1 };

struct GatedcellsGRU {
  int64_t threads;        // first what differs between calls of one layer
  const void* input;      // [T, B, I]
  const void* hidden;     // [B, H]
  void* states;           // [T, B, H]
  void* last;             // [B, H], those after the last step again, or null
  void* tape;             // [T, B, 4, H] or null
  const void* w_x;        // weight_ih, 3 gates; packed or as it is, like the others
  const void* w_h;        // weight_hh, 3 gates (reset after) or its first 2 (before)
  const void* origin_x;   // a GatedcellsOrigin of w_x, or null
  const void* origin_h;   // of w_h
  int64_t T, B, I, H;
  int32_t reverse, reset_after, form, dtype, level;
  const void* w_n;        // the candidate's rows of weight_hh (reset before), else null
  const void* bias_x;     // [3H] or null
  const void* bias_h;     // [3H] or null
  const int64_t* lengths; // [B] or null
  const uint8_t* resets;  // [T, B] or null: 1 where a row's state is forgotten before step t
};

struct GatedcellsGRUBackward {
  int64_t threads;        // first what differs between calls of one layer
  int64_t initial;        // whether d_hidden is wanted; else it is working memory
  const void* d_states;   // [T, B, H] or null
  const void* d_last;     // [B, H] or null
  const void* hidden;     // [B, H]
  const void* states;     // [T, B, H]
  const void* tape;       // [T, B, 4, H]
  void* d_gates;          // [T, B, 4, H]
  void* d_hidden;         // [B, H]
  const void* w_h;        // packed for d W or as it is: weight_hh (reset after), its first 2H rows (before)
  const void* origin_h;   // a GatedcellsOrigin of w_h, or null
  int64_t T, B, H;
  int32_t reverse, reset_after, form, dtype, level;
  const void* w_n;        // like w_h: the candidate's rows (reset before), else null
  const int64_t* lengths; // [B] or null
  const uint8_t* resets;  // [T, B] or null: 1 where a row's state is forgotten before step t
};

struct GatedcellsLSTM {
  int64_t threads;        // first what differs between calls of one layer
  const void* input;      // [T, B, I]
  const void* hidden;     // [B, P]
  const void* cell;       // [B, H]
  void* last_cell;        // [B, H]
  void* states;           // [T, B, P]
  void* last;             // [B, P], those after the last step again, or null
  void* tape;             // [T, B, 5, H] or null
  const void* w_x;        // weight_ih, 4 gates; packed or as it is, like the others
  const void* w_h;        // weight_hh, 4 gates
  const void* origin_x;   // a GatedcellsOrigin of w_x, or null
  const void* origin_h;   // of w_h
  int64_t T, B, I, H, P;
  int32_t reverse, form, dtype, level;
  const void* w_p;        // weight_hr, or null: no projection, P = H
  const void* bias_x;     // [4H] or null
  const void* bias_h;     // [4H] or null
  const int64_t* lengths; // [B] or null
  const uint8_t* resets;  // [T, B] or null: 1 where a row's state is forgotten before step t
  void* cells;            // [T, B, H], the cell states alone, or null
};

struct GatedcellsLSTMBackward {
  int64_t threads;        // first what differs between calls of one layer
  int64_t initial;        // whether d_hidden or d_cell is wanted; else both are working memory
  const void* d_states;   // [T, B, P] or null
  const void* d_last_hidden;  // [B, P] or null
  const void* d_last_cell;    // [B, H] or null
  const void* cell;       // [B, H]
  const void* tape;       // [T, B, 5, H]
  void* d_gates;          // [T, B, 4, H]
  void* d_hidden;         // [B, P]
  void* d_cell;           // [B, H]
  const void* w_h;        // packed for d W or as it is: weight_hh
  const void* origin_h;   // a GatedcellsOrigin of w_h, or null
  int64_t T, B, H, P;
  int32_t reverse, form, dtype, level;
  const void* w_p;        // like w_h: weight_hr, or null
  const int64_t* lengths; // [B] or null
  const uint8_t* resets;  // [T, B] or null: 1 where a row's state is forgotten before step t
  void* d_projected;      // [T, B, P] with a projection, else null
};

// Gradients of weights and biases from those of the gates of n rows, all rows of a sequence: sums of d^T read.
struct GatedcellsWeightGradients {
  int64_t threads;        // first what differs between calls of one layer
  const void* d;          // [n, 4, H]
  const void* input;      // [n, I]
  const void* first;      // [split, P], the states that the steps have found
  const void* second;     // [n - split, P], the rest of them
  void* d_w_x;            // [3H or 4H, I] or null
  void* d_w_h;            // [3H or 4H, P] or null
  void* d_bias_x;         // [3H or 4H] or null
  void* d_bias_h;         // the same; null if d_bias_x is
  int64_t n, I, H, P;
  int64_t split;          // rows of `first`
  int32_t gru, dtype, level;
};

// The gradient of the input from those of the gates of n rows: d weight_ih.
struct GatedcellsInputGradient {
  int64_t threads;
  int64_t n, I, H;
  const void* d;          // [n, 4, H]
  const void* w_x;        // weight_ih as it is: [3H or 4H, I]
  void* d_input;          // [n, I]
  int32_t gru, dtype, level;
};

}  // extern "C"
