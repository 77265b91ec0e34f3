// Who does what: rows of the batch or hidden units, and how much at a time. None of it changes a result.
#pragma once
#include "multiply.h"
#include "team.h"

namespace GATEDCELLS_LEVEL {

struct Range {
  int64_t first, last;
  INLINE int64_t count() const { return last - first; }
};

// The part of 0..total that belongs to `rank` of `size`, as even as can be.
INLINE Range part(int64_t total, int64_t rank, int64_t size) {
  return {total * rank / size, total * (rank + 1) / size};
}

struct Plan {
  int threads;
  // false: each thread takes rows of the batch through all steps by itself.
  // true: all take all rows, each a part of the hidden units, and meet after every step.
  bool by_units;
  int64_t bytes;  // of weights that every step reads
};

// Split `rows` through T steps, each a product with `weights` numbers of type N for every row.
template <class N>
INLINE Plan plan(int threads, int64_t T, int64_t rows, int64_t panels, int64_t weights) {
  const int64_t a_step = rows * weights, bytes = weights * static_cast<int64_t>(sizeof(N));
  if (threads <= 1 || T * a_step < 200000) return {1, false, bytes};
  const bool weights_overflow = bytes > SECOND_LEVEL_CACHE && rows <= 128;
  if (rows >= 4 * threads && !weights_overflow) return {threads, false, bytes};
  if (a_step >= 150000 && panels >= threads) return {threads, true, bytes};
  return {static_cast<int>(least(threads, rows)), false, bytes};
}

// Rows that go through all steps together: few while the weights stay in cache, many where they do not.
INLINE int64_t rows_at_once(int64_t bytes) { return 2 * bytes <= SECOND_LEVEL_CACHE ? 24 : 96; }

// Steps whose inputs are multiplied at once. With few rows a step's product is too small to be fast; rows
// of several steps are neighbours in memory only if they are the whole batch.
INLINE int64_t steps_at_once(int64_t rows, int64_t B, int64_t T) {
  return rows == B ? most(1, least(T, 64 / rows)) : 1;
}

// One member's part of a walk.
struct Share {
  GatedcellsTeam* team;
  int rank, size;
  bool together;  // the members share every step
  Range rows;

  // this member's panels of so many
  INLINE Range panels(int64_t count) const { return together ? part(count, rank, size) : Range{0, count}; }
  INLINE void meet() const {
    if (together) gatedcells_barrier(team);
  }
  // Whether all members that work together are able to.
  INLINE bool agree(bool able) const {
    if (!able) __atomic_store_n(&team->failed, 1, __ATOMIC_RELAXED);
    meet();
    return !__atomic_load_n(&team->failed, __ATOMIC_RELAXED);
  }
};

// Call walk(share) for every part of this member.
template <class Walk>
INLINE void share_out(const Plan& how, GatedcellsTeam* team, int rank, int64_t B, const Walk& walk) {
  const int size = __atomic_load_n(&team->size, __ATOMIC_RELAXED);  // others may be noting it too
  if (how.by_units) {
    walk(Share{team, rank, size, true, Range{0, B}});
    return;
  }
  const Range mine = part(B, rank, size);
  const int64_t slabs = ceil_div(mine.count(), rows_at_once(how.bytes));
  for (int64_t i = 0; i < slabs; ++i) {
    const Range slab = part(mine.count(), i, slabs);
    walk(Share{team, rank, size, false, Range{mine.first + slab.first, mine.first + slab.last}});
  }
}

// The time indices of a walk: the i-th step is at time(i), its predecessor's states at time(i - 1).
struct Clock {
  int64_t T;
  bool reverse;
  INLINE int64_t time(int64_t i) const { return reverse ? T - 1 - i : i; }
};

// The groups of a range of panels, `size` panels each: forwards in one step and backwards in the next, so that
// what was read last, and is still in cache, is read first.
template <class Work>
INLINE void to_and_fro(Range panels, int64_t size, bool backwards, const Work& work) {
  const int64_t groups = ceil_div(panels.count(), size);
  for (int64_t i = 0; i < groups; ++i) {
    const int64_t first = panels.first + (backwards ? groups - 1 - i : i) * size;
    work(first, least(first + size, panels.last));
  }
}

// Where a vector of units is: in which row of the batch and which panel.
struct Place {
  int64_t row, panel;
};

// work(places) for all rows and panels, an array of two places at a time: activations are long chains of operations,
// and while one chain waits for its division another goes on.
template <class Work>
INLINE void in_pairs(int64_t rows, int64_t first, int64_t last, const Work& work) {
  Place next = {0, first};
  const auto take = [&] {
    const Place taken = next;
    if (++next.panel == last) next = {next.row + 1, first};
    return taken;
  };
  int64_t left = rows * (last - first);
  for (; left >= 2; left -= 2) {
    const Place both[2] = {take(), take()};
    work(both);
  }
  if (left > 0) {
    const Place one[1] = {take()};
    work(one);
  }
}

// Some rows of one step of a batch: which of them have ended, and which forget their state before it.
struct Rows {
  const int64_t* lengths;  // of these rows, or null
  const uint8_t* resets;   // of these rows at step t, or null
  int64_t t, count;

  INLINE bool ended(int64_t row) const { return lengths && t >= lengths[row]; }
  INLINE bool forgets(int64_t row) const { return resets && resets[row] && !ended(row); }
  INLINE bool any_forgets() const {
    for (int64_t row = 0; resets && row < count; ++row)
      if (forgets(row)) return true;
    return false;
  }
};

INLINE Rows rows_at(const int64_t* lengths, const uint8_t* resets, int64_t t, int64_t B, Range rows) {
  return {lengths ? lengths + rows.first : nullptr, resets ? resets + t * B + rows.first : nullptr, t,
          rows.count()};
}

// Whether this thread's walks have made an odd number of steps before the `steps` that come now: a walk reads the
// weights in the direction that the last one did not end in.
INLINE bool turned(int64_t steps) { return gatedcells_steps(steps) % 2 != 0; }

// Whether to fetch weights ahead of their use: a step reads them from beyond the second-level cache, and has the
// rows to multiply meanwhile.
INLINE bool fetches(bool packed, int64_t rows, int64_t bytes) {
  return packed && rows >= ROWS && bytes > SECOND_LEVEL_CACHE;
}

// The left side of a product.
template <class N>
struct Left {
  const N* rows;
  int64_t stride;
};

// Room for a copy of the left side of products with `w`, in numbers, or 0 if its rows of type N are read where they
// are: they are not if weights are of another type, or fetched ahead where rows are 2 KB apart or a multiple of it.
// Of lines whose addresses are 4 KB apart the first-level cache keeps only a few.
template <class N, class W>
INLINE int64_t room_for(const Weights<W>& w, int64_t rows, int64_t width) {
  const bool apart = w.ahead && width * static_cast<int64_t>(sizeof(W)) % 2048 == 0;
  const bool copied = sizeof(N) != sizeof(W) || apart;
  return copied ? rows * (width + CACHE_LINE / static_cast<int64_t>(sizeof(W))) : 0;
}

// Rows as they are, or where there is room for it a copy of them with a distance of `width` and a cache line.
template <class W, class N>
INLINE Left<W> left_of(const N* from, int64_t rows, int64_t width, int64_t stride, W* room) {
  const int64_t wider = width + CACHE_LINE / static_cast<int64_t>(sizeof(W));
  if constexpr (sizeof(N) != sizeof(W)) {
    constexpr int64_t L = Lanes<W>::count;
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t k = 0; k < width; k += L)
        store_part<W>(room + row * wider + k, load_part<N>(from + row * stride + k, width - k), width - k);
  } else {
    if (!room) return {from, stride};
    for (int64_t row = 0; row < rows; ++row)
      memcpy(static_cast<void*>(room + row * wider), from + row * stride, sizeof(N) * static_cast<size_t>(width));
  }
  return {room, wider};
}

// This thread's working memory, handed out piece by piece.
template <class Real>
struct Scratch {
  Real* next;

  INLINE explicit Scratch(int64_t count)
      : next(static_cast<Real*>(gatedcells_scratch((count + 256) * static_cast<int64_t>(sizeof(Real))))) {}

  INLINE Real* take(int64_t count) {
    Real* taken = next;
    next += ceil_div(count, 16) * 16;  // keeps the alignment to cache lines
    return taken;
  }

  // Room for `count` numbers of a type that is no larger; null for none.
  template <class N>
  INLINE N* take_as(int64_t count) {
    if (!count) return nullptr;
    return reinterpret_cast<N*>(take(ceil_div(count * static_cast<int64_t>(sizeof(N)), sizeof(Real))));
  }
};

// Some rows and panels of a state [rows, width], from one type of numbers to another; from null: zeros.
template <class From, class To>
INLINE void carry_over(const From* from, To* to, int64_t rows, Range panels, int64_t width) {
  constexpr int64_t L = Lanes<RealOf<To>>::count;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t unit = panels.first * L; unit < least(panels.last * L, width); unit += L) {
      const Vector<RealOf<To>> state =
          from ? load_part<From>(from + row * width + unit, width - unit) : Vector<RealOf<To>>{};
      store_part<To>(to + row * width + unit, state, width - unit);
    }
  }
}

// The states [B, width] after a walk's last step again, where the caller wants them apart.
template <class N>
INLINE void hand_over(const Share& share, const N* states, N* apart, int64_t width) {
  if (!apart || (share.together && share.rank != 0)) return;
  const int64_t first = share.rows.first * width, count = share.rows.count() * width;
  memcpy(static_cast<void*>(apart + first), states + first, sizeof(N) * static_cast<size_t>(count));
}

// Zeros in the rows that forget, for some panels.
template <class N>
INLINE void forget(const Rows& rows, N* state, Range panels, int64_t width) {
  constexpr int64_t L = Lanes<RealOf<N>>::count;
  const int64_t first = panels.first * L, count = least(panels.last * L, width) - first;
  if (count <= 0 || !rows.resets) return;
  for (int64_t row = 0; row < rows.count; ++row)
    if (rows.forgets(row)) memset(static_cast<void*>(state + row * width + first), 0, sizeof(N) * count);
}

// The states that a step starts from: as they are, or a copy in `kept` without those that are forgotten.
template <class N>
INLINE const N* remembered(const Rows& rows, const N* states, N* kept, int64_t width) {
  if (!rows.any_forgets()) return states;
  for (int64_t row = 0; row < rows.count; ++row) {
    if (rows.forgets(row))
      memset(static_cast<void*>(kept + row * width), 0, sizeof(N) * width);
    else
      memcpy(kept + row * width, states + row * width, sizeof(N) * width);
  }
  return kept;
}

}  // namespace GATEDCELLS_LEVEL
