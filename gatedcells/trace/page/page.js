// What is shown and what the reader does: one state S, kept in the address; draw() makes the page of it.

const $ = (id) => document.getElementById(id);
const read = (text) => JSON.parse(text, (_, v) => (v === "NaN" ? NaN : v === "Infinity" ? Infinity : v === "-Infinity" ? -Infinity : v));
const DATA = read($("trace").textContent);
const LAYERS = DATA.layers, ROWS = LAYERS[0][0].x[0].length, TIMES = LAYERS[0][0].x.length;
const IS_GRU = LAYERS[0][0].kind === "GRU";
const STRIPS = IS_GRU ? ["reset", "update", "candidate", "hidden"] : ["input", "forget", "candidate", "output", "cell", "hidden"];
const TABS = ["step", "kinds", "convention", "gradient"].filter((tab) => IS_GRU || tab !== "convention");
const fresh = () => ({ x: {}, found: {}, weights: {} });
const S = { t: 0, l: 0, d: 0, u: 0, r: 0, tab: "step", line: -1, flipped: false, changes: fresh(), w: { name: "weight_ih", k: 0, c: 0 }, i: 0, hi: 0 };

const flip = (layers) => layers.map((parts) => parts.map((part) => ({ ...part, reset_after: !part.reset_after })));
const units = () => LAYERS[S.l][S.d].weights.weight_hh.length / GATES[LAYERS[S.l][S.d].kind].length;
const clip = (v, size) => (Number.isInteger(v) ? Math.max(0, Math.min(size - 1, v)) : 0);
const lengthOf = (part) => (part.lengths ? part.lengths[S.r] : TIMES);
let done, layers;

function settle() {
  S.l = clip(S.l, LAYERS.length);
  S.d = clip(S.d, LAYERS[S.l].length);
  S.r = clip(S.r, ROWS);
  S.t = clip(S.t, TIMES);
  S.u = clip(S.u, units());
  S.i = clip(S.i, LAYERS[0][0].weights.weight_ih[0].length);
  const P = LAYERS[S.l][S.d].initial.hidden[0].length;
  S.hi = clip(S.hi, P);
  const weights = LAYERS[S.l][S.d].weights;
  if (!(S.w.name in weights)) S.w.name = "weight_ih";
  const matrix = weights[S.w.name];
  S.w.k = clip(S.w.k, matrix.length);
  S.w.c = clip(S.w.c, Array.isArray(matrix[0]) ? matrix[0].length : 1);
}

function compute() {
  layers = S.flipped ? flip(LAYERS) : LAYERS;
  done = run(layers, S.r, S.changes);
}

// --- the address ------------------------------------------------------------------------------------------

function toHash() {
  const parts = ["t", "l", "d", "u", "r"].map((name) => `${name}=${S[name]}`);
  if (S.tab !== "step") parts.push(`tab=${S.tab}`);
  if (S.flipped) parts.push("c=1");
  for (const [t, row] of Object.entries(S.changes.x)) for (const [i, v] of Object.entries(row)) parts.push(`x=${t}.${i}:${v}`);
  for (const [at, by] of Object.entries(S.changes.found))
    for (const [t, row] of Object.entries(by)) for (const [u, v] of Object.entries(row)) parts.push(`h=${at}.${t}.${u}:${v}`);
  for (const [at, by] of Object.entries(S.changes.weights))
    for (const [name, lines] of Object.entries(by))
      for (const [k, row] of Object.entries(lines)) for (const [i, v] of Object.entries(row)) parts.push(`w=${at}.${name}.${k}.${i}:${v}`);
  return `#${parts.join("&")}`;
}

const isIndex = (text, size) => /^\d+$/.test(text) && Number(text) < size;

function fromHash() {
  Object.assign(S, { flipped: false, changes: fresh(), tab: "step" });
  for (const [name, text] of new URLSearchParams(location.hash.slice(1))) {
    const [where, given] = text.split(":"), at = where.split("."), value = Number(given);
    if (["t", "l", "d", "u", "r"].includes(name)) S[name] = Number(text);
    if (name === "tab" && TABS.includes(text)) S.tab = text;
    if (name === "c") S.flipped = IS_GRU && text === "1";
    if (given === undefined || given === "" || !Number.isFinite(value)) continue;
    const [a, b, c, d, e] = at;
    if (name === "x" && isIndex(a, TIMES) && isIndex(b, LAYERS[0][0].weights.weight_ih[0].length)) (S.changes.x[a] ??= {})[b] = value;
    if (!isIndex(a, LAYERS.length) || !isIndex(b, LAYERS[a].length)) continue;
    const place = `${a}.${b}`, part = LAYERS[a][b];
    if (name === "h" && isIndex(c, TIMES) && isIndex(d, part.initial.hidden[0].length)) ((S.changes.found[place] ??= {})[c] ??= {})[d] = value;
    if (name === "w" && Object.hasOwn(part.weights, c) && isIndex(d, part.weights[c].length) && isIndex(e, part.weights[c][d].length ?? 1))
      (((S.changes.weights[place] ??= {})[c] ??= {})[d] ??= {})[e] = value;
  }
}

// --- drawing ----------------------------------------------------------------------------------------------

function colours() {
  const style = getComputedStyle(document.documentElement);
  const rgb = (name) => style.getPropertyValue(name).trim().match(/[0-9a-f]{2}/gi).map((v) => parseInt(v, 16));
  return Object.fromEntries(["--low", "--high", "--minus", "--zero", "--plus", "--text", "--back"].map((name) => [name, rgb(name)]));
}

const mix = (a, b, share) => a.map((v, i) => Math.round(v + (b[i] - v) * share));

function crossed(pen, palette, x, y, width, height) {
  pen.fillStyle = `rgb(${palette["--back"]})`;
  pen.fillRect(x, y, width, height);
  pen.strokeStyle = `rgb(${palette["--text"]})`;
  pen.lineWidth = 1;
  pen.beginPath();
  pen.moveTo(x, y);
  pen.lineTo(x + width, y + height);
  pen.stroke();
}

const WIDEST = 4000; // pixels; browsers draw nothing on a canvas that is much wider

function drawStrip() {
  const steps = done[S.l][S.d], palette = colours();
  for (const name of STRIPS) {
    const canvas = $(`strip-${name}`), some = steps.find(Boolean);
    const rows = some ? some[name].length : 1, high = Math.max(2, Math.floor(56 / rows));
    canvas.width = Math.min(TIMES * Math.max(6, Math.floor(640 / TIMES)), WIDEST);
    const cell = canvas.width / TIMES;
    canvas.height = rows * high;
    canvas.style.minWidth = `${Math.min(TIMES * 3, 4000)}px`;
    const pen = canvas.getContext("2d"), signed = ["candidate", "hidden", "cell"].includes(name);
    let most = 1;
    steps.forEach((s) => s && s[name].forEach((v) => (most = Number.isFinite(v) ? Math.max(most, Math.abs(v)) : most)));
    steps.forEach((s, t) => s && s[name].forEach((v, u) => {
      const from = Math.floor(t * cell), wide = Math.ceil((t + 1) * cell) - from;
      if (Number.isNaN(v)) return crossed(pen, palette, from, u * high, wide, high);
      const colour = !signed ? mix(palette["--low"], palette["--high"], v)
        : mix(palette["--zero"], palette[v < 0 ? "--minus" : "--plus"], Math.min(1, Math.abs(v) / most));
      pen.fillStyle = `rgb(${colour})`;
      pen.fillRect(from, u * high, wide, high);
    }));
    const unit = Math.min(S.u, rows - 1), tall = canvas.height - 4;
    for (const [width, tone] of [[4, "--back"], [1.6, "--text"]]) {
      pen.strokeStyle = `rgb(${palette[tone]})`;
      pen.lineWidth = width;
      pen.beginPath();
      let down = false;
      steps.forEach((s, t) => {
        if (!s || !Number.isFinite(s[name][unit])) return void (down = false);
        const share = signed ? (s[name][unit] / most + 1) / 2 : s[name][unit];
        pen[down ? "lineTo" : "moveTo"]((t + 0.5) * cell, 2 + (1 - share) * tall);
        down = true;
      });
      pen.stroke();
      pen.strokeRect(S.t * cell + 1, 1, Math.max(1, cell - 2), canvas.height - 2);
    }
    const now = steps[S.t] ? short(steps[S.t][name][unit]) : "ended";
    $(`value-${name}`).textContent = `${name}${unit === S.u ? "" : `[${unit}]`} ${now}`; // of a projected state its last
    canvas.setAttribute("aria-label", `${name} over time; unit ${unit} at t = ${S.t}: ${now}`);
  }
}

function table(target, names, s) {
  const width = Math.max(...names.map((name) => s[name].length));
  const head = `<thead><tr><th scope="col">unit</th>${names.map((name) => `<th scope="col">${name}</th>`).join("")}</tr></thead>`;
  const rows = [...Array(width).keys()].map((u) => `<tr><th scope="row">${u}</th>${names.map((name) =>
    `<td>${u < s[name].length ? data(name, s[name][u], u) : ""}</td>`).join("")}</tr>`);
  target.innerHTML = `<caption>t = ${S.t}, layer ${S.l}, direction ${S.d}, row ${S.r}</caption>${head}<tbody>${rows.join("")}</tbody>`;
}

function drawStep() {
  const part = layers[S.l][S.d], s = done[S.l][S.d][S.t];
  const there = Boolean(s);
  $("all").hidden = $("substep").hidden = !there;
  if (!there) {
    $("equations").innerHTML = $("diagram").innerHTML = "";
    $("said").textContent = `Row ${S.r} has ${lengthOf(part)} steps: at t = ${S.t} nothing is computed, and its state stays as it is.`;
    return;
  }
  const forgotten = Boolean(part.forgets && part.forgets[S.t][S.r]);
  $("said").textContent = `t = ${S.t}, unit ${S.u}. ${sentence(part, s, S.u, forgotten)}`;
  const lines = equations(part, s, S.u);
  if (S.line >= lines.length) S.line = -1;
  $("equations").innerHTML = lines.map((line, k) =>
    `<li data-line="${line.name}"${k === S.line ? ' aria-current="step"' : ""}>${line.html}</li>`).join("");
  $("diagram").innerHTML = `<svg viewBox="0 0 320 228" role="img" aria-label="The ${part.kind} cell, unit ${S.u}: the numbers are those of the equations">` +
    `<defs><marker id="tip" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="6" markerHeight="6" orient="auto"><path d="M0,0L6,3L0,6z" fill="currentColor"/></marker></defs>` +
    `${DIAGRAM[part.kind]((name) => s[name][Math.min(S.u, s[name].length - 1)])}</svg>`;
  $("diagram").querySelector(`[data-gate="${lines[S.line]?.name}"]`)?.classList.add("on");
  if ($("all").open) table($("numbers"), Object.keys(s).filter((name) => name !== "x" && s[name]), s);
}

function drawControls() {
  for (const name of ["t", "u", "r"]) $(name).value = S[name];
  $("t").max = TIMES - 1;
  $("u").max = units() - 1;
  $("r").max = ROWS - 1;
  $("t-now").textContent = `${S.t} of 0 to ${TIMES - 1}`;
  options($("l"), LAYERS.map((_, l) => String(l)), S.l);
  options($("d"), LAYERS[S.l].map((part) => (part.reverse ? "reverse" : "forward")), S.d);
  $("convention").hidden = !IS_GRU;
  $("convention").setAttribute("aria-pressed", String(S.flipped));
  $("convention").textContent = `Reset gate ${LAYERS[0][0].reset_after ? "before" : "after"} the product (c)`;
  for (const name of ["step", "kinds", "convention", "gradient"]) {
    const tab = $(`tab-${name}`), chosen = name === S.tab;
    tab.hidden = !TABS.includes(name);
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    $(`panel-${name}`).hidden = !chosen;
  }
  drawChanges();
}

function options(select, labels, chosen) {
  if (select.length !== labels.length || labels.some((label, k) => select.options[k].text !== label))
    select.replaceChildren(...labels.map((label, k) => new Option(label, String(k))));
  select.selectedIndex = chosen;
}

function draw() {
  settle();
  drawStrip();
  drawControls();
  drawStep();
  if (S.tab !== "step") PANEL[S.tab]();
  // a page inside a notebook has no address of its own
  if (location.protocol !== "about:" && location.hash !== toHash()) history.replaceState(null, "", toHash());
}

function update() {
  settle();
  compute();
  draw();
}
