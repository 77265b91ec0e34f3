// The logistic function and tanh on vectors, right to a few units in the last place everywhere; see below for bfloat16.
//
// Both stand on e^y for y <= 0: y = n ln 2 + r with |r| <= ln(2)/2, and e^y = 2^n (1 + r + r^2 q(r)), where q
// is a polynomial through the Chebyshev nodes of the interval (relative error 2.5e-8 in float32, 4e-17 in
// float64). |x| is negated first, so that nothing overflows:
//   sigmoid(x) = 1 / (1 + e)  for x >= 0,  e / (1 + e)  for x < 0,   e = e^-|x|
//   tanh|x|    = 1 - 2 e / (1 + e),  e = e^-2|x|,  from 0.5625 on: what is subtracted is below a half
//   tanh(x)    = x + x x^2 p(x^2)  below, where that would cancel (p likewise; 5e-9 and 4e-18)
#pragma once
#include "vectors.h"

namespace GATEDCELLS_LEVEL {

template <class Real>
struct Exponential;

template <>
struct Exponential<float> {
  static constexpr float log2e = 1.44269504f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  static constexpr float round_to_integer = 12582912.0f;  // 1.5 * 2^23: adding it drops the fraction
  static constexpr float vanishes = -106.0f;              // e^y rounds to zero
  static constexpr int bias = 127, mantissa = 23;
  static constexpr int terms = 5;
  static constexpr float q[terms] = {0.5f, 0.1666657667f, 0.04166655421f, 0.008363232884f, 0.001392625083f};
  static constexpr int tanh_terms = 5;
  static constexpr float p[tanh_terms] = {-0.333333317f, 0.1333307381f, -0.05390175316f, 0.02126335345f,
                                          -0.006525572169f};
};

template <>
struct Exponential<double> {
  static constexpr double log2e = 1.4426950408889634, ln2_high = 6.93147180369123816490e-01,
                          ln2_low = 1.90821492927058770002e-10;
  static constexpr double round_to_integer = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double vanishes = -748.0;
  static constexpr int bias = 1023, mantissa = 52;
  static constexpr int terms = 10;
  static constexpr double q[terms] = {0.5,
                                      0.1666666666666666746,
                                      0.04166666666662382053,
                                      0.008333333333330038197,
                                      0.001388888891736708056,
                                      0.0001984126986317155603,
                                      0.0000248015210578682052,
                                      2.755726827690569619e-6,
                                      2.762020159103154879e-7,
                                      2.5100472505694996e-8};
  static constexpr int tanh_terms = 11;
  static constexpr double p[tanh_terms] = {-0.333333333333333321,
                                           0.1333333333333239093,
                                           -0.05396825396705939652,
                                           0.02186948847696256136,
                                           -0.008863234021529513596,
                                           0.003592105532132768772,
                                           -0.001455623977419267782,
                                           0.0005887537111834803907,
                                           -0.000234105569366727973,
                                           0.00008426522203958066102,
                                           -0.00002002674008531768475};
};

template <class Real>
INLINE Vector<Real> power_of_two(typename Lanes<Real>::IV n) {
  typedef Exponential<Real> E;
  return (Vector<Real>)((n + E::bias) << E::mantissa);
}

// The bits of `x` under the mask of the sign.
template <class Real>
INLINE typename Lanes<Real>::IV sign_mask() {
  return (typename Lanes<Real>::IV)splat<Real>(Real(-0.0));
}

template <class Real>
INLINE Vector<Real> minus_absolute(Vector<Real> x) {
  return (Vector<Real>)((typename Lanes<Real>::IV)x | sign_mask<Real>());
}

// power * 2^n for whole numbers n, rounded once; `shifted` is n plus the magic number.
template <class Real>
INLINE Vector<Real> scale(Vector<Real> power, Vector<Real> n, Vector<Real> shifted) {
#if defined(__AVX512F__) && GATEDCELLS_VECTOR_BYTES == 64
  (void)shifted;
  if constexpr (sizeof(Real) == 4)
    return (Vector<Real>)_mm512_scalef_ps((__m512)power, (__m512)n);
  else
    return (Vector<Real>)_mm512_scalef_pd((__m512d)power, (__m512d)n);
#else
  typedef typename Lanes<Real>::IV IV;
  (void)n;
  // in two steps, because 2^n may itself be below the smallest normal number
  const IV exponent = (IV)shifted - (IV)splat<Real>(Exponential<Real>::round_to_integer), half = exponent >> 1;
  return power * power_of_two<Real>(half) * power_of_two<Real>(exponent - half);
#endif
}

template <class Real>
INLINE Vector<Real> polynomial(Vector<Real> x, const Real* coefficients, int terms) {
  Vector<Real> sum = splat<Real>(coefficients[terms - 1]);
#pragma GCC unroll 16
  for (int i = terms - 2; i >= 0; --i) sum = multiply_add(sum, x, splat<Real>(coefficients[i]));
  return sum;
}

// y, not below where e^y rounds to zero; a NaN stays.
template <class Real>
INLINE Vector<Real> not_vanishing(Vector<Real> y) {
  const Vector<Real> least = splat<Real>(Exponential<Real>::vanishes);
#if defined(__AVX512F__) && GATEDCELLS_VECTOR_BYTES == 64
  if constexpr (sizeof(Real) == 4) return (Vector<Real>)_mm512_max_ps((__m512)least, (__m512)y);  // of a NaN, y
#endif
  return least > y ? least : y;
}

// e^y for y <= 0, down to the smallest numbers there are.
template <class Real>
INLINE Vector<Real> exponential(Vector<Real> y) {
  typedef Vector<Real> V;
  typedef Exponential<Real> E;
  y = not_vanishing<Real>(y);
  const V magic = splat<Real>(E::round_to_integer);
  const V shifted = multiply_add(y, splat<Real>(E::log2e), magic);
  const V n = shifted - magic;
  V r = multiply_add(n, splat<Real>(-E::ln2_high), y);
  r = multiply_add(n, splat<Real>(-E::ln2_low), r);
  const V power = multiply_add(r * r, polynomial<Real>(r, E::q, E::terms), r) + Real(1);
  return scale<Real>(power, n, shifted);
}

#if defined(__AVX512F__) && GATEDCELLS_VECTOR_BYTES == 64
// With the sixteen roots of two in a register, e^y = 2^(n/16) e^r leaves |r| <= ln(2)/32: a shorter polynomial.
constexpr float ROOTS[16] = {
    1.0f, 1.04427373f, 1.09050775f, 1.13878858f, 1.18920708f, 1.24185777f,
    1.29683959f, 1.35425556f, 1.41421354f, 1.47682619f, 1.54221082f, 1.61049032f,
    1.68179286f, 1.75625217f, 1.8340081f, 1.91520655f};
constexpr float BEYOND[16] = {  // what a root has beyond float32, over the root
    0.0f, 4.62854715e-08f, -1.19921575e-08f, 4.72978243e-08f, 3.19341815e-08f, 3.62105723e-08f,
    -3.09907193e-08f, -7.47521334e-09f, 1.71142709e-08f, -3.04768335e-08f, 5.23333421e-09f, 6.10759177e-09f,
    -1.47196051e-08f, -5.25879518e-09f, -6.12825968e-09f, 5.14060927e-09f};

template <>
INLINE Vector<float> exponential<float>(Vector<float> y) {
  typedef Exponential<float> E;
  constexpr float series[3] = {1.0f, 0.500016212f, 0.166670308f};  // error 1.6e-09
  y = not_vanishing<float>(y);
  const Vector<float> magic = splat<float>(E::round_to_integer / 16);  // drops what is below a sixteenth
  const Vector<float> shifted = multiply_add(y, splat<float>(E::log2e), magic), n = shifted - magic;
  Vector<float> r = multiply_add(n, splat<float>(-E::ln2_high), y);
  r = multiply_add(n, splat<float>(-E::ln2_low), r);
  const auto root = (Vector<float>)_mm512_permutexvar_ps((__m512i)shifted, _mm512_loadu_ps(ROOTS));
  const auto beyond = (Vector<float>)_mm512_permutexvar_ps((__m512i)shifted, _mm512_loadu_ps(BEYOND));
  const Vector<float> power = scale<float>(root, n, shifted);  // by 2 to the whole number below
  return multiply_add(power, multiply_add(r, polynomial<float>(r, series, 3), beyond), power);
}
#endif

// The logistic function of a vector; N is the type that its values will be stored in.
template <class N>
INLINE Vector<RealOf<N>> sigmoid(Vector<RealOf<N>> x) {
  typedef RealOf<N> Real;
  const Vector<Real> e = exponential<Real>(minus_absolute<Real>(x));
  return (x < Real(0) ? e : splat<Real>(1)) / (e + Real(1));
}

template <class N>
INLINE Vector<RealOf<N>> hyperbolic_tangent(Vector<RealOf<N>> x) {
  typedef RealOf<N> Real;
  typedef Vector<Real> V;
  typedef typename Lanes<Real>::IV IV;
  typedef Exponential<Real> E;
  const V minus = minus_absolute<Real>(x), square = x * x;
  const V e = exponential<Real>(minus + minus);
  const V far = Real(1) - (e + e) / (e + Real(1));
  const V near = multiply_add(x, square * polynomial<Real>(square, E::p, E::tanh_terms), x);
  const V result = minus > Real(-0.5625) ? near : far;
  return (V)((IV)result | ((IV)x & sign_mask<Real>()));  // also for -0, of which `near` makes 0
}

#if defined(__AVX512F__) && GATEDCELLS_VECTOR_BYTES == 64
// Values for bfloat16 are rounded to eight bits, but the state that is carried on is not; here seventeen bits are
// right, for two thirds of the time.
INLINE Vector<float> short_power_of_two(Vector<float> y) {
  constexpr float series[5] = {1.0f, 0.6930448413f, 0.2412801981f, 0.05224247277f, 0.01342668477f};  // error 2.9e-06
  const auto fraction = (Vector<float>)_mm512_reduce_ps((__m512)y, 1);  // y - floor(y)
  return (Vector<float>)_mm512_scalef_ps((__m512)polynomial<float>(fraction, series, 5), (__m512)y);
}

// 1 / x for 1 <= x <= 2
INLINE Vector<float> short_reciprocal(Vector<float> x) {
  const auto near = (Vector<float>)_mm512_rcp14_ps((__m512)x);
  return multiply_add(near, multiply_add(-x, near, splat<float>(1)), near);
}

template <>
INLINE Vector<float> sigmoid<Bfloat16>(Vector<float> x) {
  const Vector<float> e = short_power_of_two(minus_absolute<float>(x) * Exponential<float>::log2e);
  return (x < 0.0f ? e : splat<float>(1)) * short_reciprocal(e + 1.0f);
}

template <>
INLINE Vector<float> hyperbolic_tangent<Bfloat16>(Vector<float> x) {
  typedef Vector<float> V;
  typedef typename Lanes<float>::IV IV;
  constexpr float series[2] = {-0.3332460821f, 0.1287711412f};
  const V minus = minus_absolute<float>(x), square = x * x;
  const V e = short_power_of_two(minus * (2 * Exponential<float>::log2e));
  const V far = (1.0f - e) * short_reciprocal(e + 1.0f);
  const V near = multiply_add(x, square * polynomial<float>(square, series, 2), x);
  const V result = minus > -0.25f ? near : far;
  return (V)((IV)result | ((IV)x & sign_mask<float>()));
}
#endif

}  // namespace GATEDCELLS_LEVEL
