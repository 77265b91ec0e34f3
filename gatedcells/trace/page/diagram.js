// A cell as a drawing: the wires carry the numbers of one unit at one time. Nothing in here is text of a user's.

const short = (v) => (Number.isFinite(v) ? v.toFixed(4) : String(v));
const wire = (points) => `<polyline points="${points}"/>`;
const arrow = (points) => `<polyline class="arrow" points="${points}"/>`;
const node = (x, y, sign) => `<circle cx="${x}" cy="${y}" r="10"/><text class="mid" x="${x}" y="${y + 4}">${sign}</text>`;
const on = (x, y, label, v) =>
  `<text x="${x}" y="${y}"><tspan class="letter">${label}</tspan> ${short(v)}</text>`;

function gate(x, name, letter, kind, half) {
  return `<g data-gate="${name}"><rect x="${x - 24}" y="120" width="48" height="30" rx="4"/>` +
    `<text class="mid letter" x="${x}" y="133">${letter}</text><text class="mid" x="${x}" y="145">${kind}</text>` +
    `<text class="mid" x="${x}" y="168">x ${short(half.x)}</text>` +
    `<text class="mid" x="${x}" y="182">h ${short(half.h)}</text>${arrow(`${x},206 ${x},188`)}</g>`;
}

const rail = (to) => wire(`6,206 ${to},206`) + `<text x="6" y="222">x and h, through the weights</text>`;

const DIAGRAM = {
  GRU(at) {
    const z = at("update"), n = at("candidate"), h = at("found_hidden"), half = (g) => ({ x: at(`x_${g}`), h: at(`h_${g}`) });
    return wire("6,36 130,36") + arrow("150,36 230,36") + arrow("250,36 314,36") +
      node(140, 36, "×") + node(240, 36, "+") + node(240, 80, "×") +
      arrow("140,120 140,46") + wire("164,135 190,135 190,80") + arrow("190,80 230,80") +
      arrow("240,120 240,90") + arrow("240,70 240,46") +
      wire("50,120 50,104 203,104 203,135") + arrow("203,135 216,135") +
      on(6, 28, "h", h) + on(156, 28, "zh", z * h) + on(256, 28, "h'", at("hidden")) + on(86, 70, "z", z) +
      on(160, 74, "1−z", 1 - z) + on(250, 106, "n", n) + on(250, 64, "", (1 - z) * n) + on(54, 99, "r", at("reset")) +
      gate(50, "reset", "r", "σ", half("reset")) + gate(140, "update", "z", "σ", half("update")) +
      gate(240, "candidate", "n", "tanh", half("candidate")) + rail(240);
  },
  LSTM(at) {
    const half = (g) => ({ x: at(`x_${g}`), h: at(`h_${g}`) });
    return wire("6,36 30,36") + arrow("50,36 130,36") + arrow("150,36 314,36") +
      node(40, 36, "×") + node(140, 36, "+") + node(140, 80, "×") + node(290, 80, "×") +
      arrow("40,120 40,46") + wire("110,120 110,80") + arrow("110,80 130,80") + wire("172,120 172,80") + arrow("172,80 150,80") +
      arrow("140,70 140,46") + arrow("290,36 290,70") + wire("235,120 235,80") + arrow("235,80 280,80") + arrow("290,90 290,114") +
      on(6, 19, "c", at("found_cell")) + on(62, 28, "fc", at("forget") * at("found_cell")) + on(250, 28, "c'", at("cell")) +
      on(44, 84, "f", at("forget")) + on(58, 112, "i", at("input")) + on(176, 112, "g", at("candidate")) +
      on(146, 62, "ig", at("input") * at("candidate")) + on(182, 98, "o", at("output")) +
      on(218, 58, "tanh", at("tanh_cell")) + on(264, 130, "m", at("shown")) +
      gate(40, "forget", "f", "σ", half("forget")) + gate(110, "input", "i", "σ", half("input")) +
      gate(172, "candidate", "g", "tanh", half("candidate")) + gate(235, "output", "o", "σ", half("output")) + rail(235);
  },
};

// Lines over time: told apart by their dashes and by what is written at their ends. rows: {label, values, dash}.
function chart(rows, t, { log = false, name }) {
  const W = 320, H = 150, left = 44, right = 8, top = 10, bottom = 22;
  const height = (v) => (log ? Math.log10(v) : v);
  const shown = rows.flatMap((row) => row.values).filter((v) => v !== null && Number.isFinite(height(v))).map(height);
  if (!shown.length) return `<p>There is nothing to draw: ${name} is zero or not a number everywhere.</p>`;
  let [low, high] = shown.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  if (high - low < 1e-12) [low, high] = [low - 0.5, high + 0.5];
  const T = rows[0].values.length;
  const px = (i) => left + (T < 2 ? 0.5 : i / (T - 1)) * (W - left - right);
  const py = (v) => H - bottom - ((height(v) - low) / (high - low)) * (H - top - bottom);
  const tick = (v) => (log ? `1e${Math.round(v)}` : v.toFixed(2));
  const lines = rows.map((row) => {
    let path = "", pen = "M";
    row.values.forEach((v, i) => {
      if (v === null || !Number.isFinite(height(v))) return void (pen = "M");
      path += `${pen}${px(i).toFixed(1)},${py(v).toFixed(1)}`;
      pen = "L";
    });
    return `<path class="line ${row.tone}" d="${path}" stroke-dasharray="${row.dash}"/>`;
  });
  const legend = rows.map((row) => `<li><svg width="34" height="8" aria-hidden="true"><path class="line ${row.tone}"` +
    ` d="M1,4L33,4" stroke-dasharray="${row.dash}"/></svg>${row.label}</li>`).join("");
  return `<svg class="chart" viewBox="0 0 ${W} ${H}" role="img" aria-label="${name} over time">` +
    `<line class="axis" x1="${left}" x2="${left}" y1="${top}" y2="${H - bottom}"/>` +
    `<line class="axis" x1="${left}" x2="${W - right}" y1="${H - bottom}" y2="${H - bottom}"/>` +
    `<line class="now" x1="${px(t)}" x2="${px(t)}" y1="${top}" y2="${H - bottom}"/>` +
    `<text class="end" x="${left - 4}" y="${top + 8}">${tick(high)}</text><text class="end" x="${left - 4}" y="${H - bottom}">${tick(low)}</text>` +
    `<text x="${left}" y="${H - 6}">0</text><text class="end" x="${W - right}" y="${H - 6}">t = ${T - 1}</text>${lines.join("")}</svg>` +
    `<ul class="legend">${legend}</ul>`;
}
