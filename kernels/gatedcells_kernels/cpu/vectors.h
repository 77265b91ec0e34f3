// Vectors of LANES numbers by the compilers' own vector types: one source for AVX-512, AVX2, SSE2, NEON.
//
// This header and those that build on it are compiled once for each instruction set, inside a namespace
// of that name. They use no templates of the standard library: the linker keeps one copy of such a
// template for the whole library, and it could be one that an older CPU cannot run.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__FMA__) || defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define INLINE inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#define LIKELY(condition) __builtin_expect(condition, 1)

namespace GATEDCELLS_LEVEL {

template <class Real>
struct Lanes;

template <>
struct Lanes<float> {
  typedef float V __attribute__((vector_size(GATEDCELLS_VECTOR_BYTES)));
  typedef float Unaligned __attribute__((vector_size(GATEDCELLS_VECTOR_BYTES), aligned(4), may_alias));
  typedef int32_t Int;
  typedef int32_t IV __attribute__((vector_size(GATEDCELLS_VECTOR_BYTES)));
  static constexpr int count = GATEDCELLS_VECTOR_BYTES / 4;
};

template <>
struct Lanes<double> {
  typedef double V __attribute__((vector_size(GATEDCELLS_VECTOR_BYTES)));
  typedef double Unaligned __attribute__((vector_size(GATEDCELLS_VECTOR_BYTES), aligned(8), may_alias));
  typedef int64_t Int;
  typedef int64_t IV __attribute__((vector_size(GATEDCELLS_VECTOR_BYTES)));
  static constexpr int count = GATEDCELLS_VECTOR_BYTES / 8;
};

template <class Real>
using Vector = typename Lanes<Real>::V;

constexpr int64_t CACHE_LINE = 64;  // bytes; only speed depends on it

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class Real>
INLINE Vector<Real> load(const Real* from) {
  return *reinterpret_cast<const typename Lanes<Real>::Unaligned*>(from);
}

// Begin to fetch the lines where `count` vectors will be stored, `stride` numbers apart: stores to memory that is in no
// cache would keep what follows waiting.
template <int count, class N>
INLINE void fetch_to_write(N* to, int64_t stride) {
#pragma GCC unroll 8
  for (int i = 0; i < count; ++i) __builtin_prefetch(to + i * stride, 1);
}

template <class Real>
INLINE void store(Real* to, Vector<Real> value) {
  *reinterpret_cast<typename Lanes<Real>::Unaligned*>(to) = value;
}

template <class Real>
INLINE Vector<Real> splat(Real value) {
  return value - Vector<Real>{};  // adding would turn -0 into 0
}

// a b + c, rounded once where the CPU can. Never left to the compiler (-ffp-contract=off), which may decide
// otherwise in another copy of the same code: a result must not depend on the tile that it was made in.
#if defined(__AVX512F__) && GATEDCELLS_VECTOR_BYTES == 64
INLINE Vector<float> multiply_add(Vector<float> a, Vector<float> b, Vector<float> c) {
  return (Vector<float>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
INLINE Vector<double> multiply_add(Vector<double> a, Vector<double> b, Vector<double> c) {
  return (Vector<double>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}
#elif defined(__FMA__) && GATEDCELLS_VECTOR_BYTES == 32
INLINE Vector<float> multiply_add(Vector<float> a, Vector<float> b, Vector<float> c) {
  return (Vector<float>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
INLINE Vector<double> multiply_add(Vector<double> a, Vector<double> b, Vector<double> c) {
  return (Vector<double>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}
#elif defined(__aarch64__)
INLINE Vector<float> multiply_add(Vector<float> a, Vector<float> b, Vector<float> c) {
  return (Vector<float>)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
INLINE Vector<double> multiply_add(Vector<double> a, Vector<double> b, Vector<double> c) {
  return (Vector<double>)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
}
#else
INLINE Vector<float> multiply_add(Vector<float> a, Vector<float> b, Vector<float> c) { return a * b + c; }
INLINE Vector<double> multiply_add(Vector<double> a, Vector<double> b, Vector<double> c) { return a * b + c; }
#endif

// Whether an instruction multiplies and adds pairs of bfloat16.
#if defined(__AVX512BF16__) && GATEDCELLS_VECTOR_BYTES == 64
constexpr bool MULTIPLIES_PAIRS = true;
#else
constexpr bool MULTIPLIES_PAIRS = false;
#endif

// What is computed with numbers of type N: bfloat16 is only how numbers lie in memory.
struct Bfloat16 {
  uint16_t bits;
};

template <class N>
struct Computed {
  typedef N Real;
};
template <>
struct Computed<Bfloat16> {
  typedef float Real;
};
template <class N>
using RealOf = typename Computed<N>::Real;

typedef uint16_t Halves __attribute__((vector_size(GATEDCELLS_VECTOR_BYTES / 2)));
typedef uint16_t UnalignedHalves
    __attribute__((vector_size(GATEDCELLS_VECTOR_BYTES / 2), aligned(2), may_alias));
typedef uint32_t Words __attribute__((vector_size(GATEDCELLS_VECTOR_BYTES)));

INLINE float widen(Bfloat16 number) {
  const uint32_t bits = static_cast<uint32_t>(number.bits) << 16;
  float wide;
  memcpy(&wide, &bits, 4);
  return wide;
}
INLINE float widen(float number) { return number; }
INLINE double widen(double number) { return number; }

INLINE Vector<float> widen(Halves halves) {
#if defined(__AVX512F__) && GATEDCELLS_VECTOR_BYTES == 64
  const auto words = (Words)_mm512_cvtepu16_epi32((__m256i)halves);  // of a conversion GCC makes four instructions
#else
  const Words words = __builtin_convertvector(halves, Words);
#endif
  return reinterpret_cast<Vector<float>>(words << 16);
}

// To the nearest bfloat16, ties to even; a NaN stays one.
INLINE Halves narrow(Vector<float> value) {
#if defined(__AVX512BF16__) && GATEDCELLS_VECTOR_BYTES == 64
  return (Halves)_mm512_cvtneps_pbh((__m512)value);  // a subnormal becomes zero
#else
  const Words bits = reinterpret_cast<Words>(value);
  const Words rounded = bits + 0x7FFFu + ((bits >> 16) & 1u);
  const Words is_nan = reinterpret_cast<Words>(value != value);
  return __builtin_convertvector(((is_nan & (bits | 0x400000u)) | (~is_nan & rounded)) >> 16, Halves);
#endif
}

// The first `count` lanes; the others are zero. Never touches memory beyond them.
template <class N>
INLINE Vector<RealOf<N>> load_part(const N* from, int64_t count) {
  typedef RealOf<N> Real;
  constexpr int L = Lanes<Real>::count;
  if constexpr (sizeof(N) == 2) {
    if (LIKELY(count >= L)) return widen(*reinterpret_cast<const UnalignedHalves*>(from));
#if defined(__AVX512F__) && GATEDCELLS_VECTOR_BYTES == 64
    return widen((Halves)_mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << count) - 1), from));
#else
    Halves halves{};
    memcpy(&halves, from, static_cast<size_t>(count) * 2);
    return widen(halves);
#endif
  } else {
    if (LIKELY(count >= L)) return load<Real>(from);
#if defined(__AVX512F__) && GATEDCELLS_VECTOR_BYTES == 64
    if constexpr (sizeof(Real) == 4)
      return (Vector<Real>)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), from);
    else
      return (Vector<Real>)_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1), from);
#else
    Real lanes[L] = {};
    for (int64_t i = 0; i < count; ++i) lanes[i] = from[i];
    return load<Real>(lanes);
#endif
  }
}

template <class N>
INLINE void store_part(N* to, Vector<RealOf<N>> value, int64_t count) {
  typedef RealOf<N> Real;
  constexpr int L = Lanes<Real>::count;
  if constexpr (sizeof(N) == 2) {
    const Halves halves = narrow(value);
    if (LIKELY(count >= L)) {
      *reinterpret_cast<UnalignedHalves*>(to) = halves;
      return;
    }
#if defined(__AVX512F__) && GATEDCELLS_VECTOR_BYTES == 64
    _mm256_mask_storeu_epi16(to, static_cast<__mmask16>((1u << count) - 1), (__m256i)halves);
#else
    memcpy(to, &halves, static_cast<size_t>(count) * 2);
#endif
  } else {
    if (LIKELY(count >= L)) return store<Real>(to, value);
#if defined(__AVX512F__) && GATEDCELLS_VECTOR_BYTES == 64
    if constexpr (sizeof(Real) == 4)
      _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << count) - 1), (__m512)value);
    else
      _mm512_mask_storeu_pd(to, static_cast<__mmask8>((1u << count) - 1), (__m512d)value);
#else
    Real lanes[L];
    store<Real>(lanes, value);
    for (int64_t i = 0; i < count; ++i) to[i] = lanes[i];
#endif
  }
}

// One side of a product, numbers of type N: a vector of them, or for bfloat16 a pair in each lane, of which
// both are multiplied and added at once.
template <class N>
struct Operand {
  static constexpr int numbers = 1;
  typedef Vector<N> V;
};
template <>
struct Operand<Bfloat16> {
  static constexpr int numbers = 2;
  typedef Words V;
};

// The same number, or pair of neighbours, in every lane. Of the last pair of an odd row there is only half.
template <class N>
INLINE typename Operand<N>::V splat_operand(const N* from, bool whole) {
  if constexpr (sizeof(N) == 2) {
    uint32_t pair = from->bits;
    if (whole) memcpy(&pair, from, 4);
    return pair + Words{};
  } else {
    return splat<N>(*from);
  }
}

template <class N>
INLINE typename Operand<N>::V load_operand(const N* from) {
  typedef typename Operand<N>::V Unaligned __attribute__((aligned(sizeof(N)), may_alias));
  return *reinterpret_cast<const Unaligned*>(from);
}

// The same value, in a register from here on: the compiler would rather read it from memory at every use, and
// one load for each multiplication is more than the CPU has room for.
template <class V>
INLINE V held(V value) {
#if defined(__AVX512F__)
  __asm__("" : "+v"(value));
#elif defined(__SSE2__)
  __asm__("" : "+x"(value));
#elif defined(__aarch64__)
  __asm__("" : "+w"(value));
#endif
  return value;
}

// The first `count` numbers along a row, the others zero.
template <class N>
INLINE typename Operand<N>::V load_operand_part(const N* from, int64_t count) {
  if constexpr (sizeof(N) == 2) {
    Words words{};
    memcpy(&words, from, static_cast<size_t>(least(count, 2 * Lanes<float>::count)) * 2);
    return words;
  } else {
    return load_part<N>(from, count);
  }
}

INLINE Vector<float> multiply_add_operands(Vector<float> a, Vector<float> b, Vector<float> c) {
  return multiply_add(a, b, c);
}
INLINE Vector<double> multiply_add_operands(Vector<double> a, Vector<double> b, Vector<double> c) {
  return multiply_add(a, b, c);
}
INLINE Vector<float> multiply_add_operands(Words a, Words b, Vector<float> c) {
#if defined(__AVX512BF16__) && GATEDCELLS_VECTOR_BYTES == 64
  return (Vector<float>)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b);
#else
  const auto first = [](Words w) { return reinterpret_cast<Vector<float>>(w << 16); };
  const auto second = [](Words w) { return reinterpret_cast<Vector<float>>(w & 0xFFFF0000u); };
  return multiply_add(second(a), second(b), multiply_add(first(a), first(b), c));
#endif
}

}  // namespace GATEDCELLS_LEVEL
