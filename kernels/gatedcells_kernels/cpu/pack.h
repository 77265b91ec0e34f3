// Weights and biases in the layout that multiply.h reads.
#pragma once
#include "multiply.h"

namespace GATEDCELLS_LEVEL {

// Numbers in the packed form of a product with `units` columns for each gate.
template <class N>
INLINE int64_t packed_size(int64_t units, int64_t gates, int64_t K) {
  typedef RealOf<N> Real;
  const int64_t whole = panel_count<Real>(units) - 1;
  return (whole * gates + vectors_of<Real>(lanes_of<Real>(whole, units), gates)) * panel_size<N>(K);
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
template <class N>
NOINLINE void pack_by_rows(const N* matrix, int64_t stride, int64_t units, int64_t gates, int64_t K,
                           N* packed) {
  constexpr int64_t L = Lanes<RealOf<N>>::count, together = Operand<N>::numbers, run = L * together;
  constexpr int64_t block = 16;
  const int64_t panels = panel_count<RealOf<N>>(units), panel = panel_size<N>(K) * gates;
  for (int64_t p = 0; p < panels; ++p) {
    const int64_t lanes = lanes_of<RealOf<N>>(p, units), vectors = vectors_of<RealOf<N>>(lanes, gates);
    if (lanes < L && K > 0)
      memset(static_cast<void*>(packed + p * panel), 0, sizeof(N) * vectors * panel_size<N>(K));
    for (int64_t g = 0; g < gates; ++g) {
      const N* rows = matrix + (g * units + p * L) * stride;
      N* to = packed + p * panel + g * lanes * together;
      for (int64_t k0 = 0; k0 < K; k0 += block) {
        const int64_t ks = least(block, K - k0);
        N transposed[block / together][L][together] = {};
        for (int64_t l = 0; l < lanes; ++l)
          for (int64_t k = 0; k < ks; ++k)
            transposed[k / together][l][k % together] = rows[l * stride + k0 + k];
        for (int64_t k = 0; k < ceil_div(ks, together); ++k)
          memcpy(to + (k0 / together + k) * vectors * run, transposed[k], sizeof(N) * lanes * together);
      }
    }
  }
}

// Pack for d W: the sums run down the columns of the matrix [K, units]; one gate.
template <class N>
NOINLINE void pack_by_columns(const N* matrix, int64_t stride, int64_t units, int64_t K, N* packed) {
  constexpr int64_t L = Lanes<RealOf<N>>::count, together = Operand<N>::numbers, run = L * together;
  const int64_t panels = panel_count<RealOf<N>>(units), panel = panel_size<N>(K);
  for (int64_t p = 0; p < panels; ++p) {
    const int64_t lanes = least(L, units - p * L);
    N* to = packed + p * panel;
    for (int64_t k = 0; k < K; k += together, to += run) {
      const N* from = matrix + k * stride + p * L;
      if (together == 1 && lanes == L) {
        memcpy(to, from, sizeof(N) * L);
        continue;
      }
      for (int64_t l = 0; l < L; ++l)
        for (int64_t i = 0; i < together; ++i)
          to[l * together + i] = l < lanes && k + i < K ? from[i * stride + l] : N{};
    }
  }
}

// A bias [gates * units] in the layout of a row of C, zeros where there is none.
template <class N>
INLINE void spread_bias(const N* bias, int64_t units, int64_t gates, RealOf<N>* to) {
  typedef RealOf<N> Real;
  constexpr int64_t L = Lanes<Real>::count;
  for (int64_t p = 0; p < panel_count<Real>(units); ++p, to += gates * L)
    for (int64_t g = 0; g < gates; ++g)
      store<Real>(to + g * lanes_of<Real>(p, units),
                  bias ? load_part<N>(bias + g * units + p * L, units - p * L) : Vector<Real>{});
}

}  // namespace GATEDCELLS_LEVEL
