"use strict";
(() => {
  const find = (id) => document.getElementById(id);

  // -- Tables are sorted by a click on a header: most first, least first, then as they were.
  const NUMBER = /^[<+\u2212-]?\d+(\.\d+)?(\s*\[.*\])?$/;
  const keyOf = (cell) => cell.dataset.v ?? cell.textContent.trim();
  const numberOf = (text) => parseFloat(text.replace(/^</, "").replace("\u2212", "-"));
  const sortTable = (table, header) => {
    const body = table.tBodies[0];
    table.original ??= [...body.rows];
    const at = header.cellIndex;
    const keys = new Map(table.original.map((row) => [row, keyOf(row.cells[at])]));
    const filled = [...keys.values()].filter((key) => key !== "");
    const numeric = filled.length > 0 && filled.every((key) => NUMBER.test(key) || !Number.isNaN(Number(key)));
    const order = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
    const now = order[order.indexOf(header.getAttribute("aria-sort")) + 1];
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    const rows = [...table.original];
    if (now) {
      header.setAttribute("aria-sort", now);
      const sign = now === "ascending" ? 1 : -1;
      const compare = numeric ? (a, b) => numberOf(a) - numberOf(b) : (a, b) => a.localeCompare(b, "en");
      rows.sort((one, other) => {
        const [a, b] = [keys.get(one), keys.get(other)];
        return a === "" || b === "" ? (a === "") - (b === "") : sign * compare(a, b);
      });
    }
    body.append(...rows);
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    for (const header of table.tHead.rows[0].cells) {
      header.querySelector("button").addEventListener("click", () => sortTable(table, header));
    }
  }

  // -- The filter keeps rows that have every word; a family's reference stays as long as one of its cases does.
  const filter = find("filter");
  const applyFilter = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const [kept, all] = [new Set(), new Set()];
    for (const row of document.querySelectorAll("tr[data-case]")) {
      const text = row.dataset.case.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      all.add(row.dataset.id);
      if (!row.hidden) kept.add(row.dataset.id);
    }
    for (const family of document.querySelectorAll(".family")) {
      const rows = [...family.querySelectorAll(".scores tr[data-case]")];
      const shown = rows.some((row) => !row.hidden);
      family.hidden = rows.length > 0 && !shown;
      const reference = family.querySelector("tr.reference");
      if (reference) reference.hidden = false;
    }
    find("filtered").value = words.length ? `${kept.size} of ${all.size} cases` : "";
  };
  filter.closest("p").hidden = false;
  filter.addEventListener("input", applyFilter);
  if (filter.value) applyFilter();

  addEventListener("beforeprint", () => document.querySelectorAll("main > details").forEach((d) => (d.open = true)));
})();
