// The logistic function and tanh on vectors, right to a few units in the last place everywhere.
//
// Both stand on expm1(y) for y <= 0: y = n ln 2 + r with |r| <= ln(2)/2, and
//   expm1(r) = r + r^2 q(r),   e^y = 2^n (1 + expm1(r)),   expm1(y) = 2^n expm1(r) + (2^n - 1).
// q is a polynomial through the Chebyshev nodes of the interval (relative error of expm1(r): 2.5e-8 in
// float32, 4e-17 in float64). |x| is halved or negated first so that nothing overflows:
//   sigmoid(x) = 1 / (1 + e)  for x >= 0,  e / (1 + e)  for x < 0,   e = e^-|x|
//   tanh|x|    = -m / (2 + m),   m = expm1(-2|x|)     (no cancellation near 0, 1 at infinity)
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
  static constexpr float saturates = -40.0f;              // expm1(y) rounds to -1
  static constexpr int bias = 127, mantissa = 23;
  static constexpr int terms = 5;
  static constexpr float q[terms] = {0.5f, 0.1666657667f, 0.04166655421f, 0.008363232884f, 0.001392625083f};
};

template <>
struct Exponential<double> {
  static constexpr double log2e = 1.4426950408889634, ln2_high = 6.93147180369123816490e-01,
                          ln2_low = 1.90821492927058770002e-10;
  static constexpr double round_to_integer = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double vanishes = -748.0, saturates = -90.0;
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
};

template <class Real>
struct Reduced {
  Vector<Real> expm1;                 // of the remainder r
  typename Lanes<Real>::IV exponent;  // n
};

template <class Real>
INLINE Reduced<Real> reduce(Vector<Real> y) {
  typedef Vector<Real> V;
  typedef typename Lanes<Real>::IV IV;
  typedef Exponential<Real> E;
  const V magic = splat<Real>(E::round_to_integer);
  const V shifted = y * E::log2e + magic;
  const V n = shifted - magic;
  V r = y - n * E::ln2_high;
  r = r - n * E::ln2_low;
  V q = splat<Real>(E::q[E::terms - 1]);
#pragma GCC unroll 16
  for (int i = E::terms - 2; i >= 0; --i) q = q * r + E::q[i];
  return {r * r * q + r, (IV)shifted - (IV)magic};
}

template <class Real>
INLINE Vector<Real> power_of_two(typename Lanes<Real>::IV n) {
  typedef Exponential<Real> E;
  return (Vector<Real>)((n + E::bias) << E::mantissa);
}

template <class Real>
INLINE Vector<Real> absolute(Vector<Real> x) {
  typedef typename Lanes<Real>::IV IV;
  const IV sign = (IV)splat<Real>(Real(-0.0));
  return (Vector<Real>)((IV)x & ~sign);
}

template <class Real>
INLINE Vector<Real> sigmoid(Vector<Real> x) {
  typedef Vector<Real> V;
  typedef Exponential<Real> E;
  V y = -absolute<Real>(x);
  y = y < splat<Real>(E::vanishes) ? splat<Real>(E::vanishes) : y;  // a NaN stays
  const Reduced<Real> at = reduce<Real>(y);
  // in two steps, because 2^n itself may be below the smallest normal number
  const auto half = at.exponent >> 1;
  const V e = (at.expm1 + Real(1)) * power_of_two<Real>(half) * power_of_two<Real>(at.exponent - half);
  const V above = x < Real(0) ? e : splat<Real>(1);
  return above / (e + Real(1));
}

template <class Real>
INLINE Vector<Real> hyperbolic_tangent(Vector<Real> x) {
  typedef Vector<Real> V;
  typedef typename Lanes<Real>::IV IV;
  typedef Exponential<Real> E;
  V y = absolute<Real>(x) * Real(-2);
  y = y < splat<Real>(E::saturates) ? splat<Real>(E::saturates) : y;  // a NaN stays
  const Reduced<Real> at = reduce<Real>(y);
  const V scale = power_of_two<Real>(at.exponent);
  const V m = at.expm1 * scale + (scale - Real(1));
  const V magnitude = -m / (m + Real(2));
  const IV sign = (IV)splat<Real>(Real(-0.0));
  return (V)(((IV)x & sign) | ((IV)magnitude & ~sign));
}

}  // namespace GATEDCELLS_LEVEL
