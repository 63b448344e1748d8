const SHOWN = 100;

const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

const read = (id) => JSON.parse(document.getElementById(id).textContent);
const contentOf = (element) => read(`content-${element.dataset.content}`);

const allScores = new Map();
/* The scores of all images of a place. A run that is alone in its group has no numbers of its own, but those of the group. */
const scoresOf = (number) => {
  if (!allScores.has(number)) {
    const found = read(`scores-${number}`);
    found.runs = found.runs.map((run) => ("mIoU_I" in run ? run : { ...found.columns[run.group], ...run }));
    allScores.set(number, found);
  }
  return allScores.get(number);
};

const text = (value) => (typeof value === "number" ? value.toFixed(2) : value ?? "n/a");

const COLORS = read("colors");
const dot = (position) => {
  const made = make("i", { className: "dot" });
  made.style.background = position < 0 ? "#888888" : COLORS[position % COLORS.length];
  return made;
};

/* Undefined values go last whichever way the table is sorted; equals by name. */
const compare = (a, b, sign) => {
  if (a === b) return 0;
  if (a === null) return 1;
  if (b === null) return -1;
  return sign * (typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
};

/* Every image's scores: all groups side by side, or one group's IoU by class. A click on a name opens the picture. */
const imageTable = (element) => {
  const content = scoresOf(Number(element.dataset.scores));
  const album = albums.get(element.dataset.place);
  const state = { view: -1, sort: 1, sign: 1, name: "", below: NaN, all: false };

  const columns = () =>
    state.view < 0
      ? content.columns.map((column) => [`${column.label}, mIoU_I`, column.mIoU_I])
      : [
          ["mIoU_I", content.columns[state.view].mIoU_I],
          ...content.classes.map((name, index) => [name, content.columns[state.view].IoU.map((row) => row[index])]),
        ];

  const rows = () => {
    const values = columns().map(([, column]) => column);
    const needle = state.name.toLowerCase();
    return content.images
      .map((image, index) => [image, ...values.map((column) => column[index])])
      .filter((row) => row[0].toLowerCase().includes(needle))
      .filter((row) => Number.isNaN(state.below) || row.slice(1).some((value) => value !== null && value < state.below))
      .sort((a, b) => compare(a[state.sort], b[state.sort], state.sign) || compare(a[0], b[0], 1));
  };

  const head = make("tr");
  const body = make("tbody");
  const counted = make("span", { className: "count" });
  const more = make("button", { type: "button", textContent: "show all" });

  const heading = (name, index) => {
    const button = make("button", { type: "button", textContent: name });
    button.addEventListener("click", () => {
      state.sign = state.sort === index ? -state.sign : 1;
      state.sort = index;
      draw();
    });
    const cell = make("th", { scope: "col", className: index ? "number" : "" }, button);
    if (state.sort === index) cell.setAttribute("aria-sort", state.sign > 0 ? "ascending" : "descending");
    return cell;
  };

  const line = (row) => {
    const opens = album?.has(row[0]);
    const name = opens ? make("button", { type: "button", className: "link", textContent: row[0], title: "open in the explorer" }) : row[0];
    const made = make(
      "tr",
      { className: opens ? "opens" : "" },
      ...row.map((value, index) => make("td", { className: index ? "number" : "" }, index ? text(value) : name)),
    );
    if (opens) made.addEventListener("click", () => album.open(row[0]));
    return made;
  };

  const draw = () => {
    head.replaceChildren(...["image", ...columns().map(([name]) => name)].map(heading));
    const found = rows();
    const shown = state.all ? found : found.slice(0, SHOWN);
    body.replaceChildren(...shown.map(line));
    counted.textContent = `${shown.length} of ${found.length} images shown, ${content.images.length} in all`;
    more.hidden = shown.length === found.length;
  };

  const change = (key, value) => {
    state[key] = value;
    draw();
  };
  const view = make("select", {}, make("option", { value: -1, textContent: "all runs, mIoU_I" }));
  content.columns.forEach((column, index) => view.append(make("option", { value: index, textContent: `${column.label}, IoU by class` })));
  view.addEventListener("change", () => {
    Object.assign(state, { sort: 1, sign: 1 });
    change("view", Number(view.value));
  });
  const name = make("input", { type: "search", placeholder: "part of a name" });
  name.addEventListener("input", () => change("name", name.value));
  const below = make("input", { type: "number", min: 0, max: 100, step: 5, placeholder: "any" });
  below.addEventListener("input", () => change("below", below.valueAsNumber));
  more.addEventListener("click", () => change("all", true));

  element.replaceChildren(
    make(
      "div",
      { className: "controls" },
      make("label", {}, "show ", view),
      make("label", {}, "image ", name),
      make("label", {}, "a score below ", below),
      counted,
      more,
    ),
    make("div", { className: "wide", tabIndex: 0 }, make("table", {}, make("thead", {}, head), body)),
  );
  draw();
};

/* The worst images of a run, as links into the explorer. */
const worst = (element) => {
  const { images, place, run } = contentOf(element);
  const album = albums.get(place);
  if (!album || !images.some(([name]) => album.has(name))) {
    element.replaceChildren(...[...element.querySelectorAll("template")].map((hidden) => hidden.content));
    return;
  }
  element.replaceChildren(
    ...images.map(([name, score]) => {
      const button = make("button", { type: "button", disabled: !album.has(name) }, name, " ", make("b", { textContent: score }));
      button.addEventListener("click", () => album.open(name, run));
      return button;
    }),
  );
};

/* A click on a heading sorts a table by its column: by its first number where cells have one, else by their words. */
const sortable = (table) => {
  const headings = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  if (body.rows.length < 2) return;
  const keyOf = (row, index) => {
    const words = row.cells[index].textContent.trim();
    if (["n/a", "–", "not run", "none published"].includes(words)) return null;
    const number = headings[index].classList.contains("number") ? words.replace(/,/g, "").match(/[-+−]?\d+(\.\d+)?/) : null;
    return number ? Number(number[0].replace("−", "-")) : words;
  };
  headings.forEach((heading, index) => {
    const button = make("button", { type: "button" }, ...heading.childNodes);
    heading.append(button);
    heading.scope = "col";
    button.addEventListener("click", () => {
      const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      body.append(...[...body.rows].sort((a, b) => compare(keyOf(a, index), keyOf(b, index), sign)));
    });
  });
};

document.querySelectorAll("main table").forEach(sortable);
document.querySelectorAll(".explorer").forEach(explorer);
document.querySelectorAll(".images").forEach(imageTable);
document.querySelectorAll(".worst").forEach(worst);
