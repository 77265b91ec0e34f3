// Keyboard, mouse, and the start.

function go(changes) {
  Object.assign(S, changes);
  draw();
}

function enter(changes) {
  Object.assign(S, changes);
  update();
}

const ACTIONS = {
  ArrowLeft: () => go({ t: S.t - 1 }), ArrowRight: () => go({ t: S.t + 1 }),
  Home: () => go({ t: 0 }), End: () => go({ t: TIMES - 1 }),
  ArrowUp: () => go({ u: S.u - 1 }), ArrowDown: () => go({ u: S.u + 1 }), k: () => go({ u: S.u - 1 }), j: () => go({ u: S.u + 1 }),
  l: () => go({ l: (S.l + 1) % LAYERS.length }), d: () => go({ d: (S.d + 1) % LAYERS[S.l].length }), n: () => enter({ r: (S.r + 1) % ROWS }),
  g: () => go({ tab: "step", line: S.line + 1 }),
  c: () => IS_GRU && enter({ flipped: !S.flipped }),
  s: () => go({ tab: "step" }), v: () => go({ tab: "kinds" }), b: () => go({ tab: "gradient" }),
  0: () => enter({ changes: fresh() }),
};

document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("input, select, [role=tablist]")) return;
  const action = Object.hasOwn(ACTIONS, event.key) ? ACTIONS[event.key] : null;
  if (!action) return;
  event.preventDefault();
  action();
});

$("tabs").addEventListener("keydown", (event) => {
  const turn = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!turn) return;
  event.preventDefault();
  go({ tab: TABS[(TABS.indexOf(S.tab) + turn + TABS.length) % TABS.length] });
  $(`tab-${S.tab}`).focus();
});

for (const tab of TABS) $(`tab-${tab}`).addEventListener("click", () => go({ tab }));
for (const [id, key] of [["back", "ArrowLeft"], ["next", "ArrowRight"], ["substep", "g"], ["convention", "c"], ["undo", "0"]])
  $(id).addEventListener("click", ACTIONS[key]);
for (const name of ["t", "u"]) $(name).addEventListener("input", () => go({ [name]: $(name).valueAsNumber }));
for (const name of ["l", "d"]) $(name).addEventListener("change", () => go({ [name]: $(name).selectedIndex }));
$("r").addEventListener("input", () => enter({ r: $("r").valueAsNumber }));
$("x-i").addEventListener("change", () => go({ i: $("x-i").selectedIndex }));
$("h-i").addEventListener("change", () => go({ hi: $("h-i").selectedIndex }));
$("w-name").addEventListener("change", () => go({ w: { name: $("w-name").selectedOptions[0].text, k: 0, c: 0 } }));
for (const [id, key] of [["w-k", "k"], ["w-c", "c"]]) $(id).addEventListener("input", () => go({ w: { ...S.w, [key]: $(id).valueAsNumber } }));
for (const name of Object.keys(CHANGES))
  for (const kind of ["range", "number"])
    $(`${name}-${kind}`).addEventListener("input", (event) => {
      const value = event.target.valueAsNumber;
      if (!Number.isFinite(value)) return; // half a number, while somebody types
      CHANGES[name].set(value);
      update();
    });
$("all").addEventListener("toggle", draw);

for (const name of STRIPS) {
  const line = document.createElement("div"), label = document.createElement("span"), canvas = document.createElement("canvas");
  line.className = "gate";
  label.id = `value-${name}`;
  canvas.id = `strip-${name}`;
  canvas.setAttribute("role", "img");
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect(), rows = done[S.l][S.d].find(Boolean)?.[name].length ?? 1;
    go({ t: Math.floor(((event.clientX - box.left) / box.width) * TIMES), u: Math.floor(((event.clientY - box.top) / box.height) * rows) });
  });
  line.append(label, canvas);
  $("strip").append(line);
}

const first = LAYERS[0][0];
$("what").textContent = `${first.kind}${IS_GRU ? `, reset gate ${first.reset_after ? "after" : "before"} the product` : ""}: ${LAYERS.length} layer(s), ` +
  `${LAYERS[0].length} direction(s), ${first.weights.weight_ih[0].length} inputs, ${first.weights.weight_hh.length / GATES[first.kind].length} hidden units, ${TIMES} steps, ${ROWS} row(s).`;
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
window.addEventListener("hashchange", () => {
  if (location.hash === toHash()) return;
  fromHash();
  update();
});
// for the console: gatedcells.run(layers, row, changes)[layer][direction][t].update[unit]
window.gatedcells = { layers: LAYERS, run, asKind, backward, state: S, now: () => done };
fromHash();
update();
drawAgreement();
