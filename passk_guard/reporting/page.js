"use strict";
// The page is whole without this. It sorts tables by a column, and says what a cell of the heat map
// stands for. Text goes in as text.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => {
        const cell = row.cells[column];
        return "sort" in cell.dataset ? Number(cell.dataset.sort) : cell.textContent;
      };
      const order = (a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0) * (down ? -1 : 1);
      table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
    });
  });
}

const texts = JSON.parse(document.getElementById("texts").textContent);
for (const map of document.querySelectorAll("figure.heat")) {
  const kernel = JSON.parse(map.querySelector("script").textContent);
  const [image, out] = [map.querySelector("img"), map.querySelector("output")];
  const count = kernel.rows.length;
  const name = (i) => {
    const text = texts[kernel.rows[i]];
    return `row ${kernel.rows[i]} (pass rate ${kernel.rates[i].toFixed(2)})` + (text ? ` “${text}”` : "");
  };
  image.addEventListener("pointermove", (event) => {
    const at = image.getBoundingClientRect();
    const [left, top, width, height] = kernel.box;
    const j = Math.floor((((event.clientX - at.left) / at.width - left) / width) * count);
    const i = Math.floor((((event.clientY - at.top) / at.height - top) / height) * count);
    if (i === j || Math.min(i, j) < 0 || Math.max(i, j) >= count) return;
    const cosine = kernel.cosines[Math.max(i, j)][Math.min(i, j)];
    const sign = cosine < 0 ? "they interfere" : "they help each other";
    out.textContent = `${name(i)} and ${name(j)}: cosine ${cosine.toFixed(2)}, ${sign}.`;
  });
}
