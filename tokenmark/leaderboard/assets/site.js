"use strict";
// Tables are sorted and filtered here; what is chosen stands in the address, so that it can be copied and kept.
// One choice holds for all tables of a page: each is sorted by itself, never with another.

const tables = [...document.querySelectorAll("table.sortable")];
const form = document.querySelector("form.view");
const status = form && form.querySelector(".status");
const original = new Map(tables.map((table) => [table, [...table.tBodies[0].rows]]));
const view = { sort: "", order: "" };

function titleOf(heading) {
  return heading.textContent.trim();
}

function compare(column, rising) {
  const number = (row) => row.cells[column].dataset.number;
  return (a, b) => {
    const [one, other] = [number(a), number(b)];
    if (one !== undefined && other !== undefined) return rising ? one - other : other - one;
    if (one !== undefined || other !== undefined) return one === undefined ? 1 : -1; // empty cells come last
    const [text, against] = [a, b].map((row) => row.cells[column].textContent.trim());
    if (!text || !against) return text ? -1 : against ? 1 : 0;
    return (rising ? 1 : -1) * text.localeCompare(against, "en", { numeric: true });
  };
}

function sort() {
  for (const table of tables) {
    let rows = original.get(table);
    for (const heading of table.tHead.rows[0].cells) {
      heading.removeAttribute("aria-sort");
      if (view.sort && titleOf(heading) === view.sort) {
        heading.setAttribute("aria-sort", view.order === "desc" ? "descending" : "ascending");
        rows = [...rows].sort(compare(heading.cellIndex, view.order !== "desc"));
      }
    }
    table.tBodies[0].append(...rows);
  }
}

function filter() {
  if (!form) return;
  const words = form.elements.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = [...form.querySelectorAll("select")].filter((box) => box.value);
  let shown = 0;
  let all = 0;
  for (const rows of original.values()) {
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word)) || !chosen.every((box) => row.dataset[box.name] === box.value);
      all += 1;
      shown += row.hidden ? 0 : 1;
    }
  }
  status.textContent = shown === all ? `${all} rows` : `${shown} of ${all} rows`;
}

function remember() {
  const query = new URLSearchParams();
  if (view.sort) {
    query.set("sort", view.sort);
    query.set("order", view.order);
  }
  for (const field of form ? form.elements : []) if (field.name && field.value) query.set(field.name, field.value);
  const text = query.toString();
  history.replaceState(null, "", location.pathname + (text ? `?${text}` : "") + location.hash);
}

function recall() {
  const query = new URLSearchParams(location.search);
  view.sort = query.get("sort") || "";
  view.order = query.get("order") === "desc" ? "desc" : "asc";
  for (const field of form ? form.elements : []) if (field.name) field.value = query.get(field.name) || "";
}

for (const table of tables) {
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const again = heading.getAttribute("aria-sort") === "ascending";
      Object.assign(view, { sort: titleOf(heading), order: again ? "desc" : "asc" });
      sort();
      remember();
    });
  }
}
if (form) {
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    filter();
    remember();
  });
  form.addEventListener("reset", () => {
    setTimeout(() => {
      Object.assign(view, { sort: "", order: "" });
      sort();
      filter();
      remember();
    });
  });
}
recall();
sort();
filter();
