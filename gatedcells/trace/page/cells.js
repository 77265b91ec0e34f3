// The equations of docs/equations.md once more, in float64 and from the weights alone: what Python computed
// is compared with this, and a changed number is computed by it.

const GATES = {
  RNN: ["hidden"],
  GRU: ["reset", "update", "candidate"],
  LSTM: ["input", "forget", "candidate", "output"],
};

const sigmoid = (a) => 1 / (1 + Math.exp(-a));
const tanh = Math.tanh;
const both = (f, a, b) => a.map((value, i) => f(value, b[i]));
const plus = (a, b) => both((p, q) => p + q, a, b);
const times = (a, b) => both((p, q) => p * q, a, b);

// W v + b
function linear(matrix, vector, bias) {
  return matrix.map((row, k) => {
    let sum = 0;
    for (let i = 0; i < row.length; i++) sum += row[i] * vector[i];
    return bias ? sum + bias[k] : sum;
  });
}

// Uᵀ v, rows k..k + v.length of U
function transposed(matrix, vector, from = 0) {
  const sum = new Array(matrix[0].length).fill(0);
  vector.forEach((value, k) => matrix[from + k].forEach((weight, i) => (sum[i] += weight * value)));
  return sum;
}

const block = (values, k, H) => values && values.slice(k * H, (k + 1) * H);

function rnnStep(w, x, state) {
  const x_hidden = linear(w.weight_ih, x, w.bias_ih);
  const h_hidden = linear(w.weight_hh, state.hidden, w.bias_hh);
  return { x_hidden, h_hidden, hidden: plus(x_hidden, h_hidden).map(tanh) };
}

function gruStep(w, x, state, resetAfter) {
  const h = state.hidden, H = h.length;
  const a = linear(w.weight_ih, x, w.bias_ih), b = linear(w.weight_hh, h, w.bias_hh);
  const [x_reset, x_update, x_candidate] = [0, 1, 2].map((k) => block(a, k, H));
  const [h_reset, h_update] = [0, 1].map((k) => block(b, k, H));
  const reset = plus(x_reset, h_reset).map(sigmoid);
  const update = plus(x_update, h_update).map(sigmoid);
  const h_candidate = resetAfter
    ? block(b, 2, H)
    : linear(block(w.weight_hh, 2, H), times(reset, h), block(w.bias_hh, 2, H));
  const candidate = plus(x_candidate, resetAfter ? times(reset, h_candidate) : h_candidate).map(tanh);
  const hidden = update.map((z, i) => (1 - z) * candidate[i] + z * h[i]);
  return { x_reset, x_update, x_candidate, h_reset, h_update, h_candidate, reset, update, candidate, hidden };
}

function lstmStep(w, x, state) {
  const c = state.cell, H = c.length;
  const a = linear(w.weight_ih, x, w.bias_ih), b = linear(w.weight_hh, state.hidden, w.bias_hh);
  const step = {};
  GATES.LSTM.forEach((gate, k) => {
    step[`x_${gate}`] = block(a, k, H);
    step[`h_${gate}`] = block(b, k, H);
    step[gate] = plus(block(a, k, H), block(b, k, H)).map(gate === "candidate" ? tanh : sigmoid);
  });
  step.cell = plus(times(step.forget, c), times(step.input, step.candidate));
  step.tanh_cell = step.cell.map(tanh);
  step.shown = times(step.output, step.tanh_cell);
  step.hidden = w.weight_hr ? linear(w.weight_hr, step.shown) : step.shown;
  return step;
}

const STEP = { RNN: rnnStep, GRU: gruStep, LSTM: lstmStep };
const zeros = (like) => like.map(() => 0);
const copied = (edits, values) => (edits ? values.map((value, i) => edits[i] ?? value) : values);

function order(part, T) {
  const times = [...Array(T).keys()];
  return part.reverse ? times.reverse() : times;
}

// One direction of one layer for one row: the steps by time, null where the row has ended. found: changed
// states by time and unit.
function walk(part, x, row, found = {}) {
  const length = part.lengths ? part.lengths[row] : x.length;
  let state = {};
  for (const [name, value] of Object.entries(part.initial)) state[name] = value[row];
  const steps = new Array(x.length).fill(null);
  for (const t of order(part, x.length)) {
    if (t >= length) continue;
    const before = {};
    for (const name of Object.keys(state)) {
      const remembered = part.forgets && part.forgets[t][row] ? zeros(state[name]) : state[name];
      before[name] = name === "hidden" ? copied(found[t], remembered) : remembered;
    }
    const now = STEP[part.kind](part.weights, x[t], before, part.reset_after);
    state = part.kind === "LSTM" ? { hidden: now.hidden, cell: now.cell } : { hidden: now.hidden };
    steps[t] = { ...now, x: x[t], found_hidden: before.hidden, found_cell: before.cell };
  }
  return steps;
}

// All layers for one row. changes: {x: {t: {i: v}}, found: {"l.d": {t: {u: v}}}, weights: {"l.d": {name: {k: {i: v}}}}}
function run(layers, row, changes = {}) {
  const T = layers[0][0].x.length;
  let x = layers[0][0].x.map((now, t) => copied(changes.x?.[t], now[row] ?? zeros(layers[0][0].x[0][row] ?? [])));
  return layers.map((parts, l) => {
    if (l > 0) x = x.map((below, t) => dropped(below, layers, l, t, row));
    const done = parts.map((part, d) =>
      walk(withWeights(part, changes.weights?.[`${l}.${d}`]), x, row, changes.found?.[`${l}.${d}`]));
    x = [...Array(T).keys()].map((t) => done.flatMap((steps, d) => steps[t]?.hidden ?? zeros(parts[d].initial.hidden[row])));
    return done;
  });
}

// What the layer above reads of what this one puts out: dropout's factors are those that were drawn then.
function dropped(below, layers, l, t, row) {
  const read = layers[l][0].x[t][row];
  if (!read) return below;
  const out = layers[l - 1].flatMap((part) => part.steps.hidden[t][row]);
  return below.map((value, i) => (read[i] === out[i] ? value : out[i] === 0 ? 0 : value * (read[i] / out[i])));
}

function withWeights(part, change) {
  if (!change) return part;
  const weights = { ...part.weights };
  for (const [name, lines] of Object.entries(change))
    weights[name] = weights[name].map((line, k) => (Array.isArray(line) ? copied(lines[k], line) : lines[k]?.[0] ?? line));
  return { ...part, weights };
}

// The same weights, as near as another kind of cell allows. An open gate is one with a bias of 20.
function asKind(part, kind) {
  if (kind === part.kind) return part;
  if (part.weights.weight_hr) return null;
  const H = part.initial.hidden[0].length, w = part.weights;
  const from = GATES[part.kind];
  // a gate by its name, "-name" its negative, "open" or nothing at all
  const pick = (values, gate, open) => {
    if (gate === "open") return Array.from({ length: H }, () => (Array.isArray(values[0]) ? zeros(values[0]) : open));
    const rows = block(values, from.indexOf(gate.replace("-", "")), H);
    const minus = (v) => (Array.isArray(v) ? v.map(minus) : -v);
    return gate.startsWith("-") ? rows.map(minus) : rows;
  };
  const keeps = part.kind === "GRU" ? "update" : "forget";
  const gates = {
    RNN: ["candidate"],
    GRU: ["open", keeps, "candidate"],
    LSTM: [`-${keeps}`, keeps, "candidate", "open"],
  }[kind];
  const none = new Array(from.length * H).fill(0);
  const weights = {
    weight_ih: gates.flatMap((gate) => pick(w.weight_ih, gate)),
    weight_hh: gates.flatMap((gate) => pick(w.weight_hh, gate)),
    bias_ih: gates.flatMap((gate) => pick(w.bias_ih ?? none, gate, 20)),
    bias_hh: gates.flatMap((gate) => pick(w.bias_hh ?? none, gate, 0)),
  };
  const initial = { hidden: part.initial.hidden };
  if (kind === "LSTM") initial.cell = part.initial.hidden;
  return { ...part, kind, weights, initial, reset_after: true };
}

// dL/dh_t at each t for L = h[unit] after the last step, by the chain rule; straight: what comes through z ⊙ h
// (f ⊙ c) alone.
function backward(part, steps, unit, row) {
  const visited = order(part, steps.length).filter((t) => steps[t]).reverse();
  if (!visited.length) return null;
  const w = part.weights, first = steps[visited[0]], H = w.weight_hh.length / GATES[part.kind].length;
  let d = { hidden: zeros(first.hidden), cell: new Array(H).fill(0) };
  d.hidden[unit] = 1;
  let straight = null;
  const by = steps.map(() => null);
  for (const t of visited) {
    const s = steps[t];
    let found = {}, keeps = null;
    if (part.kind === "LSTM") {
      const shown = w.weight_hr ? transposed(w.weight_hr, d.hidden) : d.hidden;
      const dc = both((a, b) => a + b, d.cell, shown.map((v, i) => v * s.output[i] * (1 - s.tanh_cell[i] ** 2)));
      by[t] = { hidden: d.hidden, cell: dc };
      straight ??= dc;
      const bend = (gate) => s[gate].map((v) => v * (1 - v));
      const da = [
        ...times(times(dc, s.candidate), bend("input")), ...times(times(dc, s.found_cell), bend("forget")),
        ...times(times(dc, s.input), s.candidate.map((v) => 1 - v * v)), ...times(times(shown, s.tanh_cell), bend("output")),
      ];
      found = { hidden: transposed(w.weight_hh, da), cell: times(dc, s.forget) };
      keeps = s.forget;
    } else {
      by[t] = { hidden: d.hidden };
      const dh = d.hidden, h = s.found_hidden;
      straight ??= dh;
      if (part.kind === "RNN") {
        found.hidden = transposed(w.weight_hh, times(dh, s.hidden.map((v) => 1 - v * v)));
        keeps = zeros(dh);
      } else {
        const dan = times(dh, both((z, n) => (1 - z) * (1 - n * n), s.update, s.candidate));
        const daz = times(times(dh, both((p, q) => p - q, h, s.candidate)), s.update.map((z) => z * (1 - z)));
        const slope = s.reset.map((r) => r * (1 - r));
        const through = part.reset_after ? times(dan, s.reset) : null;
        const gated = part.reset_after ? transposed(w.weight_hh, through, 2 * H) : transposed(w.weight_hh, dan, 2 * H);
        const dar = times(times(part.reset_after ? dan : gated, part.reset_after ? s.h_candidate : h), slope);
        const candidate = part.reset_after ? gated : times(gated, s.reset);
        found.hidden = plus(plus(times(dh, s.update), candidate),
          plus(transposed(w.weight_hh, dar), transposed(w.weight_hh, daz, H)));
        keeps = s.update;
      }
    }
    by[t].straight = straight;
    const forgotten = part.forgets && part.forgets[t][row];
    d = forgotten ? { hidden: zeros(found.hidden), cell: new Array(H).fill(0) } : { cell: d.cell, ...found };
    straight = forgotten ? zeros(straight) : times(straight, keeps);
  }
  return by;
}
