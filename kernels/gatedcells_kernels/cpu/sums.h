// Sums over the lanes of vectors, many at once.
#pragma once
#include "vectors.h"

namespace GATEDCELLS_LEVEL {

// N lanes, which may be fewer than the CPU's.
template <class Real, int N>
struct Short {
  typedef Real V __attribute__((vector_size(N * sizeof(Real))));
  typedef Real Unaligned __attribute__((vector_size(N * sizeof(Real)), aligned(sizeof(Real)), may_alias));
  typedef typename Lanes<Real>::Int IV __attribute__((vector_size(N * sizeof(Real))));
};

// In every block of W lanes, the sums of its first and second half: of `a` in the block's first half, of `b`
// in its second.
template <class Real, int N, int W>
INLINE typename Short<Real, N>::V add_halves(typename Short<Real, N>::V a, typename Short<Real, N>::V b) {
#if defined(__clang__)
  typename Short<Real, N>::V low{}, high{};
  for (int i = 0; i < N; ++i) {
    const int from = i - i % W + i % W % (W / 2);
    low[i] = i % W < W / 2 ? a[from] : b[from];
    high[i] = i % W < W / 2 ? a[from + W / 2] : b[from + W / 2];
  }
  return low + high;
#else
  typename Short<Real, N>::IV low{}, high{};
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) {
    low[i] = i - i % W + i % W % (W / 2) + (i % W < W / 2 ? 0 : N);
    high[i] = low[i] + W / 2;
  }
  return __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
#endif
}

// N vectors of N lanes, each added up as a tree: lane i of the first is then the sum of vector i.
template <class Real, int N, int W = N>
INLINE void add_lanes(typename Short<Real, N>::V* v) {
  if constexpr (W > 1) {
#pragma GCC unroll 8
    for (int i = 0; i < W / 2; ++i) v[i] = add_halves<Real, N, W>(v[i], v[i + W / 2]);
    add_lanes<Real, N, W / 2>(v);
  }
}

// The two halves of a vector, added.
template <class Real>
INLINE typename Short<Real, Lanes<Real>::count / 2>::V fold(Vector<Real> v) {
  typedef typename Short<Real, Lanes<Real>::count / 2>::V Half;
#if defined(__AVX512F__) && GATEDCELLS_VECTOR_BYTES == 64
  const __m512d bits = (__m512d)v;
  return (Half)_mm512_castpd512_pd256(bits) + (Half)_mm512_extractf64x4_pd(bits, 1);
#elif defined(__AVX__) && GATEDCELLS_VECTOR_BYTES == 32
  const __m256d bits = (__m256d)v;
  return (Half)_mm256_castpd256_pd128(bits) + (Half)_mm256_extractf128_pd(bits, 1);
#else
  Half halves[2];
  memcpy(halves, &v, sizeof(v));
  return halves[0] + halves[1];
#endif
}

// LANES folded vectors, each added up over its lanes as a tree: to[i] is the sum of vector i, plus add[i].
template <class Real>
INLINE void store_sums(typename Short<Real, Lanes<Real>::count / 2>::V* v, const Real* add, Real* to) {
  constexpr int L = Lanes<Real>::count, half = L / 2;
  typedef typename Short<Real, half>::Unaligned Unaligned;
#pragma GCC unroll 2
  for (int group = 0; group < L; group += half) {
    add_lanes<Real, half>(v + group);
    *reinterpret_cast<Unaligned*>(to + group) =
        add ? v[group] + *reinterpret_cast<const Unaligned*>(add + group) : v[group];
  }
}

}  // namespace GATEDCELLS_LEVEL
