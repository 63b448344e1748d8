/* Pictures of one split with the label maps of all runs: side by side, moved and enlarged together. */
const albums = new Map();
const KEPT = 8; /* decoded pictures that stay in memory */
const WRONG = [215, 35, 35];
const INVENTED = [240, 150, 20];

const bytesOf = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

/* Undoes explorer/album.py: deflated rows, each XOR the row above it. */
const unpack = async (text, width) => {
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const ids = new Uint8Array(await new Response(stream).arrayBuffer());
  for (let index = width; index < ids.length; index += 1) ids[index] ^= ids[index - width];
  return ids;
};

/* Pictures follow the script in the page, so the page is usable before the last of them has been read. */
const sourceOf = (id) =>
  new Promise((resolve) => {
    const look = () => {
      const found = document.getElementById(id);
      if (found?.nextElementSibling || document.readyState !== "loading") resolve(found.textContent);
      else setTimeout(look, 20); /* an element that has a next one is whole */
    };
    look();
  });

const channels = (color) => [1, 3, 5].map((start) => parseInt(color.slice(start, start + 2), 16));

const explorer = (element) => {
  const content = contentOf(element);
  const scores = content.scores === null ? null : scoresOf(content.scores);
  const place = new Map((scores?.images ?? []).map((name, index) => [name, index]));
  const runScores = content.runs.map(([label]) => scores?.runs.find((run) => run.label === label) ?? null);
  const scored = content.runs.map((_, index) => index).filter((index) => runScores[index]);
  const state = {
    current: 0, score: "mIoU_I", run: scored[0] ?? 0, minus: -1, sign: 1, kind: -1, view: "classes", alpha: 0.65,
    zoom: 1, x: 0.5, y: 0.5, cursor: null, hidden: new Set(), loaded: null,
  };
  let order = [];
  const cache = new Map();

  const table = new Uint8Array(256 * 3);
  content.classes.forEach(([, color], index) => table.set(channels(color), 3 * index));

  /* ---- order ---- */
  const scoreOf = (name, run) => {
    const found = runScores[run];
    const row = place.get(name);
    if (!found || row === undefined) return null;
    if (state.score.startsWith("IoU:")) return found.IoU[row][Number(state.score.slice(4))] ?? null;
    return (state.score === "mIoU_I" ? found.mIoU_I : found.more[state.score])[row] ?? null;
  };
  const valueOf = (name) => {
    const mine = scoreOf(name, state.run);
    if (state.minus < 0 || mine === null) return mine;
    const other = scoreOf(name, state.minus);
    return other === null ? null : mine - other;
  };
  /* A class is in an image where some run has an IoU of it there. */
  const hasKind = (name) => {
    const row = place.get(name);
    const column = scores.classes.indexOf(content.classes[state.kind][0]); /* a binary dataset scores one class of two */
    return row === undefined || column < 0 || scored.some((run) => runScores[run].IoU[row][column] !== null);
  };
  /* Pictures that show the runs in question come first; without the dataset, not every picture has every run. */
  const isKept = (index) => [state.run, state.minus].every((run) => run < 0 || content.pictures[index][3][run] !== "0");
  const reorder = (keep) => {
    order = content.pictures
      .map(([name], index) => ({ name, index, value: valueOf(name) }))
      .filter(({ name }) => state.kind < 0 || !scores || hasKind(name))
      .sort((a, b) => isKept(b.index) - isKept(a.index) || compare(a.value, b.value, state.sign) || compare(a.name, b.name, 1));
    list.replaceChildren(
      ...order.map(({ name, value }, at) => {
        const button = make("button", { type: "button", title: name }, make("span", { textContent: name }), make("b", { textContent: text(value) }));
        button.addEventListener("click", () => show(at));
        return make("li", {}, button);
      }),
    );
    show(Math.max(0, keep === undefined ? 0 : order.findIndex(({ index }) => index === keep)));
  };

  /* ---- decoding ---- */
  const load = async (index) => {
    if (!cache.has(index)) {
      cache.set(index, (async () => {
        const [, width, height] = content.pictures[index];
        const [jpeg, truth, ...maps] = (await sourceOf(`picture-${content.id}-${index}`)).split("|");
        const image = await createImageBitmap(new Blob([bytesOf(jpeg)], { type: "image/jpeg" }));
        const ids = await Promise.all([truth, ...maps].map((each) => (each ? unpack(each, width) : null)));
        return { index, width, height, image, truth: ids[0], maps: ids.slice(1), overlays: new Map() };
      })());
      if (cache.size > KEPT) cache.delete(cache.keys().next().value);
    }
    return cache.get(index);
  };

  /* The colours over the image: of a label map (-1 is the truth), or of its mistakes. */
  const overlay = (picture, map) => {
    const mistakes = state.view === "mistakes" && map >= 0;
    const key = `${map} ${mistakes} ${state.kind}`;
    if (picture.overlays.has(key)) return picture.overlays.get(key);
    const canvas = make("canvas", { width: picture.width, height: picture.height });
    const pixels = new ImageData(picture.width, picture.height);
    const ids = map < 0 ? picture.truth : picture.maps[map];
    const known = content.classes.length;
    const kind = state.kind;
    for (let index = 0, at = 0; index < ids.length; index += 1, at += 4) {
      const id = ids[index];
      const truth = picture.truth[index];
      let color = null;
      if (truth >= known) color = [0, 0, 0];
      else if (mistakes) {
        if (id !== truth && kind < 0) color = WRONG;
        else if (id !== truth && truth === kind) color = WRONG;
        else if (id !== truth && id === kind) color = INVENTED;
      } else if (kind < 0 || id === kind) color = table.subarray(3 * id, 3 * id + 3);
      if (color) {
        pixels.data[at] = color[0];
        pixels.data[at + 1] = color[1];
        pixels.data[at + 2] = color[2];
        pixels.data[at + 3] = 255;
      }
    }
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    picture.overlays.set(key, canvas);
    return canvas;
  };

  /* ---- panels ---- */
  const panels = [{ title: "image", map: -2, position: null }, { title: "truth", map: -1, position: null }];
  content.runs.forEach(([label, position], map) => panels.push({ title: label, map, position }));
  for (const panel of panels) {
    panel.wanted = true;
    panel.canvas = make("canvas", {});
    panel.canvas.setAttribute("role", "img");
    panel.caption = make("span", { className: "count" });
    panel.figure = make(
      "figure",
      { className: "panel" },
      make("figcaption", {}, panel.position === null ? "" : dot(panel.position), make("b", { textContent: panel.title }), panel.caption),
      panel.canvas,
    );
  }

  const window_ = () => {
    const size = 1 / state.zoom;
    state.x = Math.min(Math.max(state.x, size / 2), 1 - size / 2);
    state.y = Math.min(Math.max(state.y, size / 2), 1 - size / 2);
    return { left: state.x - size / 2, top: state.y - size / 2, size };
  };

  const paint = () => {
    const picture = state.loaded;
    if (!picture) return;
    const { left, top, size } = window_();
    const part = [left * picture.width, top * picture.height, size * picture.width, size * picture.height];
    for (const panel of panels) {
      const empty = panel.map >= 0 && !picture.maps[panel.map];
      panel.figure.hidden = empty || !panel.wanted;
      const width = panel.canvas.clientWidth;
      if (!width) continue;
      const sharp = Math.max(1, window.devicePixelRatio || 1);
      const across = Math.round(width * sharp);
      const down = Math.max(1, Math.round((across * picture.height) / picture.width));
      if (panel.canvas.width !== across || panel.canvas.height !== down) Object.assign(panel.canvas, { width: across, height: down });
      const pen = panel.canvas.getContext("2d");
      pen.globalAlpha = 1;
      pen.clearRect(0, 0, across, down);
      pen.imageSmoothingEnabled = across / part[2] < 1; /* enlarged pixels stay crisp */
      pen.drawImage(picture.image, ...part, 0, 0, across, down);
      if (panel.map > -2) {
        pen.imageSmoothingEnabled = false;
        pen.globalAlpha = state.alpha;
        pen.drawImage(overlay(picture, panel.map), ...part, 0, 0, across, down);
        pen.globalAlpha = 1;
      }
      if (state.cursor) {
        const x = ((state.cursor[0] - left) / size) * across;
        const y = ((state.cursor[1] - top) / size) * down;
        for (const [color, wide] of [["#ffffff", 3], ["#000000", 1]]) {
          pen.strokeStyle = color;
          pen.lineWidth = wide * sharp;
          pen.beginPath();
          pen.moveTo(x - 7 * sharp, y);
          pen.lineTo(x + 7 * sharp, y);
          pen.moveTo(x, y - 7 * sharp);
          pen.lineTo(x, y + 7 * sharp);
          pen.stroke();
        }
      }
      panel.caption.textContent = captionOf(panel, picture);
      panel.canvas.style.touchAction = state.zoom > 1 ? "none" : "pan-x pan-y";
      panel.canvas.setAttribute("aria-label", `${panel.title} of ${content.pictures[picture.index][0]}`);
    }
    zoomed.textContent = `${state.zoom.toFixed(1)}×`;
  };

  const captionOf = (panel, picture) => {
    const name = content.pictures[picture.index][0];
    if (state.cursor && panel.map > -2) {
      const x = Math.min(picture.width - 1, Math.floor(state.cursor[0] * picture.width));
      const y = Math.min(picture.height - 1, Math.floor(state.cursor[1] * picture.height));
      const id = (panel.map < 0 ? picture.truth : picture.maps[panel.map])[y * picture.width + x];
      return content.classes[id]?.[0] ?? "ignored";
    }
    if (panel.map < 0) return panel.map < -1 ? `${picture.width} × ${picture.height}` : "";
    const value = scoreOf(name, panel.map);
    return value === null ? "" : `${scoreName()} ${text(value)}`;
  };
  const scoreName = () => (state.score.startsWith("IoU:") ? `IoU of ${scores.classes[Number(state.score.slice(4))]}` : state.score);

  let waiting = false;
  const draw = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      paint();
    });
  };

  const show = async (at) => {
    state.current = Math.min(Math.max(at, 0), order.length - 1);
    const chosen = order[state.current];
    [...list.children].forEach((item, index) => item.firstChild.setAttribute("aria-current", String(index === state.current)));
    const item = list.children[state.current];
    if (item) list.scrollTop = item.offsetTop - list.offsetTop - list.clientHeight / 2;
    previous.disabled = state.current <= 0;
    next.disabled = state.current >= order.length - 1;
    title.textContent = chosen ? chosen.name : "no picture has this class";
    counted.textContent = `${order.length ? state.current + 1 : 0} of ${order.length} pictures here, ${content.images} in the split`;
    if (!chosen) return;
    const picture = await load(chosen.index);
    if (order[state.current]?.index !== chosen.index) return; /* another one was asked for meanwhile */
    state.loaded = picture;
    element.dataset.shown = chosen.name;
    draw();
    if (order[state.current + 1]) load(order[state.current + 1].index);
  };

  /* ---- controls ---- */
  const button = (label, name, action) => {
    const made = make("button", { type: "button", textContent: label, title: name });
    made.setAttribute("aria-label", name);
    made.addEventListener("click", action);
    return made;
  };
  const select = (name, options, value, action) => {
    const made = make("select", {}, ...options.map(([key, label]) => make("option", { value: key, textContent: label })));
    made.value = value;
    made.setAttribute("aria-label", name);
    made.addEventListener("change", () => action(made.value));
    return made;
  };
  const keep = () => order[state.current]?.index;
  const zoom = (factor, x = state.x, y = state.y) => {
    const before = state.zoom;
    state.zoom = Math.min(Math.max(before * factor, 1), 32);
    /* the point (x, y) of the picture stays where it is on the screen */
    state.x = x + ((state.x - x) * before) / state.zoom;
    state.y = y + ((state.y - y) * before) / state.zoom;
    draw();
  };
  const reset = () => {
    Object.assign(state, { zoom: 1, x: 0.5, y: 0.5 });
    draw();
  };
  const setView = (value) => {
    state.view = value;
    views.value = value;
    draw();
  };

  const title = make("span", { className: "title" });
  const counted = make("span", { className: "count" });
  const zoomed = make("span", { className: "count" });
  const list = make("ol", { className: "list", tabIndex: -1 });
  const previous = button("‹", "previous picture (left arrow)", () => show(state.current - 1));
  const next = button("›", "next picture (right arrow)", () => show(state.current + 1));
  const names = scores
    ? [["mIoU_I", "mIoU_I"], ...Object.keys(scores.runs[0]?.more ?? {}).map((key) => [key, key]), ...scores.classes.map((name, index) => [`IoU:${index}`, `IoU of ${name}`])]
    : [];
  const runNames = scored.map((index) => [index, content.runs[index][0]]);
  const sorts = select("score to sort by", names, state.score, (value) => {
    state.score = value;
    reorder(keep());
  });
  const ofRun = select("run to sort by", runNames, state.run, (value) => {
    state.run = Number(value);
    reorder();
  });
  const minus = select("run to subtract", [[-1, "nothing"], ...runNames], -1, (value) => {
    state.minus = Number(value);
    reorder();
  });
  const direction = button("lowest first", "reverse the order", () => {
    state.sign = -state.sign;
    direction.textContent = state.sign > 0 ? "lowest first" : "highest first";
    reorder();
  });
  const kinds = select("class", [[-1, "all classes"], ...content.classes.map(([name], index) => [index, name])], -1, (value) => {
    state.kind = Number(value);
    reorder(keep());
  });
  const views = select("what to show", [["classes", "classes"], ["mistakes", "difference to truth"]], state.view, setView);
  const slider = make("input", { type: "range", min: 0, max: 100, value: 65 });
  slider.setAttribute("aria-label", "opacity of the overlay");
  slider.addEventListener("input", () => {
    state.alpha = Number(slider.value) / 100;
    draw();
  });

  const chips = panels.map((panel) => {
    const box = make("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => {
      panel.wanted = box.checked;
      draw();
    });
    return make("label", { className: "chip" }, box, panel.position === null ? "" : dot(panel.position), panel.title);
  });

  /* ---- pointers ---- */
  const pointers = new Map();
  const placeOf = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const { left, top, size } = window_();
    return [left + (size * (event.clientX - box.left)) / box.width, top + (size * (event.clientY - box.top)) / box.height];
  };
  const spread = () => {
    const [a, b] = [...pointers.values()];
    return Math.hypot(a[0] - b[0], a[1] - b[1]);
  };
  for (const { canvas } of panels) {
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return; /* the plain wheel scrolls the page */
      event.preventDefault();
      zoom(Math.exp(-event.deltaY / 200), ...placeOf(event));
    }, { passive: false });
    canvas.addEventListener("dblclick", (event) => zoom(event.shiftKey ? 0.5 : 2, ...placeOf(event)));
    canvas.addEventListener("pointerdown", (event) => {
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
      if (state.zoom > 1) canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (before) {
        const apart = pointers.size === 2 ? spread() : 0;
        pointers.set(event.pointerId, [event.clientX, event.clientY]);
        if (apart) zoom(spread() / apart, ...placeOf(event));
        else if (state.zoom > 1) {
          const box = canvas.getBoundingClientRect();
          state.x -= (event.clientX - before[0]) / box.width / state.zoom;
          state.y -= (event.clientY - before[1]) / box.height / state.zoom;
        }
      }
      state.cursor = event.pointerType === "mouse" ? placeOf(event) : null;
      draw();
    });
    const end = (event) => pointers.delete(event.pointerId);
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener("pointerleave", (event) => {
      end(event);
      state.cursor = null;
      draw();
    });
  }

  const keys = {
    ArrowLeft: () => show(state.current - 1),
    ArrowRight: () => show(state.current + 1),
    Home: () => show(0),
    End: () => show(order.length - 1),
    "+": () => zoom(1.5),
    "=": () => zoom(1.5),
    "-": () => zoom(1 / 1.5),
    0: reset,
    d: () => setView(state.view === "classes" ? "mistakes" : "classes"),
    o: () => {
      state.alpha = state.alpha ? 0 : 0.65;
      slider.value = 100 * state.alpha;
      draw();
    },
  };
  element.tabIndex = 0;
  element.setAttribute("aria-label", `pictures of ${content.place}`);
  element.addEventListener("keydown", (event) => {
    const act = keys[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey || /^(SELECT|INPUT)$/.test(event.target.tagName)) return;
    event.preventDefault();
    act();
  });

  const legend = make("div", { className: "legend" }, ...content.classes.map(([name, color]) => {
    const swatch = make("i");
    swatch.style.background = color;
    const made = make("button", { type: "button", title: `show only ${name}` }, swatch, name);
    made.addEventListener("click", () => {
      const index = content.classes.findIndex(([other]) => other === name);
      state.kind = state.kind === index ? -1 : index;
      kinds.value = state.kind;
      reorder(keep());
    });
    return made;
  }));
  const row = make("div", { className: "panels" }, ...panels.map((panel) => panel.figure));
  element.replaceChildren(
    make("div", { className: "bar" }, previous, next, title, counted),
    make("div", { className: "controls" },
      ...(runNames.length ? [
        make("label", {}, "sort by ", sorts), make("label", {}, "of ", ofRun), make("label", {}, "minus ", minus), direction,
      ] : []),
    ),
    make("div", { className: "controls" },
      make("label", {}, "show ", views), make("label", {}, "class ", kinds), make("label", {}, "overlay ", slider),
      make("span", { className: "zoom" }, button("−", "zoom out", () => zoom(1 / 1.5)), button("+", "zoom in", () => zoom(1.5)),
        button("fit", "whole picture (0)", reset), zoomed),
    ),
    make("div", { className: "chips" }, ...chips),
    row,
    legend,
    make("details", {},
      make("summary", { textContent: `list of ${content.pictures.length} pictures` }), list),
    make("p", { className: "hint", textContent:
      "Keys: ← → picture, + − zoom, 0 whole picture, d difference to truth, o overlay on and off. Double click or Ctrl + wheel zooms, dragging moves all pictures. "
      + "In the difference to truth, red pixels are wrong; if a class is chosen, red pixels were missed and orange ones wrongly found." }),
  );
  new ResizeObserver(draw).observe(row);

  albums.set(content.place, {
    /* Shows a picture; false where the page does not keep it. */
    open(name, run) {
      const index = content.pictures.findIndex(([other]) => other === name);
      if (index < 0) return false;
      const chosen = content.runs.findIndex(([label]) => label === run);
      if (chosen >= 0 && runScores[chosen]) Object.assign(state, { run: chosen, minus: -1, score: "mIoU_I", sign: 1 });
      state.kind = -1;
      [kinds.value, ofRun.value, minus.value, sorts.value] = [-1, state.run, state.minus, state.score];
      direction.textContent = state.sign > 0 ? "lowest first" : "highest first";
      reorder(index);
      element.scrollIntoView({ block: "start" });
      element.focus({ preventScroll: true });
      return true;
    },
    has: (name) => content.pictures.some(([other]) => other === name),
  });

  const start = content.pair;
  if (start && runScores[start[0]] && runScores[start[1]]) {
    Object.assign(state, { run: start[0], minus: start[1], sign: -1 });
    [ofRun.value, minus.value] = start;
    direction.textContent = "highest first";
  }
  reorder();
};
