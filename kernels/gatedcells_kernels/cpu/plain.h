// Products with weights as they are, for a single step: it reads them only once, and packing would cost more
// than it saves.
#pragma once
#include "sums.h"
#include "panels.h"

namespace GATEDCELLS_LEVEL {

template <class Real>
using HalfVector = typename Short<Real, Lanes<Real>::count / 2>::V;

// One of the products that a sum is made of: rows of A and the matrix [gates * units, K] as it is.
template <class N>
struct Plain {
  const N* a;
  int64_t a_stride;
  const Weights<N>* w;
};

// R rows of A by C rows of W: to each of the LANES partial sums of a pair what lies in its lane along k.
template <class N, int R, int C>
INLINE void add_dots(const N* a, int64_t a_stride, int64_t K, const N* const* w,
                     Vector<RealOf<N>> (&sum)[R][C]) {
  typedef typename Operand<N>::V O;
  constexpr int64_t at_once = Lanes<RealOf<N>>::count * Operand<N>::numbers;
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
    O x[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) x[r] = load_operand_part<N>(a + r * a_stride + k, K - k);
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) {
      const O weight = load_operand_part<N>(w[c] + k, K - k);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sum[r][c] = multiply_add_operands(x[r], weight, sum[r][c]);
    }
  }
}

// R rows by the rows of all matrices that belong to LANES units of one gate, C of them at a time; added up
// over the lanes only once for all products.
template <class N, int R, int C, int M>
INLINE void dot_rows(const Plain<N> (&of)[M], int64_t row,
                     const N* const (&columns)[M][Lanes<RealOf<N>>::count], const RealOf<N>* bias,
                     RealOf<N>* c, int64_t c_stride) {
  typedef RealOf<N> Real;
  constexpr int L = Lanes<Real>::count;
  HalfVector<Real> sums[R * L];
  for (int column = 0; column < L; column += C) {
    Vector<Real> sum[R][C] = {};
#pragma GCC unroll 2
    for (int m = 0; m < M; ++m)
      add_dots<N, R, C>(of[m].a + row * of[m].a_stride, of[m].a_stride, of[m].w->K, columns[m] + column, sum);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int i = 0; i < C; ++i) sums[r * L + column + i] = fold<Real>(sum[r][i]);
    }
  }
  for (int r = 0; r < R; ++r) store_sums<Real>(sums + r * L, bias, c + r * c_stride);
}

// The sum of M products with matrices that were not packed: for a single step, which reads them only once.
template <class N, int G, int M>
NOINLINE void multiply_plain(int64_t rows, const Plain<N> (&of)[M], const RealOf<N>* bias, RealOf<N>* c,
                             int64_t c_stride, int64_t first, int64_t last) {
  constexpr int64_t L = Lanes<RealOf<N>>::count, width = G * L;
  constexpr int few = L < 4 ? L : 4, many = L < 8 ? L : 8;
  for (int64_t p = first; p < last; ++p) {
    const int64_t lanes = lanes_of<RealOf<N>>(p, of[0].w->units);
    for (int64_t g = 0; g < G; ++g) {
      const N* columns[M][L];
      // lanes beyond the last unit repeat it; the next gate lies over them
      for (int m = 0; m < M; ++m)
        for (int64_t i = 0; i < L; ++i)
          columns[m][i] =
              of[m].w->data + (g * of[m].w->units + least(p * L + i, of[m].w->units - 1)) * of[m].w->K;
      const RealOf<N>* add = bias ? bias + p * width + g * lanes : nullptr;
      RealOf<N>* out = c + (p - first) * width + g * lanes;
      int64_t row = 0;
      for (; row + 4 <= rows; row += 4)
        dot_rows<N, 4, few>(of, row, columns, add, out + row * c_stride, c_stride);
      for (; row < rows; ++row) dot_rows<N, 1, many>(of, row, columns, add, out + row * c_stride, c_stride);
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

}  // namespace GATEDCELLS_LEVEL
