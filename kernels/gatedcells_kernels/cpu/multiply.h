// The one matrix product of the kernels: C = bias + A W, with W packed once.
//
// Packed weights are panels. A panel holds `gates` vectors of columns: for a cell those are the gates of
// the same LANES hidden units, so that one pass over A yields every gate of a unit, side by side:
//
//   packed[panel][k][gate][lane] = W[k][gate, panel * LANES + lane]
//
// A tile is R rows of A by G gates by P panels, all of it accumulated in registers while k runs. Each
// number of C is the sum over k = 0, 1, 2, ... in that order, whatever the tile: a row's result does not
// depend on which rows or threads are beside it.
#pragma once
#include "vectors.h"

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
template <class Real>
struct Weights {
  const Real* data;
  int64_t K;      // length of the sums
  int64_t units;
  bool packed;    // else the matrix as it is, [gates * units, K], for a product with its transpose
};

template <class Real, int R, int G, int P>
INLINE void tile(const Real* a, int64_t a_stride, int64_t K, const Real* packed, const Real* bias, Real* c,
                 int64_t c_stride) {
  typedef Vector<Real> V;
  constexpr int L = Lanes<Real>::count;
  const int64_t panel = K * G * L;
  V sum[R][P * G];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 32
    for (int v = 0; v < P * G; ++v) sum[r][v] = V{};
  }
  for (int64_t k = 0; k < K; ++k) {
    V x[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) x[r] = splat<Real>(a[r * a_stride + k]);
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) {
        const V w = load<Real>(packed + p * panel + (k * G + g) * L);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) sum[r][p * G + g] = multiply_add(x[r], w, sum[r][p * G + g]);
      }
    }
  }
#pragma GCC unroll 32
  for (int v = 0; v < P * G; ++v) {
    // last: a large bias would cost the sum its small digits
    const V add = bias ? load<Real>(bias + v * L) : V{};
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) store<Real>(c + r * c_stride + v * L, sum[r][v] + add);
  }
}

// All rows against P panels, R rows at a time, the tiles as even as they can be (9 rows are 5 and 4).
template <class Real, int G, int P>
NOINLINE void rows_by_panels(int64_t rows, const Real* a, int64_t a_stride, int64_t K, const Real* packed,
                             const Real* bias, Real* c, int64_t c_stride) {
  constexpr int fit = SUMS / (G * P) < 1 ? 1 : SUMS / (G * P);
  constexpr int highest = fit > ROWS ? ROWS : fit;
  int64_t tiles = ceil_div(rows, highest);
  for (; rows > 0; --tiles) {
    const int64_t now = ceil_div(rows, tiles);
    switch (now) {
#define GATEDCELLS_ROWS(R)                                                                             \
  case R:                                                                                              \
    if constexpr (R <= highest) tile<Real, R, G, P>(a, a_stride, K, packed, bias, c, c_stride);        \
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

template <class Real, int G>
INLINE void multiply_packed(int64_t rows, const Real* a, int64_t a_stride, const Weights<Real>& w,
                            const Real* bias, Real* c, int64_t c_stride, int64_t first, int64_t last) {
  constexpr int64_t width = G * Lanes<Real>::count;
  const int64_t group = panels_at_once<G>(rows);
  for (int64_t p = first; p < last;) {
    const int64_t left = last - p;
    const Real* panels = w.data + p * w.K * width;
    const Real* b = bias ? bias + p * width : nullptr;
    Real* out = c + (p - first) * width;
    if (group == 4 && left >= 4) {
      rows_by_panels<Real, G, 4>(rows, a, a_stride, w.K, panels, b, out, c_stride);
      p += 4;
    } else if (group >= 2 && left >= 2) {
      rows_by_panels<Real, G, 2>(rows, a, a_stride, w.K, panels, b, out, c_stride);
      p += 2;
    } else {
      rows_by_panels<Real, G, 1>(rows, a, a_stride, w.K, panels, b, out, c_stride);
      p += 1;
    }
  }
}

// R rows of A by four rows of W: each sum is LANES partial sums along k, added up as a tree at the end.
template <class Real, int R>
INLINE void dot_tile(const Real* a, int64_t a_stride, int64_t K, const Real* const (&w)[4], Real* sums,
                     int64_t sums_stride) {
  typedef Vector<Real> V;
  constexpr int64_t L = Lanes<Real>::count;
  V sum[R][4] = {};
  int64_t k = 0;
  for (; k + L <= K; k += L) {
    V x[R];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) x[r] = load<Real>(a + r * a_stride + k);
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const V weight = load<Real>(w[c] + k);
      // the next four rows follow in memory, too soon for the CPU's own prefetcher to see rows this short
      __builtin_prefetch(w[c] + 4 * K + k);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) sum[r][c] = multiply_add(x[r], weight, sum[r][c]);
    }
  }
  if (k < K) {
    for (int c = 0; c < 4; ++c) {
      const V weight = load_part<Real>(w[c] + k, K - k);
      for (int r = 0; r < R; ++r)
        sum[r][c] = multiply_add(load_part<Real>(a + r * a_stride + k, K - k), weight, sum[r][c]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) sums[r * sums_stride + c] = sum_of_lanes<Real>(sum[r][c]);
  }
}

// The product with a matrix that was not packed: for a single step, which reads it only once.
template <class Real, int G>
NOINLINE void multiply_plain(int64_t rows, const Real* a, int64_t a_stride, const Weights<Real>& w,
                             const Real* bias, Real* c, int64_t c_stride, int64_t first, int64_t last) {
  constexpr int64_t L = Lanes<Real>::count, width = G * L;
  constexpr int64_t quad = L < 4 ? L : 4;  // columns at once
  for (int64_t p = first; p < last; ++p) {
    for (int64_t g = 0; g < G; ++g) {
      for (int64_t lane = 0; lane < L; lane += quad) {
        const Real* columns[4];
        for (int64_t i = 0; i < 4; ++i) {
          // lanes beyond the last unit repeat it; nobody reads them
          const int64_t unit = least(p * L + lane + least(i, quad - 1), w.units - 1);
          columns[i] = w.data + (g * w.units + unit) * w.K;
        }
        for (int64_t row = 0; row < rows;) {
          Real sums[4][4];
          const int64_t now = rows - row >= 4 ? 4 : 1;
          const Real* from = a + row * a_stride;
          if (now == 4)
            dot_tile<Real, 4>(from, a_stride, w.K, columns, sums[0], 4);
          else
            dot_tile<Real, 1>(from, a_stride, w.K, columns, sums[0], 4);
          for (int64_t r = 0; r < now; ++r) {
            Real* out = c + (row + r) * c_stride + (p - first) * width + g * L + lane;
            const Real* add = bias ? bias + p * width + g * L + lane : nullptr;
            for (int64_t i = 0; i < quad; ++i) out[i] = sums[r][i] + (add ? add[i] : Real(0));
          }
          row += now;
        }
      }
    }
  }
}

// C[rows, panels] = bias + A[rows, K] W, for the panels first <= p < last. A row of C is laid out
// [panel][gate][lane] and `c` is where panel `first` goes; `bias`, of all panels, has that layout too.
template <class Real, int G>
INLINE void multiply(int64_t rows, const Real* a, int64_t a_stride, const Weights<Real>& w, const Real* bias,
                     Real* c, int64_t c_stride, int64_t first, int64_t last) {
  if (w.packed)
    multiply_packed<Real, G>(rows, a, a_stride, w, bias, c, c_stride, first, last);
  else
    multiply_plain<Real, G>(rows, a, a_stride, w, bias, c, c_stride, first, last);
}

// Numbers in the packed form of a product with `units` columns for each gate.
template <class Real>
INLINE int64_t packed_size(int64_t units, int64_t gates, int64_t K) {
  return panel_count<Real>(units) * K * gates * Lanes<Real>::count;
}

// A hash of some memory, to know again what was packed. Each lane turns over with every number that it
// meets, so that a change to any one number is a change of the hash.
NOINLINE uint64_t hash_of(const void* memory, int64_t bytes) {
  constexpr int L = Lanes<float>::count, streams = 4, at_once = streams * GATEDCELLS_VECTOR_BYTES;
  typedef uint32_t U __attribute__((vector_size(GATEDCELLS_VECTOR_BYTES)));
  typedef uint32_t UnalignedU __attribute__((vector_size(GATEDCELLS_VECTOR_BYTES), aligned(1), may_alias));
  U state[streams] = {};
  const char* from = static_cast<const char*>(memory);
  for (int s = 0; s < streams; ++s) state[s] += 0x9E3779B9u * static_cast<uint32_t>(s + 1);
  const auto meet = [&state](const char* at) {
#pragma GCC unroll 4
    for (int s = 0; s < streams; ++s) {
      const U mixed = state[s] ^ *reinterpret_cast<const UnalignedU*>(at + s * GATEDCELLS_VECTOR_BYTES);
      state[s] = ((mixed << 15) | (mixed >> 17)) * 0x85EBCA6Bu;
    }
  };
  int64_t done = 0;
  for (; done + at_once <= bytes; done += at_once) meet(from + done);
  if (done < bytes) {
    char rest[at_once] = {};
    memcpy(rest, from + done, static_cast<size_t>(bytes - done));
    meet(rest);
  }
  uint64_t hash = static_cast<uint64_t>(bytes);
  for (int s = 0; s < streams; ++s) {
    for (int lane = 0; lane < L; ++lane) {
      hash = (hash ^ state[s][lane]) * 0x9E3779B97F4A7C15u;
      hash ^= hash >> 29;
    }
  }
  return hash;
}

// Pack for x W^T: the sums run along the rows of the matrix [gates * units, K].
template <class Real>
NOINLINE void pack_by_rows(const Real* matrix, int64_t stride, int64_t units, int64_t gates, int64_t K,
                           Real* packed) {
  constexpr int64_t L = Lanes<Real>::count;
  constexpr int64_t block = 16;
  const int64_t panels = panel_count<Real>(units);
  for (int64_t p = 0; p < panels; ++p) {
    const int64_t lanes = least(L, units - p * L);
    for (int64_t g = 0; g < gates; ++g) {
      const Real* rows = matrix + (g * units + p * L) * stride;
      Real* to = packed + (p * K * gates + g) * L;
      for (int64_t k0 = 0; k0 < K; k0 += block) {
        const int64_t ks = least(block, K - k0);
        Real transposed[block][L] = {};
        for (int64_t l = 0; l < lanes; ++l)
          for (int64_t k = 0; k < ks; ++k) transposed[k][l] = rows[l * stride + k0 + k];
        for (int64_t k = 0; k < ks; ++k) memcpy(to + (k0 + k) * gates * L, transposed[k], sizeof(Real) * L);
      }
    }
  }
}

// Pack for d W: the sums run down the columns of the matrix [K, units]; one gate.
template <class Real>
NOINLINE void pack_by_columns(const Real* matrix, int64_t stride, int64_t units, int64_t K, Real* packed) {
  constexpr int64_t L = Lanes<Real>::count;
  const int64_t panels = panel_count<Real>(units);
  for (int64_t p = 0; p < panels; ++p) {
    const int64_t lanes = least(L, units - p * L);
    Real* to = packed + p * K * L;
    for (int64_t k = 0; k < K; ++k, to += L) {
      const Real* from = matrix + k * stride + p * L;
      if (lanes == L) {
        memcpy(to, from, sizeof(Real) * L);
      } else {
        for (int64_t l = 0; l < L; ++l) to[l] = l < lanes ? from[l] : Real(0);
      }
    }
  }
}

// A bias [gates * units] in the layout of a row of C, zeros where there is none.
template <class Real>
INLINE void spread_bias(const Real* bias, int64_t units, int64_t gates, Real* to) {
  constexpr int64_t L = Lanes<Real>::count;
  for (int64_t p = 0; p < panel_count<Real>(units); ++p)
    for (int64_t g = 0; g < gates; ++g, to += L)
      store<Real>(to, bias ? load_part<Real>(bias + g * units + p * L, units - p * L) : Vector<Real>{});
}

}  // namespace GATEDCELLS_LEVEL
