// The one matrix product of the kernels: C = bias + A W, with W packed once.
//
// Packed weights are panels. A panel holds `gates` vectors of columns: for a cell those are the gates of
// the same LANES hidden units, so that one pass over A yields every gate of a unit, side by side:
//
//   packed[panel][k][gate][lane] = W[k][gate, panel * LANES + lane]
//
// Where the units do not fill the last panel its gates close up, with as many lanes as there are units left: four
// gates of four units are one vector.
//
// Of bfloat16 two neighbours in k lie side by side in a lane, the last of an odd number beside a zero:
// packed[panel][k / 2][gate][lane][k % 2].
//
// A tile is R rows of A by G gates by P panels, all of it accumulated in registers while k runs. Each
// number of C is the sum over k = 0, 1, 2, ... in that order, whatever the tile: a row's result does not
// depend on which rows or threads are beside it.
#pragma once
#include "plain.h"

namespace GATEDCELLS_LEVEL {

// What a tile brings into the second-level cache meanwhile: from `at` on 1 to 4 lines at each step along k.
struct Fetch {
  uintptr_t at;
  int64_t lines;
};

// TURNED: the rows of A are its columns in memory, and `bias` is laid out as C, each row its own.
template <class N, int R, int G, int P, bool FETCH, bool TURNED>
INLINE void tile(const N* a, int64_t a_stride, int64_t K, const N* packed, const RealOf<N>* bias,
                 RealOf<N>* c, int64_t c_stride, Fetch fetch) {
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
  if (TURNED && bias) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 32
      for (int v = 0; v < P * G; ++v) __builtin_prefetch(bias + r * c_stride + v * L);
    }
  }
  // of the two sides the one with fewer vectors stays in registers while the other goes by
  const auto terms = [&](int64_t k, bool whole) __attribute__((always_inline)) {
    if constexpr (FETCH) {
      const char* line = reinterpret_cast<const char*>(fetch.at);
      __builtin_prefetch(line, 0, 2);
      if (fetch.lines > 1) __builtin_prefetch(line + CACHE_LINE, 0, 2);
      if (fetch.lines > 2) __builtin_prefetch(line + 2 * CACHE_LINE, 0, 2);
      if (fetch.lines > 3) __builtin_prefetch(line + 3 * CACHE_LINE, 0, 2);
      fetch.at += static_cast<uintptr_t>(fetch.lines * CACHE_LINE);
    }
    const auto weight = [&](int v) __attribute__((always_inline)) {
      return held(load_operand<N>(packed + (v / G) * panel + (k * G + v % G * together) * L));
    };
    const auto number = [&](int r) __attribute__((always_inline)) {
      return held(splat_operand<N>(TURNED ? a + k * a_stride + r * together : a + r * a_stride + k, whole));
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
    const V shared = bias && !TURNED ? load<Real>(bias + v * L) : V{};
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const V add = bias && TURNED ? load<Real>(bias + r * c_stride + v * L) : shared;
      store<Real>(c + r * c_stride + v * L, sum[r][v] + add);
    }
  }
}

// All rows against P panels, R rows at a time, the tiles as even as they can be (9 rows are 5 and 4). What is to
// be fetched, from `next` on and as large as these panels, is spread over the tiles, a line or more at each step.
template <class N, int G, int P, bool FETCH = false, bool TURNED = false>
NOINLINE void rows_by_panels(int64_t rows, const N* a, int64_t a_stride, int64_t K, const N* packed,
                             const RealOf<N>* bias, RealOf<N>* c, int64_t c_stride, uintptr_t next = 0) {
  constexpr int fit = SUMS / (G * P) < 1 ? 1 : SUMS / (G * P);
  constexpr int highest = fit > ROWS ? ROWS : fit;
  int64_t tiles = ceil_div(rows, highest);
  constexpr int64_t lines = ceil_div(G * P * GATEDCELLS_VECTOR_BYTES, CACHE_LINE);  // a step, in all
  Fetch fetch = {next, ceil_div(lines, tiles)};
  int64_t fetched = 0;
  for (; rows > 0; --tiles) {
    if (FETCH && fetched >= lines)
      return rows_by_panels<N, G, P, false, TURNED>(rows, a, a_stride, K, packed, bias, c, c_stride);
    const int64_t now = ceil_div(rows, tiles);
    switch (now) {
#define GATEDCELLS_ROWS(R)                                                                             \
  case R:                                                                                              \
    if constexpr (R <= highest)                                                                            \
      tile<N, R, G, P, FETCH, TURNED>(a, a_stride, K, packed, bias, c, c_stride, fetch);                   \
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
    fetch.at += static_cast<uintptr_t>(ceil_div(K, Operand<N>::numbers) * fetch.lines * CACHE_LINE);
    fetched += fetch.lines;
    if (TURNED && bias) bias += now * c_stride;
    a += now * (TURNED ? Operand<N>::numbers : a_stride);
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

// Whether to fetch the next panel while rows are multiplied by this one: both must fit the second-level cache.
template <class N, int G>
INLINE bool fetches_next(int64_t rows, const Weights<N>& w) {
  const int64_t bytes = panel_size<N>(w.K) * G * static_cast<int64_t>(sizeof(N));
  return w.ahead && rows >= ROWS && 2 * bytes < SECOND_LEVEL_CACHE;
}

template <class N, int G>
INLINE void multiply_packed(int64_t rows, const N* a, int64_t a_stride, const Weights<N>& w,
                            const RealOf<N>* bias, RealOf<N>* c, int64_t c_stride, int64_t first,
                            int64_t last) {
  typedef RealOf<N> Real;
  constexpr int64_t width = G * Lanes<Real>::count;
  const int64_t group = panels_at_once<G>(rows), panel = panel_size<N>(w.K) * G;
  const int64_t vectors = vectors_of<Real>(lanes_of<Real>(last - 1, w.units), G);
  const int64_t end = vectors < G ? last - 1 : last;
  const bool fetch = G >= 3 && fetches_next<N, G>(rows, w);
  for (int64_t p = first; p < end;) {
    const int64_t left = end - p;
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
      if constexpr (G >= 3) {
        if (fetch) {
          const int64_t bytes = w.ahead * panel * static_cast<int64_t>(sizeof(N));
          const uintptr_t next = reinterpret_cast<uintptr_t>(panels) + static_cast<uintptr_t>(bytes);
          rows_by_panels<N, G, 1, true>(rows, a, a_stride, w.K, panels, b, out, c_stride, next);
        }
      }
      if (!fetch) rows_by_panels<N, G, 1>(rows, a, a_stride, w.K, panels, b, out, c_stride);
      p += 1;
    }
  }
  if (end < last) {
    const N* panels = w.data + end * panel;
    const Real* b = bias ? bias + end * width : nullptr;
    Real* out = c + (end - first) * width;
    if (vectors == 1) rows_by_panels<N, 1, 1>(rows, a, a_stride, w.K, panels, b, out, c_stride);
    if (vectors == 2) rows_by_panels<N, 2, 1>(rows, a, a_stride, w.K, panels, b, out, c_stride);
    if (vectors == 3) rows_by_panels<N, 3, 1>(rows, a, a_stride, w.K, panels, b, out, c_stride);
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
// [panel][gate][lane], in the last panel too with room for G vectors, and `c` is where panel `first` goes;
// `bias`, of all panels, has that layout too.
template <class N, int G>
INLINE void multiply(int64_t rows, const N* a, int64_t a_stride, const Weights<N>& w, const RealOf<N>* bias,
                     RealOf<N>* c, int64_t c_stride, int64_t first, int64_t last) {
  if (w.packed)
    multiply_packed<N, G>(rows, a, a_stride, w, bias, c, c_stride, first, last);
  else
    multiply_plain<N, G>(rows, {{a, a_stride, &w}}, bias, c, c_stride, first, last);
}

}  // namespace GATEDCELLS_LEVEL
