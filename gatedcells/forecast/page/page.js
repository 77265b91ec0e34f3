// A choice shows the panels that carry its number; the same choice elsewhere on the page follows.
const sections = [...document.querySelectorAll("section")].filter((one) => one.querySelector("select"));
function show(section) {
  const choices = [...section.querySelectorAll("select")];
  for (const panel of section.querySelectorAll("[data-panel]")) {
    panel.hidden = choices.some((choice) => choice.name in panel.dataset && panel.dataset[choice.name] !== choice.value);
  }
}
for (const section of sections) {
  for (const controls of section.querySelectorAll(".controls")) controls.hidden = false;
  section.addEventListener("change", ({ target }) => {
    for (const other of sections) {
      const same = other.querySelector(`select[name="${target.name}"]`);
      if (same && [...same.options].some((option) => option.value === target.value)) same.value = target.value;
      show(other);
    }
  });
  show(section);
}
