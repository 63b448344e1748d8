"use strict";
(() => {
  const SHOWN = 100;

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  const pictures = JSON.parse(document.getElementById("pictures").textContent);

  const contentOf = (element) => JSON.parse(document.getElementById(`content-${element.dataset.content}`).textContent);

  const text = (value) => (typeof value === "number" ? value.toFixed(2) : value ?? "n/a");

  /* Undefined values go last whichever way the table is sorted; equals by name. */
  const compare = (a, b, sign) => {
    if (a === b) return 0;
    if (a === null) return 1;
    if (b === null) return -1;
    return sign * (typeof a === "string" ? a.localeCompare(b) : a - b);
  };

  /* Every image's scores: all runs side by side, or one run's IoU by class. */
  const imageTable = (element) => {
    const content = contentOf(element);
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

    const draw = () => {
      head.replaceChildren(...["image", ...columns().map(([name]) => name)].map(heading));
      const found = rows();
      const shown = state.all ? found : found.slice(0, SHOWN);
      body.replaceChildren(
        ...shown.map((row) =>
          make("tr", {}, ...row.map((value, index) => make("td", { className: index ? "number" : "", textContent: text(value) }))),
        ),
      );
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

  /* A run's worst images, one at a time. */
  const gallery = (element) => {
    const { images, legend } = contentOf(element);
    let current = 0;
    const title = make("span", { className: "title" });
    const place = make("span", { className: "count" });
    const tiles = make("div", { className: "tiles" });
    const close = make("button", { type: "button", textContent: "close" });
    const dialog = make("dialog");
    close.addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());

    const previous = make("button", { type: "button", textContent: "‹ worse" });
    const next = make("button", { type: "button", textContent: "better ›" });
    const thumbs = images.map((image, index) => {
      const picture = make("img", { src: pictures[image.tiles.image], alt: image.image });
      const button = make("button", { type: "button", title: `${image.image}, mIoU_I ${image.score}` }, picture);
      button.addEventListener("click", () => show(index));
      return button;
    });

    const tile = (image, kind) => {
      const alt = `${kind} of ${image.image}`;
      const button = make("button", { type: "button" }, make("img", { src: pictures[image.tiles[kind]], alt }), make("span", { textContent: kind }));
      button.addEventListener("click", () => {
        const large = make("img", { src: pictures[image.tiles[kind]], alt });
        dialog.replaceChildren(large, make("p", { textContent: `${alt}, mIoU_I ${image.score}` }), close);
        dialog.showModal();
      });
      return button;
    };

    const show = (index) => {
      current = Math.min(Math.max(index, 0), images.length - 1);
      const image = images[current];
      title.textContent = `${image.image}   mIoU_I ${image.score}`;
      place.textContent = `${current + 1} of the worst ${images.length}`;
      tiles.replaceChildren(...Object.keys(image.tiles).map((kind) => tile(image, kind)));
      thumbs.forEach((thumb, number) => thumb.setAttribute("aria-current", String(number === current)));
      previous.disabled = current === 0;
      next.disabled = current === images.length - 1;
    };

    previous.addEventListener("click", () => show(current - 1));
    next.addEventListener("click", () => show(current + 1));
    element.tabIndex = 0;
    element.addEventListener("keydown", (event) => {
      if (dialog.open) return;
      if (event.key === "ArrowLeft") show(current - 1);
      if (event.key === "ArrowRight") show(current + 1);
    });
    element.replaceChildren(
      make("div", { className: "bar" }, previous, next, title, place),
      tiles,
      make(
        "div",
        { className: "legend" },
        ...legend.map(([name, color]) => {
          const swatch = make("i");
          swatch.style.background = color;
          return make("span", {}, swatch, name);
        }),
      ),
      make("div", { className: "thumbs" }, ...thumbs),
      dialog,
    );
    show(0);
  };

  document.querySelectorAll(".images").forEach(imageTable);
  document.querySelectorAll(".gallery").forEach(gallery);
})();
