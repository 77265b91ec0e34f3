// The one matrix product of the kernels: C = bias + A W, with W packed once.
//
// Packed weights are panels. A panel holds `gates` vectors of columns: for a cell those are the gates of
// the same LANES hidden units, so that one pass over A yields every gate of a unit, side by side:
//
//   packed[panel][k][gate][lane] = W[k][gate, panel * LANES + lane]
//
// Of bfloat16 two neighbours in k lie side by side in a lane, the last of an odd number beside a zero:
// packed[panel][k / 2][gate][lane][k % 2].
//
// A tile is R rows of A by G gates by P panels, all of it accumulated in registers while k runs. Each
// number of C is the sum over k = 0, 1, 2, ... in that order, whatever the tile: a row's result does not
// depend on which rows or threads are beside it.
#pragma once
#include "sums.h"

namespace GATEDCELLS_LEVEL {

// Vector registers that a tile's sums may fill: 16 registers in SSE2 and AVX2, 32 in AVX-512 and NEON.
constexpr int REGISTERS = GATEDCELLS_REGISTERS;
constexpr int SUMS = REGISTERS == 32 ? 24 : 12;
constexpr int ROWS = 8;  // at most so many rows in a tile

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
};

// Numbers of a panel with one gate and K terms to a sum.
template <class N>
INLINE int64_t panel_size(int64_t K) {
  constexpr int64_t together = Operand<N>::numbers;
  return ceil_div(K, together) * together * Lanes<RealOf<N>>::count;
}

template <class N, int R, int G, int P>
INLINE void tile(const N* a, int64_t a_stride, int64_t K, const N* packed, const RealOf<N>* bias,
                 RealOf<N>* c, int64_t c_stride) {
  typedef RealOf<N> Real;
  typedef Vector<Real> V;
  typedef typename Operand<N>::V O;
  constexpr int64_t L = Lanes<Real>::count, together = Operand<N>::numbers;
  const int64_t panel = panel_size<N>(K) * G;
  V sum[R][P * G];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 32
    for (int v = 0; v < P * G; ++v) sum[r][v] = V{};
  }
  // of the two sides the one with fewer vectors stays in registers while the other goes by
  const auto terms = [&](int64_t k, bool whole) __attribute__((always_inline)) {
    const auto weight = [&](int v) __attribute__((always_inline)) {
      return held(load_operand<N>(packed + (v / G) * panel + (k * G + v % G * together) * L));
    };
    const auto number = [&](int r) __attribute__((always_inline)) {
      return held(splat_operand<N>(a + r * a_stride + k, whole));
    };
    if constexpr (R < P * G) {
      O x[R];
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) x[r] = number(r);
#pragma GCC unroll 16
      for (int v = 0; v < P * G; ++v) {
        const O w = weight(v);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) sum[r][v] = multiply_add_operands(x[r], w, sum[r][v]);
      }
    } else {
      O w[P * G];
#pragma GCC unroll 16
      for (int v = 0; v < P * G; ++v) w[v] = weight(v);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const O x = number(r);
#pragma GCC unroll 16
        for (int v = 0; v < P * G; ++v) sum[r][v] = multiply_add_operands(x, w[v], sum[r][v]);
      }
    }
  };
  int64_t k = 0;
  for (; k + together <= K; k += together) terms(k, true);
  if (together == 2 && k < K) terms(k, false);
#pragma GCC unroll 32
  for (int v = 0; v < P * G; ++v) {
    // last: a large bias would cost the sum its small digits
    const V add = bias ? load<Real>(bias + v * L) : V{};
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) store<Real>(c + r * c_stride + v * L, sum[r][v] + add);
  }
}

// All rows against P panels, R rows at a time, the tiles as even as they can be (9 rows are 5 and 4).
template <class N, int G, int P>
NOINLINE void rows_by_panels(int64_t rows, const N* a, int64_t a_stride, int64_t K, const N* packed,
                             const RealOf<N>* bias, RealOf<N>* c, int64_t c_stride) {
  constexpr int fit = SUMS / (G * P) < 1 ? 1 : SUMS / (G * P);
  constexpr int highest = fit > ROWS ? ROWS : fit;
  int64_t tiles = ceil_div(rows, highest);
  for (; rows > 0; --tiles) {
    const int64_t now = ceil_div(rows, tiles);
    switch (now) {
#define GATEDCELLS_ROWS(R)                                                                             \
  case R:                                                                                              \
    if constexpr (R <= highest) tile<N, R, G, P>(a, a_stride, K, packed, bias, c, c_stride);        \
    break;
      GATEDCELLS_ROWS(1)
      GATEDCELLS_ROWS(2)
      GATEDCELLS_ROWS(3)
      GATEDCELLS_ROWS(4)
      GATEDCELLS_ROWS(5)
      GATEDCELLS_ROWS(6)
      GATEDCELLS_ROWS(7)
      GATEDCELLS_ROWS(8)
#undef GATEDCELLS_ROWS
    }
    a += now * a_stride;
    c += now * c_stride;
    rows -= now;
  }
}

// How many panels a tile takes: with few rows more of them, so that enough sums are under way at once.
template <int G>
INLINE int64_t panels_at_once(int64_t rows) {
  const int64_t fit = SUMS / (rows * G);
  if (G == 1) return 4;
  return fit >= 4 ? 4 : fit >= 2 ? 2 : 1;
}

template <class N, int G>
INLINE void multiply_packed(int64_t rows, const N* a, int64_t a_stride, const Weights<N>& w,
                            const RealOf<N>* bias, RealOf<N>* c, int64_t c_stride, int64_t first,
                            int64_t last) {
  typedef RealOf<N> Real;
  constexpr int64_t width = G * Lanes<Real>::count;
  const int64_t group = panels_at_once<G>(rows), panel = panel_size<N>(w.K) * G;
  for (int64_t p = first; p < last;) {
    const int64_t left = last - p;
    const N* panels = w.data + p * panel;
    const Real* b = bias ? bias + p * width : nullptr;
    Real* out = c + (p - first) * width;
    if (group == 4 && left >= 4) {
      rows_by_panels<N, G, 4>(rows, a, a_stride, w.K, panels, b, out, c_stride);
      p += 4;
    } else if (group >= 2 && left >= 2) {
      rows_by_panels<N, G, 2>(rows, a, a_stride, w.K, panels, b, out, c_stride);
      p += 2;
    } else {
      rows_by_panels<N, G, 1>(rows, a, a_stride, w.K, panels, b, out, c_stride);
      p += 1;
    }
  }
}

template <class Real>
using HalfVector = typename Short<Real, Lanes<Real>::count / 2>::V;

// R rows of A by C rows of W: LANES partial sums along k for each, the one of row r and column c folded into
// sums[r * LANES + c].
template <class N, int R, int C>
INLINE void dot_tile(const N* a, int64_t a_stride, int64_t K, const N* const* w, HalfVector<RealOf<N>>* sums) {
  typedef RealOf<N> Real;
  typedef typename Operand<N>::V O;
  constexpr int64_t L = Lanes<Real>::count, at_once = L * Operand<N>::numbers;
  Vector<Real> sum[R][C] = {};
  int64_t k = 0;
  for (; k + at_once <= K; k += at_once) {
    O x[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) x[r] = load_operand<N>(a + r * a_stride + k);
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
      const O weight = load_operand<N>(w[c] + k);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sum[r][c] = multiply_add_operands(x[r], weight, sum[r][c]);
    }
  }
  if (k < K) {
    for (int c = 0; c < C; ++c) {
      const O weight = load_operand_part<N>(w[c] + k, K - k);
      for (int r = 0; r < R; ++r)
        sum[r][c] =
            multiply_add_operands(load_operand_part<N>(a + r * a_stride + k, K - k), weight, sum[r][c]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) sums[r * L + c] = fold<Real>(sum[r][c]);
  }
}

// R rows of A by the rows of W that belong to LANES units of one gate, C of them at a time.
template <class N, int R, int C>
INLINE void dot_rows(const N* a, int64_t a_stride, int64_t K, const N* const* columns, const RealOf<N>* bias,
                     RealOf<N>* c, int64_t c_stride) {
  typedef RealOf<N> Real;
  constexpr int L = Lanes<Real>::count;
  HalfVector<Real> sums[R * L];
  for (int column = 0; column < L; column += C)
    dot_tile<N, R, C>(a, a_stride, K, columns + column, sums + column);
  for (int r = 0; r < R; ++r) store_sums<Real>(sums + r * L, bias, c + r * c_stride);
}

// The product with a matrix that was not packed: for a single step, which reads it only once.
template <class N, int G>
NOINLINE void multiply_plain(int64_t rows, const N* a, int64_t a_stride, const Weights<N>& w,
                             const RealOf<N>* bias, RealOf<N>* c, int64_t c_stride, int64_t first,
                             int64_t last) {
  constexpr int64_t L = Lanes<RealOf<N>>::count, width = G * L;
  constexpr int few = L < 4 ? L : 4, many = L < 8 ? L : 8;
  for (int64_t p = first; p < last; ++p) {
    for (int64_t g = 0; g < G; ++g) {
      const N* columns[L];
      // lanes beyond the last unit repeat it; nobody reads them
      for (int64_t i = 0; i < L; ++i)
        columns[i] = w.data + (g * w.units + least(p * L + i, w.units - 1)) * w.K;
      const RealOf<N>* add = bias ? bias + p * width + g * L : nullptr;
      RealOf<N>* out = c + (p - first) * width + g * L;
      int64_t row = 0;
      for (; row + 4 <= rows; row += 4)
        dot_rows<N, 4, few>(a + row * a_stride, a_stride, w.K, columns, add, out + row * c_stride, c_stride);
      for (; row < rows; ++row)
        dot_rows<N, 1, many>(a + row * a_stride, a_stride, w.K, columns, add, out + row * c_stride, c_stride);
    }
  }
}

// R rows of A by P vectors of W's columns, W [K, units] as it is; `lanes` columns are left from `w` on.
template <class N, int R, int P>
INLINE void across_tile(const N* a, int64_t a_stride, const Weights<N>& of, const N* w, int64_t lanes,
                        RealOf<N>* c, int64_t c_stride) {
  typedef RealOf<N> Real;
  constexpr int64_t L = Lanes<Real>::count;
  Vector<Real> sum[R][P] = {};
  for (int64_t k = 0; k < of.K; ++k) {
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) {
      const Vector<Real> weight = load_part<N>(w + k * of.units + p * L, P == 1 ? lanes : L);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r)
        sum[r][p] = multiply_add(splat<Real>(widen(a[r * a_stride + k])), weight, sum[r][p]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int p = 0; p < P; ++p) store<Real>(c + r * c_stride + p * L, sum[r][p]);
  }
}

// C = A W with W [K, units] as it is: for the backward of a single step, which reads it only once.
template <class N>
NOINLINE void multiply_across(int64_t rows, const N* a, int64_t a_stride, const Weights<N>& w, RealOf<N>* c,
                              int64_t c_stride, int64_t first, int64_t last) {
  constexpr int64_t L = Lanes<RealOf<N>>::count;
  constexpr int together = REGISTERS == 32 ? 8 : 4, row_group = REGISTERS == 32 ? 3 : 2;
  for (int64_t p = first; p < last;) {
    const bool whole = p + together <= last && (p + together) * L <= w.units;
    const N* columns = w.data + p * L;
    RealOf<N>* out = c + (p - first) * L;
    const int64_t lanes = w.units - p * L;
    int64_t row = 0;
    for (; row + row_group <= rows; row += row_group) {
      const N* of = a + row * a_stride;
      if (whole)
        across_tile<N, row_group, together>(of, a_stride, w, columns, lanes, out + row * c_stride, c_stride);
      else
        across_tile<N, row_group, 1>(of, a_stride, w, columns, lanes, out + row * c_stride, c_stride);
    }
    for (; row < rows; ++row) {
      const N* of = a + row * a_stride;
      if (whole)
        across_tile<N, 1, together>(of, a_stride, w, columns, lanes, out + row * c_stride, c_stride);
      else
        across_tile<N, 1, 1>(of, a_stride, w, columns, lanes, out + row * c_stride, c_stride);
    }
    p += whole ? together : 1;
  }
}

// C = A W for one gate, W packed by its columns or as it is.
template <class N>
INLINE void multiply_back(int64_t rows, const N* a, int64_t a_stride, const Weights<N>& w, RealOf<N>* c,
                          int64_t c_stride, int64_t first, int64_t last) {
  if (w.packed)
    multiply_packed<N, 1>(rows, a, a_stride, w, nullptr, c, c_stride, first, last);
  else
    multiply_across<N>(rows, a, a_stride, w, c, c_stride, first, last);
}

// C[rows, panels] = bias + A[rows, K] W, for the panels first <= p < last. A row of C is laid out
// [panel][gate][lane] and `c` is where panel `first` goes; `bias`, of all panels, has that layout too.
template <class N, int G>
INLINE void multiply(int64_t rows, const N* a, int64_t a_stride, const Weights<N>& w, const RealOf<N>* bias,
                     RealOf<N>* c, int64_t c_stride, int64_t first, int64_t last) {
  if (w.packed)
    multiply_packed<N, G>(rows, a, a_stride, w, bias, c, c_stride, first, last);
  else
    multiply_plain<N, G>(rows, a, a_stride, w, bias, c, c_stride, first, last);
}

}  // namespace GATEDCELLS_LEVEL
