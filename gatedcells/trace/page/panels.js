// The tabs beside the step, the changes, and the comparison with Python.

const DASHES = { RNN: ["2 3", "three"], GRU: ["", "one"], LSTM: ["7 3", "two"] };
const series = (steps, u, name = "hidden") => steps.map((s) => (s ? s[name][Math.min(u, s[name].length - 1)] : null));

function rowsAt(rows, shown = short) {
  return `<table><caption>At t = ${S.t}</caption><tbody>${rows.map(([label, name, v]) =>
    `<tr><th scope="row">${label}</th><td>${v === null || v === undefined ? "" : data(name, v, S.u, shown)}</td></tr>`).join("")}</tbody></table>`;
}

const PANEL = {
  kinds() {
    const rows = [], values = [], u = Math.min(S.u, layers[S.l][S.d].initial.hidden[0].length - 1);
    for (const kind of ["GRU", "LSTM", "RNN"]) {
      // a changed line is one of these weights': another kind has other lines
      const others = layers.map((parts, l) => parts.map((part, d) => asKind(withWeights(part, S.changes.weights[`${l}.${d}`]), kind)));
      if (others.flat().includes(null)) continue;
      const steps = run(others, S.r, { ...S.changes, weights: {} })[S.l][S.d];
      const [dash, tone] = DASHES[kind];
      rows.push({ label: kind, values: series(steps, u), dash, tone });
      values.push([`${kind}: h'[${u}]`, `hidden-${kind}`, steps[S.t]?.hidden[u]]);
    }
    const own = LAYERS[0][0].kind;
    const how = {
      GRU: "The LSTM's forget gate is z, its input gate 1 − z, and its output gate is open; it has no reset gate, and its hidden state passes through another tanh. The plain RNN has only the candidate.",
      LSTM: "The GRU's update gate is the forget gate, and its reset gate is open; it has no input or output gate. The plain RNN has only the candidate.",
    }[own];
    $("panel-kinds").innerHTML = `<h2>The same input and weights in other cells, as far as they have the same gates</h2><p>${how}</p>` +
      (rows.length > 1 ? "" : "<p>The other cells cannot hold these weights, because of the projection.</p>") +
      chart(rows, S.t, { name: `h[${u}]` }) + rowsAt(values);
  },
  convention() {
    const after = layers[0][0].reset_after ? done : run(flip(layers), S.r, S.changes);
    const before = layers[0][0].reset_after ? run(flip(layers), S.r, S.changes) : done;
    const [a, b] = [after, before].map((all) => all[S.l][S.d]);
    let most = 0;
    a.forEach((s, t) => s && s.hidden.forEach((v, u) => (most = Math.max(most, Math.abs(v - b[t].hidden[u])))));
    const [p, q] = [a[S.t], b[S.t]];
    $("panel-convention").innerHTML = "<h2>The same weights with the reset gate after or before the product</h2>" +
      "<p>After: n = tanh(W x + b + r ⊙ (U h + b)), as in torch.nn.GRU and cuDNN (arXiv:1406.1078v1). Before: n = tanh(W x + b + U (r ⊙ h) + b) (arXiv:1406.1078v3).</p>" +
      chart([{ label: "after", values: series(a, S.u), dash: "", tone: "one" }, { label: "before", values: series(b, S.u), dash: "7 3", tone: "two" }], S.t, { name: `h[${S.u}]` }) +
      `<p>Largest difference between hidden states of this layer: <data id="difference" value="${most}">${most.toExponential(2)}</data></p>` +
      (p ? rowsAt([[`n[${S.u}] after`, "candidate-after", p.candidate[S.u]], [`n[${S.u}] before`, "candidate-before", q.candidate[S.u]],
        [`h'[${S.u}] after`, "hidden-after", p.hidden[S.u]], [`h'[${S.u}] before`, "hidden-before", q.hidden[S.u]]]) : "");
  },
  gradient() {
    const part = withWeights(layers[S.l][S.d], S.changes.weights[place()]);
    const unit = Math.min(S.u, part.initial.hidden[0].length - 1), by = backward(part, done[S.l][S.d], unit, S.r);
    const norm = (v) => Math.sqrt(v.reduce((sum, one) => sum + one * one, 0));
    const state = part.kind === "GRU" ? "hidden" : "cell", letter = part.kind === "GRU" ? "h" : "c", gate = part.kind === "GRU" ? "z" : "f";
    const total = by && by.map((d) => d && norm(d[state])), straight = by && by.map((d) => d && norm(d.straight));
    $("panel-gradient").innerHTML = `<h2>The gradient of a loss at the last step with respect to ${letter}<sub>t</sub></h2>` +
      `<p>The loss is h[${unit}] after the last step. On the direct path the gradient is multiplied by ${gate} only, bypassing all weights; where ${gate} is near 1 it is preserved. A plain RNN has no such path.</p>` +
      (by ? chart([{ label: "all paths", values: total, dash: "", tone: "one" }, { label: `through ${gate} alone`, values: straight, dash: "7 3", tone: "two" }], S.t, { log: true, name: `|dL/d${letter}|` }) : "") +
      (by && by[S.t] ? rowsAt([["all paths", "gradient", total[S.t]], [`through ${gate} alone`, "straight", straight[S.t]],
        [`dL/dh[${unit}]`, "d_hidden", by[S.t].hidden[unit]]], (v) => v.toExponential(2)) : "");
  },
};

// --- changes ----------------------------------------------------------------------------------------------

const place = () => `${S.l}.${S.d}`;
const CHANGES = {
  x: {
    now: () => S.changes.x[S.t]?.[S.i] ?? LAYERS[0][0].x[S.t][S.r]?.[S.i],
    set: (v) => ((S.changes.x[S.t] ??= {})[S.i] = v),
  },
  h: {
    now: () => done[S.l][S.d][S.t]?.found_hidden[S.hi],
    set: (v) => (((S.changes.found[place()] ??= {})[S.t] ??= {})[S.hi] = v),
  },
  w: {
    now() {
      const line = withWeights(layers[S.l][S.d], S.changes.weights[place()]).weights[S.w.name][S.w.k];
      return Array.isArray(line) ? line[S.w.c] : line;
    },
    set: (v) => ((((S.changes.weights[place()] ??= {})[S.w.name] ??= {})[S.w.k] ??= {})[S.w.c] = v),
  },
};

function drawChanges() {
  options($("x-i"), LAYERS[0][0].weights.weight_ih[0].map((_, i) => `x[${i}]`), S.i);
  options($("h-i"), LAYERS[S.l][S.d].initial.hidden[0].map((_, u) => `h[${u}]`), S.hi);
  const names = Object.keys(LAYERS[S.l][S.d].weights), matrix = LAYERS[S.l][S.d].weights[S.w.name];
  options($("w-name"), names, names.indexOf(S.w.name));
  $("w-k").max = matrix.length - 1;
  $("w-c").max = Array.isArray(matrix[0]) ? matrix[0].length - 1 : 0;
  $("w-k").value = S.w.k;
  $("w-c").value = S.w.c;
  for (const [name, change] of Object.entries(CHANGES)) {
    const v = change.now(), there = v !== undefined && Number.isFinite(v), range = $(`${name}-range`), number = $(`${name}-number`);
    range.disabled = number.disabled = !there;
    if (!there) continue;
    const most = Math.max(3, Math.ceil(Math.abs(v)));
    if (document.activeElement !== range) [range.min, range.max] = [-most, most];
    range.value = v;
    if (document.activeElement !== number) number.value = v;
  }
  const leaves = (tree) => (typeof tree === "number" ? 1 : Object.values(tree).reduce((sum, one) => sum + leaves(one), 0));
  const count = leaves(S.changes);
  $("changed").textContent = count ? `${count} changed` : "no changes";
}

// --- the comparison with Python ---------------------------------------------------------------------------

function agreement() {
  let most = 0, count = 0;
  for (let row = 0; row < ROWS; row++) {
    run(LAYERS, row).forEach((parts, l) => parts.forEach((steps, d) => steps.forEach((s, t) => {
      if (!s) return;
      for (const [name, values] of Object.entries(LAYERS[l][d].steps)) {
        s[name].forEach((v, u) => {
          const theirs = values[t][row][u];
          count++;
          const off = Object.is(v, theirs) ? 0 : Math.abs(v - theirs);
          if (off > most || Number.isNaN(off)) most = off; // where one alone is no number, neither is the largest
        });
      }
    })));
  }
  return { most, count };
}

function drawAgreement() {
  const { most, count } = agreement();
  $("agreement").innerHTML = `This page has recomputed all ${count} values from the weights, in float64: max |JavaScript − Python| = ` +
    `<data id="deviation" value="${most}">${most.toExponential(1)}</data> (Python computed in ${DATA.dtype}).`;
}
