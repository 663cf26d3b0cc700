"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  // Everything that comes from a run reaches the page as text: nothing here parses HTML.
  const make = (name, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children);
    return element;
  };

  // -- Documents on which two variants differ.
  const panel = find("flips");
  if (!panel) return;
  const PAGE = 20;
  const column = find("column"), variantA = find("variant-a"), variantB = find("variant-b");
  const unpacked = new Map();
  let state = { kind: "all", page: 0, found: [] };
  panel.hidden = false;

  const unpack = async (name) => {
    const option = [...column.options].find((each) => each.value === name);
    const text = atob(find(option.dataset.block).textContent.trim());
    const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).json();
  };
  const load = (name) => {
    if (!unpacked.has(name)) unpacked.set(name, unpack(name));
    return unpacked.get(name);
  };

  const RIGHT_OR_WRONG = {
    all: "all", fell: "right to wrong", rose: "wrong to right", other: "wrong in another way",
  };
  const GRADED = { all: "all", fell: "lower", rose: "higher", other: "as high, other answer" };
  const wordsOf = (data) => (data.graded ? GRADED : RIGHT_OR_WRONG);
  const shownValue = (data, value) => (data.graded ? `${(100 * value).toFixed(1)} points` : value ? "right" : "wrong");

  // What became of every document between two variants: a document that neither rose nor fell counts as changed if
  // both are wrong in different ways, or graded alike for different answers.
  const changes = (data, a, b) => {
    const [rowA, rowB] = [data.rows[data.cases[a]], data.rows[data.cases[b]]];
    const found = [];
    data.documents.forEach((_, at) => {
      const [answerA, valueA] = data.outcomes[at][rowA[at]];
      const [answerB, valueB] = data.outcomes[at][rowB[at]];
      const other = answerA !== answerB && (data.graded || valueA === 0);
      const kind = valueB < valueA ? "fell" : valueB > valueA ? "rose" : other ? "other" : "";
      if (kind) found.push({ at, kind, by: Math.abs(valueB - valueA) });
    });
    return found.sort((one, other) => other.by - one.by || one.at - other.at);
  };
  const points = (data, name) => {
    const row = data.rows[data.cases[name]];
    return (100 * row.reduce((sum, index, at) => sum + data.outcomes[at][index][1], 0)) / (row.length || 1);
  };

  const text = (content, extra = "") =>
    content === ""
      ? make("pre", { className: `empty ${extra}`, textContent: "(empty)" })
      : make("pre", { className: extra, dir: "auto", textContent: content });
  const part = (title, value, content, extra, wide) => {
    const heading = make("h3", {}, title);
    if (value) heading.append(": ", make("b", { textContent: value }));
    return make("div", { className: wide ? "wide" : "" }, heading, text(content, extra));
  };
  const body = (data, at) => {
    const parts = [part("Prompt", "", data.prompts[at], "", true), part("Expected", "", data.targets[at], "", true)];
    for (const [letter, select] of [["A", variantA], ["B", variantB]]) {
      const [answer, value] = data.outcomes[at][data.rows[data.cases[select.value]][at]];
      const side = data.graded ? "" : value ? "right" : "wrong";
      parts.push(part(`${letter}, ${select.value}`, shownValue(data, value), answer, side, false));
    }
    return make("div", { className: "body" }, ...parts);
  };
  const excerpt = (prompt) => {
    const line = prompt.replace(/\s+/g, " ").trim();
    return line.length > 160 ? `… ${line.slice(-158)}` : line;
  };
  const entry = (data, { at, kind, by }) => {
    const more = data.graded && by ? ` by ${(100 * by).toFixed(1)}` : "";
    const summary = make(
      "summary",
      {},
      make("span", { className: `kind ${kind}`, textContent: wordsOf(data)[kind] + more }),
      make("span", { className: "excerpt", dir: "auto", textContent: excerpt(data.prompts[at]) }),
      make("span", { className: "digest", textContent: data.documents[at] }),
    );
    const details = make("details", { className: "document" }, summary);
    details.addEventListener("toggle", () => {
      if (details.open && details.children.length === 1) details.append(body(data, at));
    });
    return details;
  };

  const showPage = (data) => {
    const kept = state.found.filter(({ kind }) => state.kind === "all" || kind === state.kind);
    const pages = Math.max(1, Math.ceil(kept.length / PAGE));
    state.page = Math.min(Math.max(0, state.page), pages - 1);
    const part = kept.slice(state.page * PAGE, (state.page + 1) * PAGE);
    const none = make("p", { className: "note", textContent: "No such document." });
    find("list").replaceChildren(...(part.length ? part.map((each) => entry(data, each)) : [none]));
    find("pages").hidden = pages === 1;
    find("page").textContent = `Page ${state.page + 1} of ${pages}`;
    find("previous").disabled = state.page === 0;
    find("next").disabled = state.page === pages - 1;
  };
  const showKinds = (data) => {
    const fields = find("kinds");
    fields.querySelectorAll("label").forEach((label) => label.remove());
    for (const [kind, word] of Object.entries(wordsOf(data))) {
      const count = state.found.filter((each) => kind === "all" || each.kind === kind).length;
      const radio = make("input", { type: "radio", name: "kind", value: kind, checked: state.kind === kind });
      radio.addEventListener("change", () => {
        state = { ...state, kind, page: 0 };
        address();
        showPage(data);
      });
      fields.append(make("label", {}, radio, `${word} (${count})`));
    }
  };
  const address = () => {
    const query = { column: column.value, a: variantA.value, b: variantB.value, kind: state.kind };
    history.replaceState(null, "", `#documents?${new URLSearchParams(query)}`);
  };
  const fill = (select, data, wanted) => {
    select.replaceChildren(...Object.keys(data.cases).map((name) => make("option", { value: name, textContent: name })));
    if (Object.hasOwn(data.cases, wanted)) select.value = wanted;
  };
  const firstOther = (data, a) => {
    const row = data.cases[a];
    const names = Object.keys(data.cases);
    return names.find((name) => data.cases[name] !== row) ?? names.find((name) => name !== a) ?? a;
  };

  // The last call wins: a column that unpacks slowly must not overwrite a later choice.
  let call = 0;
  const show = async (a, b) => {
    const mine = ++call;
    try {
      const data = await load(column.value);
      if (mine !== call) return;
      fill(variantA, data, Object.hasOwn(data.cases, a) ? a : panel.dataset.reference);
      fill(variantB, data, Object.hasOwn(data.cases, b) ? b : firstOther(data, variantA.value));
      const n = data.documents.length;
      state.found = changes(data, variantA.value, variantB.value);
      state.page = 0;
      const [one, other] = [points(data, variantA.value), points(data, variantB.value)];
      find("sums").textContent =
        `${n} documents: A has ${one.toFixed(1)} points, B ${other.toFixed(1)}; ` +
        `${state.found.length} part ways, ${n - state.found.length} do not.`;
      showKinds(data);
      showPage(data);
    } catch (error) {
      find("sums").textContent = `The answers cannot be unpacked by this browser (${error}); samples.jsonl.gz has them.`;
    }
  };
  const choose = async () => {
    await show(variantA.value, variantB.value);
    address();
  };
  const turn = (by) => async () => {
    state.page += by;
    showPage(await load(column.value));
    find("kinds").scrollIntoView({ block: "nearest" });
  };
  column.addEventListener("change", choose);
  variantA.addEventListener("change", choose);
  variantB.addEventListener("change", choose);
  find("exchange").addEventListener("click", async () => {
    await show(variantB.value, variantA.value);
    address();
  });
  find("previous").addEventListener("click", turn(-1));
  find("next").addEventListener("click", turn(1));
  panel.querySelector("form").addEventListener("submit", (event) => event.preventDefault());

  const follow = () => {
    const [place, query] = location.hash.split("?");
    if (place !== "#documents" || !query) return false;
    const wanted = new URLSearchParams(query);
    if ([...column.options].some((option) => option.value === wanted.get("column"))) column.value = wanted.get("column");
    const kind = wanted.get("kind") ?? "all";
    state.kind = Object.hasOwn(RIGHT_OR_WRONG, kind) ? kind : "all";
    show(wanted.get("a") ?? panel.dataset.reference, wanted.get("b") ?? "");
    find("documents").scrollIntoView();
    column.focus({ preventScroll: true });
    return true;
  };
  addEventListener("hashchange", follow);
  if (!follow()) {
    // Unpacked on first use: when the panel comes into view.
    const watcher = new IntersectionObserver((entries) => {
      if (!entries.some((each) => each.isIntersecting)) return;
      watcher.disconnect();
      if (call === 0) show(panel.dataset.reference, "");
    });
    watcher.observe(panel);
  }
})();
