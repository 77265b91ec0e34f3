// What the products of the backward pass share: sums over rows or gates, of which there may be many.
//
// One side of a product is lined up in vectors, panels of up to three as multiply.h reads them, and the other is read
// number by number. Many terms are summed ROWS_SUMMED at a time, and those sums are added up in their order, whatever
// the number of threads: as exact as the products of libraries, which do the same.
//
// S is the type of the tensors, N that of the operands: bfloat16 is multiplied in pairs, or as float32.
#pragma once
#include "calls.h"
#include "share.h"

namespace GATEDCELLS_LEVEL {

template <class N>
constexpr int64_t ROWS_SUMMED = 256 * Operand<N>::numbers;  // few enough for the result to be exact
constexpr int64_t PANEL_VECTORS = 3;                        // with ROWS numbers they are a tile
constexpr int64_t ROWS_AHEAD = 16;                          // that are fetched while others are lined up

// Rows of numbers, the first of them in one place and the rest in another.
template <class S>
struct Lines {
  const S *first, *second;
  int64_t early, rows, stride;
  INLINE const S* at(int64_t row) const {
    return row < early ? first + row * stride : second + (row - early) * stride;
  }
};

template <class S>
INLINE Lines<S> lines(const S* first, int64_t rows, int64_t stride) {
  return {first, nullptr, rows, rows, stride};
}

// Lanes that so many columns fill.
template <class N>
INLINE int64_t lined_up_width(int64_t columns) {
  return ceil_div(columns, Lanes<RealOf<N>>::count) * Lanes<RealOf<N>>::count;
}

// Columns of some rows as operands: to[row][lane], neighbouring rows in one lane where operands are pairs; zeros
// beyond the last column, and beside the last of an odd number of rows.
template <class N, class S>
NOINLINE void line_up(const Lines<S>& from, int64_t column, int64_t columns, Range rows, N* to) {
  constexpr int64_t L = Lanes<RealOf<N>>::count, together = Operand<N>::numbers;
  const int64_t width = lined_up_width<N>(columns);
  to += rows.first * width;
  for (int64_t k = rows.first; k < rows.last; k += together, to += together * width) {
    const S* row = from.at(k) + column;
    const S* ahead = from.at(least(k + ROWS_AHEAD, from.rows - 1)) + column;
    const S* beside = from.at(least(k + ROWS_AHEAD + 1, from.rows - 1)) + column;
    for (int64_t c = 0; c < columns; c += L) {
      __builtin_prefetch(ahead + c);
      if (together == 2) __builtin_prefetch(beside + c);
      const Vector<RealOf<S>> numbers = load_part<S>(row + c, columns - c);
      if constexpr (together == 1) {
        store<N>(to + c, numbers);
      } else {
        Words pairs = reinterpret_cast<Words>(numbers) >> 16;
        if (k + 1 < rows.last) pairs |= reinterpret_cast<Words>(load_part<S>(from.at(k + 1) + column + c, columns - c));
        memcpy(static_cast<void*>(to + together * c), &pairs, sizeof(pairs));
      }
    }
  }
}

// The side that is read number by number, down its columns.
template <class N>
struct Columns {
  const N* data;
  int64_t stride;
};

// Whether numbers are read where they are.
template <class S, class N>
constexpr bool IN_PLACE = sizeof(S) == sizeof(RealOf<N>);

// Columns where they are, or lined up where there is `room` for them.
template <class N, class S>
INLINE Columns<N> columns_of(const S* from, int64_t stride, int64_t columns, int64_t rows, N* room) {
  if constexpr (IN_PLACE<S, N>) {
    return {from, stride};
  } else {
    line_up<N, S>(lines(from, rows, stride), 0, columns, {0, rows}, room);
    return {room, lined_up_width<N>(columns)};
  }
}

// sums[number][vector]: for each column the sums down it, each number times its row of the panel; or they are added to
// what is there.
template <class N, int V>
INLINE void multiply_down(const Columns<N>& numbers, int64_t count, int64_t rows, const N* panel, RealOf<N>* sums,
                          bool are_added = false) {
  rows_by_panels<N, V, 1, false, true>(count, numbers.data, numbers.stride, rows, panel, are_added ? sums : nullptr,
                                       sums, V * Lanes<RealOf<N>>::count);
}

// The number of vectors of a panel, known when it is compiled.
template <int V>
struct Vectors {
  static constexpr int count = V;
};

// work(vectors, first column, columns) for a member's part of some columns, in panels as even as they can be.
template <class N, class Work>
INLINE void in_panels(Range columns, int64_t rank, int64_t size, const Work& work) {
  constexpr int64_t L = Lanes<RealOf<N>>::count;
  const int64_t vectors = ceil_div(columns.count(), L), panels = ceil_div(vectors, PANEL_VECTORS);
  const Range mine = part(panels, rank, size);
  for (int64_t p = mine.first; p < mine.last; ++p) {
    const Range of = part(vectors, p, panels);
    const int64_t column = columns.first + of.first * L, lanes = least(of.count() * L, columns.last - column);
    if (of.count() == 1) work(Vectors<1>{}, column, lanes);
    if (of.count() == 2) work(Vectors<2>{}, column, lanes);
    if (of.count() == 3) work(Vectors<3>{}, column, lanes);
  }
}

}  // namespace GATEDCELLS_LEVEL
