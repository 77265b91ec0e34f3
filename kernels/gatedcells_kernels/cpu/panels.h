// How weights and pre-activations lie: panels of hidden units.
#pragma once
#include "vectors.h"

namespace GATEDCELLS_LEVEL {

// Vector registers that a tile's sums may fill: 16 registers in SSE2 and AVX2, 32 in AVX-512 and NEON.
constexpr int REGISTERS = GATEDCELLS_REGISTERS;
constexpr int SUMS = REGISTERS == 32 ? 24 : 12;
constexpr int ROWS = 8;  // at most so many rows in a tile

constexpr int64_t SECOND_LEVEL_CACHE = 1 << 20;  // bytes; only speed depends on it

template <class Real>
INLINE int64_t panel_count(int64_t units) {
  return ceil_div(units, Lanes<Real>::count);
}

// The right side of a product with `units` columns for each gate.
template <class N>
struct Weights {
  const N* data;
  int64_t K;      // length of the sums
  int64_t units;
  bool packed;    // else the matrix as it is: [gates * units, K] (forward) or [K, units] (backward)
  // to be fetched while others are multiplied by: the panel that follows (1) or comes before (-1); 0: none
  int ahead = 0;
};

// Numbers of a panel with one gate and K terms to a sum.
template <class N>
INLINE int64_t panel_size(int64_t K) {
  constexpr int64_t together = Operand<N>::numbers;
  return ceil_div(K, together) * together * Lanes<RealOf<N>>::count;
}

// Units in a panel.
template <class Real>
INLINE int64_t lanes_of(int64_t panel, int64_t units) {
  return least(Lanes<Real>::count, units - panel * Lanes<Real>::count);
}

// Vectors of a panel with so many units.
template <class Real>
INLINE int64_t vectors_of(int64_t lanes, int64_t gates) {
  return ceil_div(lanes * gates, Lanes<Real>::count);
}

}  // namespace GATEDCELLS_LEVEL
