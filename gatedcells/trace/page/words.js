// One step in words: the equations with the numbers of one unit put in, as Trace.explain gives them.

const LETTER = {
  GRU: { reset: "r", update: "z", candidate: "n" },
  LSTM: { input: "i", forget: "f", candidate: "g", output: "o" },
};

// A number that a reader sees in four digits and a program in all.
const data = (name, v, u, shown = short) => `<data data-name="${name}" data-unit="${u}" value="${v}">${shown(v)}</data>`;
const percent = (v) => `${Math.round(100 * v)}%`;

function sum(terms) {
  return terms.map(([name, v, u], k) => {
    if (k === 0) return data(name, v, u);
    return `${v < 0 ? " - " : " + "}<data data-name="${name}" data-unit="${u}" value="${v}">${short(Math.abs(v))}</data>`;
  }).join("");
}

function equations(part, s, u) {
  const w = part.weights, H = w.weight_hh.length / GATES[part.kind].length, bias = Boolean(w.bias_ih);
  const lines = GATES[part.kind].map((gate, k) => {
    const half = (letter, added) => {
      const whole = s[`${letter}_${gate}`][u];
      if (!added) return [[`${letter}_${gate}`, whole, u]];
      return [[`${letter}_${gate}_product`, whole - added[k * H + u], u], [`${letter}_${gate}_bias`, added[k * H + u], u]];
    };
    const x = half("x", w.bias_ih), h = half("h", w.bias_hh), f = gate === "candidate" ? "tanh" : "sigmoid";
    const scaled = part.kind === "GRU" && gate === "candidate" && part.reset_after;
    const state = part.kind === "GRU" && gate === "candidate" && !part.reset_after ? "U (r ⊙ h)" : "U h";
    const form = scaled ? (bias ? "W x + b + r ⊙ (U h + b)" : "W x + r ⊙ (U h)") : bias ? `W x + b + ${state} + b` : `W x + ${state}`;
    const inside = scaled ? `${sum(x)} + ${data("reset", s.reset[u], u)} × (${sum(h)})` : sum([...x, ...h]);
    return { name: gate, html: `<var>${LETTER[part.kind][gate]}</var>[${u}] = ${f}(${form}) = ${f}(${inside}) = ${data(gate, s[gate][u], u)}` };
  });
  if (part.kind === "GRU") {
    const z = data("update", s.update[u], u);
    lines.push({ name: "hidden", html: `<var>h'</var>[${u}] = (1 - z) ⊙ n + z ⊙ h = (1 - ${z}) × ${data("candidate", s.candidate[u], u)}` +
      ` + ${z} × ${data("found_hidden", s.found_hidden[u], u)} = ${data("hidden", s.hidden[u], u)}` });
    return lines;
  }
  lines.push({ name: "cell", html: `<var>c'</var>[${u}] = f ⊙ c + i ⊙ g = ${data("forget", s.forget[u], u)} × ${data("found_cell", s.found_cell[u], u)}` +
    ` + ${data("input", s.input[u], u)} × ${data("candidate", s.candidate[u], u)} = ${data("cell", s.cell[u], u)}` });
  lines.push({ name: "shown", html: `<var>m</var>[${u}] = o ⊙ tanh(c') = ${data("output", s.output[u], u)} × ${data("tanh_cell", s.tanh_cell[u], u)} = ${data("shown", s.shown[u], u)}` });
  lines.push(w.weight_hr
    ? { name: "hidden", html: `<var>h'</var> = V m: ${s.hidden.length} numbers from all ${s.shown.length} of m` }
    : { name: "hidden", html: `<var>h'</var>[${u}] = m[${u}] = ${data("hidden", s.hidden[u], u)}` });
  return lines;
}

function sentence(part, s, u, forgotten) {
  const start = forgotten ? "A new sequence begins, the state before is zero. " : "";
  if (part.kind === "GRU") {
    const z = s.update[u], r = s.reset[u];
    return `${start}z = ${z.toFixed(2)}: keeps ${percent(z)} of h = ${short(s.found_hidden[u])} and takes ${percent(1 - z)} of` +
      ` n = ${short(s.candidate[u])}. r = ${r.toFixed(2)}: the candidate sees ${percent(r)} of the past.`;
  }
  const f = s.forget[u], i = s.input[u], o = s.output[u];
  return `${start}f = ${f.toFixed(2)}: keeps ${percent(f)} of c = ${short(s.found_cell[u])}. i = ${i.toFixed(2)}: writes ${percent(i)} of` +
    ` g = ${short(s.candidate[u])}. o = ${o.toFixed(2)}: shows ${percent(o)} of tanh(c').`;
}
