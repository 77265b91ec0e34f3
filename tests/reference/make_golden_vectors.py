"""Make gatedcells/testing/vectors: tiny GRUs and LSTMs computed with 60 digits, independent of torch.

``python -m tests.reference.make_golden_vectors``. The equations are written here a third time, one number at
a time in mpmath, from Cho et al. 2014 (arXiv:1406.1078, v1 and v3), Gers et al. 2000 and Sak et al. 2014
(arXiv:1402.1128), so that a slip in the library's own would show. Weights and inputs are multiples of 1/64:
every floating-point format that is worth the name has them exactly.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import mpmath

mpmath.mp.dps = 60
FOLDER = Path(__file__).parents[2] / "gatedcells" / "testing" / "vectors"
T, B, I, H, P = 4, 2, 3, 3, 2
LENGTHS = [4, 2]
GRU_NAMES = ("x_reset", "x_update", "x_candidate", "h_reset", "h_update", "h_candidate",
             "reset", "update", "candidate", "hidden")  # fmt: skip
LSTM_NAMES = ("x_input", "x_forget", "x_candidate", "x_output", "h_input", "h_forget", "h_candidate",
              "h_output", "input", "forget", "candidate", "output", "cell", "tanh_cell", "shown",
              "hidden")  # fmt: skip


def sigmoid(a):
    return 1 / (1 + mpmath.exp(-a))


def product(row, vector):
    return mpmath.fsum(w * v for w, v in zip(row, vector, strict=True))


def affine(matrix, bias, vector, first, count):
    """Rows ``first`` to ``first + count`` of ``matrix @ vector + bias``."""
    rows = range(first, first + count)
    return [product(matrix[r], vector) + (bias[r] if bias else 0) for r in rows]


def gru_step(w, x, h, reset_after):
    x_r, x_z, x_n = (affine(w["weight_ih"], w.get("bias_ih"), x, g * H, H) for g in range(3))
    h_r, h_z = (affine(w["weight_hh"], w.get("bias_hh"), h, g * H, H) for g in range(2))
    r = [sigmoid(a + b) for a, b in zip(x_r, h_r, strict=True)]
    z = [sigmoid(a + b) for a, b in zip(x_z, h_z, strict=True)]
    if reset_after:
        h_n = affine(w["weight_hh"], w.get("bias_hh"), h, 2 * H, H)
        n = [mpmath.tanh(x_n[j] + r[j] * h_n[j]) for j in range(H)]
    else:
        h_n = affine(w["weight_hh"], w.get("bias_hh"), [r[j] * h[j] for j in range(H)], 2 * H, H)
        n = [mpmath.tanh(x_n[j] + h_n[j]) for j in range(H)]
    new = [(1 - z[j]) * n[j] + z[j] * h[j] for j in range(H)]
    return dict(zip(GRU_NAMES, (x_r, x_z, x_n, h_r, h_z, h_n, r, z, n, new), strict=True))


def lstm_step(w, x, h, c):
    xs = [affine(w["weight_ih"], w.get("bias_ih"), x, g * H, H) for g in range(4)]
    hs = [affine(w["weight_hh"], w.get("bias_hh"), h, g * H, H) for g in range(4)]
    i, f, g, o = (
        [(mpmath.tanh if gate == 2 else sigmoid)(a + b) for a, b in zip(xs[gate], hs[gate], strict=True)]
        for gate in range(4)
    )
    cell = [f[j] * c[j] + i[j] * g[j] for j in range(H)]
    tanh_cell = [mpmath.tanh(v) for v in cell]
    shown = [o[j] * tanh_cell[j] for j in range(H)]
    hidden = [product(row, shown) for row in w["weight_hr"]] if "weight_hr" in w else shown
    values = (*xs, *hs, i, f, g, o, cell, tanh_cell, shown, hidden)
    return dict(zip(LSTM_NAMES, values, strict=True))


def walk(cell, w, xs, states, length, reverse, reset_after):
    """One row of one direction: each step's intermediates by time, and the last states."""
    steps: dict[int, Any] = {}
    for t in reversed(range(length)) if reverse else range(length):
        if cell == "GRU":
            steps[t] = gru_step(w, xs[t], states[0], reset_after)
            states = [steps[t]["hidden"]]
        else:
            steps[t] = lstm_step(w, xs[t], *states)
            states = [steps[t]["hidden"], steps[t]["cell"]]
    return steps, states


def make(
    name, cell, *, reset_after=True, bias=True, initial=True, lengths=False, both=False, projected=False
):
    numbers = random.Random(name)

    def draw(*shape):
        if not shape:
            return mpmath.mpf(numbers.randint(-80, 80)) / 64
        return [draw(*shape[1:]) for _ in range(shape[0])]

    gates, Q = (3, H) if cell == "GRU" else (4, P if projected else H)
    suffixes = ["_l0", "_l0_reverse"][: 1 + both]
    weights = []
    for _ in suffixes:
        w = {"weight_ih": draw(gates * H, I), "weight_hh": draw(gates * H, Q)}
        if bias:
            w |= {"bias_ih": draw(gates * H), "bias_hh": draw(gates * H)}
        if projected:
            w["weight_hr"] = draw(P, H)
        weights.append(w)
    x, widths = draw(T, B, I), [Q] if cell == "GRU" else [Q, H]
    given = [draw(len(suffixes), B, width) for width in widths]
    if not initial:
        given = [[[[mpmath.mpf(0)] * width for _ in range(B)] for _ in suffixes] for width in widths]
    ends = LENGTHS if lengths else [T] * B
    rows = [
        [
            walk(cell, w, [x[t][b] for t in range(T)], [s[d][b] for s in given], ends[b], d == 1, reset_after)
            for b in range(B)
        ]
        for d, w in enumerate(weights)
    ]
    names = GRU_NAMES if cell == "GRU" else LSTM_NAMES

    def steps(d, field):
        """By time and row; null beyond a row's length, where nothing is computed."""
        return [[rows[d][b][0][t][field] if t < ends[b] else None for b in range(B)] for t in range(T)]

    directions = ("forward", "reverse")[: len(suffixes)]
    found = {
        "name": name, "cell": cell, "reset_after": reset_after, "bidirectional": both,
        "sizes": {"T": T, "B": B, "I": I, "H": H, "P": Q}, "lengths": ends if lengths else None,
        "weights": {n + s: v for s, w in zip(suffixes, weights, strict=True) for n, v in w.items()},
        "input": x,
        "initial": dict(zip(("h_0", "c_0"), given, strict=False)) if initial else None,
        "steps": {where: {field: steps(d, field) for field in names} for d, where in enumerate(directions)},
        "last": {
            n: [[rows[d][b][1][which] for b in range(B)] for d in range(len(suffixes))]
            for which, n in enumerate(("h_n", "c_n")[: len(widths)])
        },
    }  # fmt: skip
    lines = (f"{json.dumps(key)}: {json.dumps(_as_hex(value))}" for key, value in found.items())
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


def _as_hex(value):
    """Numbers of 60 digits as the nearest float64 in hexadecimal, all others as they are."""
    if isinstance(value, mpmath.mpf):
        return float(value).hex()
    if isinstance(value, dict):
        return {name: _as_hex(part) for name, part in value.items()}
    return [_as_hex(part) for part in value] if isinstance(value, list) else value


def main():
    FOLDER.mkdir(exist_ok=True)
    for convention, after in (("after", True), ("before", False)):
        make(f"gru-{convention}", "GRU", reset_after=after, initial=False)
        make(f"gru-{convention}-h0", "GRU", reset_after=after)
        make(f"gru-{convention}-no-bias", "GRU", reset_after=after, bias=False)
        make(f"gru-{convention}-lengths", "GRU", reset_after=after, lengths=True)
        make(f"gru-{convention}-both", "GRU", reset_after=after, both=True)
        make(f"gru-{convention}-both-lengths", "GRU", reset_after=after, both=True, lengths=True)
    make("lstm", "LSTM", initial=False)
    make("lstm-h0", "LSTM")
    make("lstm-no-bias", "LSTM", bias=False)
    make("lstm-lengths", "LSTM", lengths=True)
    make("lstm-both", "LSTM", both=True)
    make("lstm-both-lengths", "LSTM", both=True, lengths=True)
    make("lstm-projection", "LSTM", projected=True)
    make("lstm-projection-no-bias", "LSTM", projected=True, bias=False)
    make("lstm-projection-both-lengths", "LSTM", projected=True, both=True, lengths=True)


if __name__ == "__main__":
    main()
