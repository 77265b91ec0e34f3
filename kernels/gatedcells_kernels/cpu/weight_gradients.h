// Gradients of weights and biases, sums over the rows of all steps: d^T read and d^T 1.
//
// The gates' gradients d are lined up in vectors, and what the weights have read goes by number by number; with few
// rows and wide weights the other way round.
#pragma once
#include "products.h"

namespace GATEDCELLS_LEVEL {

constexpr int64_t NUMBERS_AT_ONCE = 512;  // of few rows: as many sums as stay in cache until they are stored

// Columns of d that belong to rows of weights, and to numbers of biases, from these on; -1: to none.
struct Gates {
  Range columns;
  int64_t rows_x, rows_h;
};

// The GRU's d is n (input half), r, z, n (hidden half), its weights r, z, n; the LSTM's are in one order.
struct AllGates {
  Gates list[3];
  int count;
  INLINE explicit AllGates(const GatedcellsWeightGradients& call) {
    const int64_t H = call.H;
    count = call.gru ? 3 : 1;
    if (call.gru) {
      list[0] = {{0, H}, 2 * H, -1};
      list[1] = {{H, 3 * H}, 0, 0};
      list[2] = {{3 * H, 4 * H}, -1, 2 * H};
    } else {
      list[0] = {{0, 4 * H}, 0, 0};
    }
  }
  // work(gates, vectors, first column, columns) for all panels.
  template <class N, class Work>
  INLINE void each(const Work& work) const {
    for (int i = 0; i < count; ++i)
      in_panels<N>(list[i].columns, 0, 1,
                   [&](auto vectors, int64_t column, int64_t lanes) { work(list[i], vectors, column, lanes); });
  }
};

// Rows that follow each other in memory on all sides.
template <class S, class N>
struct Some {
  Lines<S> d;
  Columns<N> input, states;
  int64_t rows;
  bool first, last;
};

// sums[number][vector][lane] to out, whose rows are the vectors' lanes.
template <class S, int V>
NOINLINE void deliver_turned(const RealOf<S>* sums, int64_t numbers, int64_t lanes, S* out) {
  typedef RealOf<S> Real;
  constexpr int64_t L = Lanes<Real>::count, width = V * L, block = 16;
  for (int64_t first = 0; first < numbers; first += block) {
    const int64_t some = least(block, numbers - first);
    S turned[width][block];
    for (int64_t i = 0; i < some; ++i) {
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) {
        const Vector<Real> sum = load<Real>(sums + (first + i) * width + v * L);
        if constexpr (sizeof(S) == 2) {
          const Halves halves = narrow(sum);
#pragma GCC unroll 16
          for (int l = 0; l < L; ++l) turned[v * L + l][i].bits = halves[l];
        } else {
#pragma GCC unroll 16
          for (int l = 0; l < L; ++l) turned[v * L + l][i] = sum[l];
        }
      }
    }
    for (int64_t lane = 0; lane < lanes; ++lane)
      memcpy(static_cast<void*>(out + lane * numbers + first), turned[lane], sizeof(S) * static_cast<size_t>(some));
  }
}

// What an operand's lanes hold, one number or the sum of a pair.
template <class Real>
INLINE Vector<Real> sum_operand(const Real* from) {
  return load<Real>(from);
}
INLINE Vector<float> sum_operand(const Bfloat16* from) {
  const Words pairs = load_operand<Bfloat16>(from);
  return reinterpret_cast<Vector<float>>(pairs << 16) + reinterpret_cast<Vector<float>>(pairs & 0xFFFF0000u);
}

// The sums down a panel, or they are added to what is there: 32 rows at a time and those in four parts, because short
// sums are more exact.
template <class N, int V>
NOINLINE void sum_panel(const N* panel, int64_t rows, RealOf<N>* sums, bool are_added) {
  typedef RealOf<N> Real;
  constexpr int64_t L = Lanes<Real>::count, together = Operand<N>::numbers, at_once = 32;
  const auto vector = [panel](int64_t k, int v) __attribute__((always_inline)) {
    return sum_operand(panel + (k * V + v) * L * together);
  };
  const int64_t operands = ceil_div(rows, together);
  Vector<Real> total[V] = {};
  for (int64_t first = 0; first < operands; first += at_once) {
    const int64_t last = least(first + at_once, operands);
    Vector<Real> parts[4][V] = {};
    int64_t k = first;
    for (; k + 4 <= last; k += 4) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
#pragma GCC unroll 3
        for (int v = 0; v < V; ++v) parts[i][v] += vector(k + i, v);
      }
    }
    for (; k < last; ++k) {
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) parts[0][v] += vector(k, v);
    }
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) total[v] += (parts[0][v] + parts[1][v]) + (parts[2][v] + parts[3][v]);
  }
#pragma GCC unroll 3
  for (int v = 0; v < V; ++v) {
    Real* to = sums + v * L;
    store<Real>(to, are_added ? load<Real>(to) + total[v] : total[v]);
  }
}

// Whether d is the side that is read number by number: else the sums of wide weights have to be turned at the end,
// which few rows do not pay for.
template <class N>
INLINE bool is_across(int64_t n, int64_t width, int64_t lanes) {
  return n <= ROWS_SUMMED<N> && width >= PANEL_VECTORS * lanes;
}

template <class S, class N>
struct WeightSums {
  typedef RealOf<N> Real;
  const GatedcellsWeightGradients& call;
  AllGates all_gates;
  int64_t rank, size;      // of the member
  S *d_w_x, *d_w_h;        // what is made with d in vectors, or null
  N *panels, *numbers[2];  // working memory
  Real *sums, *kept;       // `kept` moves on from one panel to the next

  // The rows [row, row + some.rows) of the call, as many as can be.
  INLINE Some<S, N> some_from(int64_t row) {
    const bool early = row < call.split;
    Some<S, N> some;
    some.rows = least(ROWS_SUMMED<N>, (early ? call.split : call.n) - row);
    some.first = row == 0;
    some.last = row + some.rows == call.n;
    some.d = lines(static_cast<const S*>(call.d) + row * 4 * call.H, some.rows, 4 * call.H);
    const S* states = early ? static_cast<const S*>(call.first) + row * call.P
                            : static_cast<const S*>(call.second) + (row - call.split) * call.P;
    if (d_w_x)
      some.input = columns_of<N, S>(static_cast<const S*>(call.input) + row * call.I, call.I, call.I, some.rows,
                                    numbers[0]);
    if (d_w_h) some.states = columns_of<N, S>(states, call.P, call.P, some.rows, numbers[1]);
    return some;
  }

  // What the panel adds to the gradients of the weights with these numbers for each row.
  template <int V>
  INLINE void multiply_panel(const Some<S, N>& some, const N* panel, const Columns<N>& read, int64_t count,
                             int64_t lanes, S* out) {
    Real* total = take(some, count);
    multiply_down<N, V>(read, count, some.rows, panel, total, !some.first);
    if (some.last) deliver_turned<S, V>(total, count, lanes, out);
  }

  // What a panel costs, in products of its vectors.
  INLINE int64_t cost(const Gates& gates, int64_t vectors) const {
    return vectors * ((d_w_x && gates.rows_x >= 0 ? call.I : 0) + (d_w_h && gates.rows_h >= 0 ? call.P : 0) + 1);
  }

  // work(gates, vectors, first column, columns) for this member's panels: those whose middle is in its part of all the
  // work that there is.
  template <class Work>
  INLINE void each(const Work& work) const {
    int64_t all = 0, done = 0;
    const auto count = [&](const Gates& some, auto vectors, int64_t, int64_t) { all += cost(some, vectors.count); };
    all_gates.template each<N>(count);
    all_gates.template each<N>([&](const Gates& some, auto vectors, int64_t column, int64_t lanes) {
      const int64_t more = cost(some, vectors.count);
      if ((2 * done + more) * size / (2 * all) == rank) work(some, vectors, column, lanes);
      done += more;
    });
  }

  // All of this member's panels of d, some rows of them: so rows are read along, as they lie in memory.
  INLINE void line_up_panels(const Some<S, N>& some) {
    for (int64_t row = 0; row < some.rows; row += ROWS_AHEAD) {
      N* panel = panels;
      each([&](const Gates&, auto, int64_t column, int64_t lanes) {
        line_up<N, S>(some.d, column, lanes, {row, least(row + ROWS_AHEAD, some.rows)}, panel);
        panel += panel_room();
      });
    }
  }

  static INLINE int64_t panel_room() { return ROWS_SUMMED<N> * PANEL_VECTORS * Lanes<Real>::count; }

  // A panel of d, some rows of it.
  template <int V>
  NOINLINE void along(const Gates& gates, const Some<S, N>& some, const N* panel, int64_t column, int64_t lanes) {
    const int64_t at = column - gates.columns.first, I = call.I, P = call.P;
    if (d_w_x && gates.rows_x >= 0)
      multiply_panel<V>(some, panel, some.input, I, lanes, d_w_x + (gates.rows_x + at) * I);
    if (d_w_h && gates.rows_h >= 0)
      multiply_panel<V>(some, panel, some.states, P, lanes, d_w_h + (gates.rows_h + at) * P);
    if (!call.d_bias_x) return;
    Real* total = take(some, 1);
    sum_panel<N, V>(panel, some.rows, total, !some.first);
    if (!some.last) return;
    S *to_x = static_cast<S*>(call.d_bias_x), *to_h = static_cast<S*>(call.d_bias_h);
    if (gates.rows_x >= 0) deliver_turned<S, V>(total, 1, lanes, to_x + gates.rows_x + at);
    if (gates.rows_h >= 0) deliver_turned<S, V>(total, 1, lanes, to_h + gates.rows_h + at);
  }

  // Room for sums that are kept from some rows to the next, if there are more.
  INLINE Real* take(const Some<S, N>& some, int64_t count) {
    if (some.first && some.last) return sums;
    Real* taken = kept;
    kept += count * PANEL_VECTORS * Lanes<Real>::count;
    return taken;
  }

  // A panel of what was read, for few rows: no sum has to be turned.
  template <int V>
  NOINLINE void across(const Columns<N>& d, bool is_input, int64_t width, int64_t column, int64_t lanes) {
    constexpr int64_t L = Lanes<Real>::count;
    const S* first = static_cast<const S*>(is_input ? call.input : call.first);
    const Lines<S> read = {first, static_cast<const S*>(call.second), is_input ? call.n : call.split, call.n, width};
    line_up<N, S>(read, column, lanes, {0, call.n}, panels);
    for (int i = 0; i < all_gates.count; ++i) {
      const Gates& some = all_gates.list[i];
      const int64_t rows = is_input ? some.rows_x : some.rows_h;
      if (rows < 0) continue;
      S* out = static_cast<S*>(is_input ? call.d_w_x : call.d_w_h) + rows * width + column;
      for (int64_t g = some.columns.first; g < some.columns.last; g += NUMBERS_AT_ONCE) {
        const int64_t count = least(NUMBERS_AT_ONCE, some.columns.last - g);
        multiply_down<N, V>({d.data + g * Operand<N>::numbers, d.stride}, count, call.n, panels, sums);
        for (int64_t one = 0; one < count; ++one, out += width)
          for (int v = 0; v < V; ++v)
            if (lanes > v * L) store_part<S>(out + v * L, load<Real>(sums + (one * V + v) * L), lanes - v * L);
      }
    }
  }
};

template <class S, class N>
void weight_gradients_member(const void* given, GatedcellsTeam* team, int rank) {
  typedef RealOf<N> Real;
  const GatedcellsWeightGradients& call = *static_cast<const GatedcellsWeightGradients*>(given);
  constexpr int64_t L = Lanes<Real>::count, widest = PANEL_VECTORS * L;
  const int size = __atomic_load_n(&team->size, __ATOMIC_RELAXED);
  S *d_w_x = static_cast<S*>(call.d_w_x), *d_w_h = static_cast<S*>(call.d_w_h);
  const bool x_across = d_w_x && is_across<N>(call.n, call.I, L), h_across = d_w_h && is_across<N>(call.n, call.P, L);
  WeightSums<S, N> sums = {call, AllGates(call), rank, size, x_across ? nullptr : d_w_x, h_across ? nullptr : d_w_h,
                           nullptr, {}, nullptr, nullptr};
  const int64_t count = (sums.d_w_x ? call.I : 0) + (sums.d_w_h ? call.P : 0) + (call.d_bias_x ? 1 : 0);
  int64_t panels = 0;
  sums.each([&](const Gates&, auto, int64_t, int64_t) { ++panels; });
  const auto room = [](bool is_wanted, int64_t columns) {
    return is_wanted && !IN_PLACE<S, N> ? ROWS_SUMMED<N> * lined_up_width<N>(columns) : 0;
  };
  const int64_t rooms[3] = {room(sums.d_w_x, call.I), room(sums.d_w_h, call.P), room(x_across || h_across, 4 * call.H)};
  const int64_t at_once = most(NUMBERS_AT_ONCE, count), lined_up = most(1, panels) * sums.panel_room();
  Scratch<Real> scratch(lined_up + (at_once + panels * count) * widest + rooms[0] + rooms[1] + rooms[2]);
  if (scratch.next == nullptr) {
    __atomic_store_n(&team->failed, 1, __ATOMIC_RELAXED);
    return;
  }
  sums.panels = scratch.template take_as<N>(lined_up);
  sums.sums = scratch.take(at_once * widest);
  Real* kept = scratch.take(panels * count * widest);
  for (int i = 0; i < 2; ++i) sums.numbers[i] = scratch.template take_as<N>(rooms[i]);
  for (int64_t row = 0; count && row < call.n;) {
    const Some<S, N> some = sums.some_from(row);
    row += some.rows;
    sums.kept = kept;
    sums.line_up_panels(some);
    const N* panel = sums.panels;
    sums.each([&](const Gates& gates, auto vectors, int64_t column, int64_t lanes) {
      sums.template along<decltype(vectors)::count>(gates, some, panel, column, lanes);
      panel += sums.panel_room();
    });
  }
  if (!x_across && !h_across) return;
  N* wide = scratch.template take_as<N>(rooms[2]);
  const Columns<N> d = columns_of<N, S>(static_cast<const S*>(call.d), 4 * call.H, 4 * call.H, call.n, wide);
  const auto across = [&](bool is_input, int64_t width) {
    in_panels<N>({0, width}, rank, size, [&](auto vectors, int64_t column, int64_t lanes) {
      sums.template across<decltype(vectors)::count>(d, is_input, width, column, lanes);
    });
  };
  if (x_across) across(true, call.I);
  if (h_across) across(false, call.P);
}

template <class S, class N>
int weight_gradients(const GatedcellsWeightGradients& call) {
  const int64_t multiplications = call.n * 4 * call.H * (call.I + call.P);
  const int threads = multiplications < 200000 ? 1 : static_cast<int>(call.threads);
  return gatedcells_run_team(weight_gradients_member<S, N>, &call, threads, 0);
}

}  // namespace GATEDCELLS_LEVEL
