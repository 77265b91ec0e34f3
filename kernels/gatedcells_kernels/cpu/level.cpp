// Compiled once for each instruction set: with -DGATEDCELLS_LEVEL=<name>, its vector width and registers.
#include "level.h"

#include "gru.h"
#include "input_gradient.h"
#include "lstm.h"
#include "weight_gradients.h"

#define GATEDCELLS_STRING_OF(x) #x
#define GATEDCELLS_STRING(x) GATEDCELLS_STRING_OF(x)
#define GATEDCELLS_JOIN_OF(a, b) a##b
#define GATEDCELLS_JOIN(a, b) GATEDCELLS_JOIN_OF(a, b)

namespace GATEDCELLS_LEVEL {

template <class N>
int64_t size_of(const GatedcellsPack& call) {
  if (call.by_rows) return packed_size<N>(call.rows / call.gates, call.gates, call.columns);
  return packed_size<N>(call.columns, 1, call.rows);
}

template <class N>
int pack_as(const GatedcellsPack& call) {
  const N* matrix = static_cast<const N*>(call.matrix);
  N* packed = static_cast<N*>(call.packed);
  if (call.by_rows)
    pack_by_rows<N>(matrix, call.row_stride, call.rows / call.gates, call.gates, call.columns, packed);
  else
    pack_by_columns<N>(matrix, call.row_stride, call.columns, call.rows, packed);
  return 0;
}

// N: what the values are for; they are given unrounded.
template <class N>
void activation_of(int which, int64_t n, const RealOf<N>* x, RealOf<N>* y) {
  typedef RealOf<N> Real;
  constexpr int64_t L = Lanes<Real>::count;
  for (int64_t i = 0; i < n; i += L) {
    const Vector<Real> at = load_part<Real>(x + i, n - i);
    store_part<Real>(y + i, which == 0 ? sigmoid<N>(at) : hyperbolic_tangent<N>(at), n - i);
  }
}

void activation(int which, int dtype, int64_t n, const void* x, void* y) {
  const float* given = static_cast<const float*>(x);
  switch (dtype) {
    case GATEDCELLS_FLOAT64:
      return activation_of<double>(which, n, static_cast<const double*>(x), static_cast<double*>(y));
    case GATEDCELLS_BFLOAT16: return activation_of<Bfloat16>(which, n, given, static_cast<float*>(y));
    default: return activation_of<float>(which, n, given, static_cast<float*>(y));
  }
}

#define GATEDCELLS_FOR_ALL(Result, name, Call)                                 \
  Result name##_any(const Call& call) {                                        \
    switch (call.dtype) {                                                      \
      case GATEDCELLS_FLOAT64: return name<double>(call);                      \
      case GATEDCELLS_BFLOAT16: return name<Bfloat16>(call);                   \
      default: return name<float>(call);                                       \
    }                                                                          \
  }

// Tensors of one type, weights of the same or, beside bfloat16, of float32.
#define GATEDCELLS_WALKS(name, Call)                                           \
  int name##_any(const Call& call) {                                           \
    if (call.form == GATEDCELLS_WIDENED) return name<Bfloat16, float>(call);   \
    switch (call.dtype) {                                                      \
      case GATEDCELLS_FLOAT64: return name<double, double>(call);              \
      case GATEDCELLS_BFLOAT16: return name<Bfloat16, Bfloat16>(call);         \
      default: return name<float, float>(call);                                \
    }                                                                          \
  }

GATEDCELLS_FOR_ALL(int64_t, size_of, GatedcellsPack)
GATEDCELLS_FOR_ALL(int, pack_as, GatedcellsPack)
GATEDCELLS_WALKS(gru_forward, GatedcellsGRU)
GATEDCELLS_WALKS(gru_backward, GatedcellsGRUBackward)
GATEDCELLS_WALKS(lstm_forward, GatedcellsLSTM)
GATEDCELLS_WALKS(lstm_backward, GatedcellsLSTMBackward)

// As what bfloat16 is multiplied: in pairs where the CPU does that.
template <bool PAIRS>
struct Multiplied {
  typedef float N;
};
template <>
struct Multiplied<true> {
  typedef Bfloat16 N;
};

#define GATEDCELLS_PRODUCTS(name, Call)                                        \
  int name##_any(const Call& call) {                                           \
    switch (call.dtype) {                                                      \
      case GATEDCELLS_FLOAT64: return name<double, double>(call);              \
      case GATEDCELLS_BFLOAT16: return name<Bfloat16, Multiplied<MULTIPLIES_PAIRS>::N>(call); \
      default: return name<float, float>(call);                                \
    }                                                                          \
  }

GATEDCELLS_PRODUCTS(weight_gradients, GatedcellsWeightGradients)
GATEDCELLS_PRODUCTS(input_gradient, GatedcellsInputGradient)

}  // namespace GATEDCELLS_LEVEL

const GatedcellsLevel GATEDCELLS_JOIN(gatedcells_, GATEDCELLS_LEVEL) = {
    GATEDCELLS_STRING(GATEDCELLS_LEVEL),   GATEDCELLS_VECTOR_BYTES,
    GATEDCELLS_LEVEL::size_of_any,         GATEDCELLS_LEVEL::pack_as_any,
    GATEDCELLS_LEVEL::hash_of,
    GATEDCELLS_LEVEL::gru_forward_any,     GATEDCELLS_LEVEL::gru_backward_any,
    GATEDCELLS_LEVEL::lstm_forward_any,    GATEDCELLS_LEVEL::lstm_backward_any,
    GATEDCELLS_LEVEL::weight_gradients_any, GATEDCELLS_LEVEL::input_gradient_any,
    GATEDCELLS_LEVEL::activation,          GATEDCELLS_LEVEL::MULTIPLIES_PAIRS,
};
