"use strict";
(() => {
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const heads = Array.from(table.tHead.rows[0].cells);
    // Costs in seconds come after those in USD, cells without a value last, in either order.
    const rank = (text) => (text === undefined ? 2 : text.endsWith("s") && !isNaN(parseFloat(text)) ? 1 : 0);
    const compare = (a, b, n) => (n ? parseFloat(a) - parseFloat(b) : a.localeCompare(b));
    heads.forEach((head, n) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const was = head.getAttribute("aria-sort");
        const order = was ? (was === "ascending" ? "descending" : "ascending") : head.dataset.first || "ascending";
        heads.forEach((one) => one.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", order);
        const rows = Array.from(body.rows);
        const keys = new Map(rows.map((row) => [row, row.cells[n].dataset.sort]));
        rows.sort((one, other) => {
          const [a, b] = [keys.get(one), keys.get(other)];
          const apart = n ? rank(a) - rank(b) : 0;
          return apart || (a === undefined ? 0 : compare(a, b, n) * (order === "ascending" ? 1 : -1));
        });
        body.append(...rows);
      });
    });
    table.classList.add("sorts");
  }
})();
(() => {
  const all = (selector, from) => Array.from((from || document).querySelectorAll(selector));
  const form = document.getElementById("filter");
  const rows = all("#questions > .question");
  if (!form || !rows.length) return;
  const told = document.getElementById("told");
  const none = document.getElementById("none");
  const texts = rows.map((row) => row.textContent.toLowerCase().replace(/\s+/g, " "));
  const field = (name) => form.elements.namedItem(name);

  function rightOf(row, arm) {
    const marks = row.dataset.right.split(" ");
    const mine = arm ? marks.filter((mark) => mark.slice(1) === arm) : marks;
    return mine.map((mark) => mark[0] === "+");
  }

  function apply() {
    const text = field("text").value.trim().toLowerCase();
    const arm = field("arm").value;
    const show = field("show").value;
    const apart = field("apart").checked;
    let count = 0;
    rows.forEach((row, n) => {
      const right = rightOf(row, arm);
      const fits = texts[n].includes(text)
        && (!apart || row.dataset.apart === "1")
        && (show === "all" || right.some((one) => one === (show === "right")));
      row.hidden = !fits;
      if (fits) count += 1;
    });
    told.textContent = `${count} of ${rows.length} questions`;
    none.hidden = count > 0;
    document.getElementById("questions").classList.toggle("unmarked", !field("marks").checked);
  }

  function remember() {
    const kept = new URLSearchParams();
    if (field("text").value) kept.set("text", field("text").value);
    if (field("arm").value) kept.set("arm", field("arm").value);
    if (field("show").value !== "all") kept.set("show", field("show").value);
    if (field("apart").checked) kept.set("apart", "1");
    const hash = kept.toString();
    try { history.replaceState(null, "", hash ? `#filter:${hash}` : "#answers"); } catch (refused) { /* in a frame */ }
  }

  function recall() {
    const hash = location.hash.slice(1);
    if (hash.startsWith("filter:")) {
      const kept = new URLSearchParams(hash.slice(7));
      field("text").value = kept.get("text") || "";
      for (const name of ["arm", "show"]) {
        const wanted = kept.get(name);
        if (all("option", field(name)).some((option) => option.value === wanted)) field(name).value = wanted;
      }
      field("apart").checked = kept.get("apart") === "1";
    } else if (hash.startsWith("q-")) {
      const row = document.getElementById(hash);
      if (row) row.querySelector("details").open = true;
    }
    apply();
  }

  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => { apply(); remember(); });
  form.addEventListener("reset", () => setTimeout(() => { apply(); remember(); }));
  document.getElementById("open").addEventListener("click", () => {
    const shown = rows.filter((row) => !row.hidden).map((row) => row.querySelector("details"));
    const open = shown.some((one) => !one.open);
    shown.forEach((one) => { one.open = open; });
  });
  window.addEventListener("hashchange", recall);
  recall();
})();
