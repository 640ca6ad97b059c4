// Any number of classes, live: a scene's map in small, areas, what speaks for the number, and the merge tree.
// All of it follows from the order in which classes part (choice/tree.js) and the codes of a scene, so that
// nothing is asked of a server. Pages from a disk may not fetch files, so both come as scripts.
"use strict";

const NOTHING = 65535;
const SVG = "http://www.w3.org/2000/svg";

/** Make an element with properties and children. */
function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** Make an SVG element with attributes. */
function drawn(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

/** Return the class of each code: the parts that have left, in their order. */
function classesOf(tree, n) {
  const classes = new Uint16Array(tree.sizes.length).fill(tree.first);
  for (const [number, codes] of tree.steps.slice(0, n - 1)) for (const code of codes) classes[code] = number;
  return classes;
}

/** Name each class by the classes of the maps that it joins or is a part of. */
function namesOf(tree, classes) {
  const own = classesOf(tree, tree.chosen);
  const inside = new Map(); // class to the classes of the maps in it
  const parts = new Map(); // class of the maps to the classes in it
  classes.forEach((number, code) => {
    if (!inside.has(number)) inside.set(number, new Set());
    inside.get(number).add(own[code]);
    if (!parts.has(own[code])) parts.set(own[code], new Set());
    parts.get(own[code]).add(number);
  });
  const names = new Map();
  for (const [number, held] of inside) {
    const [first, ...rest] = [...held].sort((a, b) => a - b).map((k) => tree.names[k]);
    const among = [...parts.get([...held][0])].sort((a, b) => a - b);
    if (rest.length > 2) names.set(number, `${first} and ${rest.length} more`);
    else if (rest.length) names.set(number, [first, ...rest].join(" + "));
    else if (among.length > 1) names.set(number, `${first}, part ${among.indexOf(number) + 1}`);
    else names.set(number, first);
  }
  return names;
}

/** Add up weights by class and divide by their sum. */
function sharesOf(classes, weights) {
  const shares = new Map();
  let total = 0;
  weights.forEach((weight, code) => {
    shares.set(classes[code], (shares.get(classes[code]) ?? 0) + weight);
    total += weight;
  });
  for (const [number, weight] of shares) shares.set(number, weight / Math.max(total, 1));
  return shares;
}

/** Load the codes of a scene: a promise of `{width, height, codes, sizes}`. */
const loaded = new Map();
function sceneCodes(id, address, count) {
  if (!loaded.has(id)) {
    const script = element("script", { src: address });
    const arrived = new Promise((done, failed) => {
      script.addEventListener("load", () => done(globalThis.sassMaps[id]));
      script.addEventListener("error", () => failed(new Error(`${address} cannot be read`)));
    });
    document.head.append(script);
    loaded.set(id, arrived.then(async ({ width, height, codes: packed }) => {
      const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
      const codes = new Uint16Array(await new Response(stream).arrayBuffer());
      const sizes = new Float64Array(count);
      for (const code of codes) if (code !== NOTHING) sizes[code] += 1;
      return { width, height, codes, sizes };
    }));
  }
  return loaded.get(id);
}

/** Paint the map of a scene; of a class that is pointed out, the others turn pale. */
function paint(canvas, scene, classes, colours, only) {
  canvas.width = scene.width;
  canvas.height = scene.height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(scene.width, scene.height);
  const rgb = colours.map((text) => [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16)));
  scene.codes.forEach((code, i) => {
    if (code === NOTHING) return;
    const number = classes[code];
    image.data.set([...rgb[number], only === null || only === number ? 255 : 45], 4 * i);
  });
  context.putImageData(image, 0, 0);
}

/** Draw the tree once; return a function that colours it. */
function growTree(svg, tree) {
  const leaves = tree.sizes.length;
  const x = new Float64Array(2 * leaves - 1);
  const height = new Float64Array(2 * leaves - 1);
  tree.order.forEach((leaf, i) => (x[leaf] = i + 0.5));
  const top = Math.max(...tree.merges.map((merge) => merge[2]), 1e-9);
  const lines = tree.merges.map(([a, b, level], i) => {
    x[leaves + i] = (x[a] + x[b]) / 2;
    height[leaves + i] = level;
    const y = (value) => 100 - (97 * value) / top;
    return drawn("path", { d: `M${x[a]} ${y(height[a])}V${y(level)}H${x[b]}V${y(height[b])}` });
  });
  const feet = tree.order.map((leaf) => drawn("rect", { x: x[leaf] - 0.5, y: 101, width: 1, height: 6 }));
  svg.setAttribute("viewBox", `0 0 ${leaves} 107`);
  svg.append(...lines, ...feet);
  return (classes, colours) => {
    const of = [...classes, ...tree.merges.map(() => -1)];
    tree.merges.forEach(([a, b], i) => {
      if (of[a] === of[b]) of[leaves + i] = of[a];
      lines[i].style.stroke = of[leaves + i] < 0 ? "" : colours[of[leaves + i]];
    });
    feet.forEach((foot, i) => (foot.style.fill = colours[classes[tree.order[i]]]));
  };
}

/** Draw a line of values by number of classes; return a function that marks one and says its value. */
function growLine(list, tree, key, title) {
  const points = Object.entries(tree.rows).filter(([, row]) => row[key] != null).map(([n, row]) => [+n, row[key]]);
  const [least, most] = [Math.min(...points.map((p) => p[1])), Math.max(...points.map((p) => p[1]))];
  const last = Math.max(...points.map((p) => p[0]));
  const at = ([n, value]) => [2 + (96 * (n - 2)) / Math.max(last - 2, 1), 26 - (22 * (value - least)) / (most - least || 1)];
  const svg = drawn("svg", { viewBox: "0 0 100 30", class: "spark", "aria-hidden": "true" });
  const dot = drawn("circle", { r: 2.6 });
  svg.append(drawn("polyline", { points: points.map((p) => at(p).join()).join(" ") }), dot);
  const value = element("dd");
  list.append(element("div", {}, element("dt", { textContent: title }), value, svg));
  const fraction = key === "accuracy" || key === "miou";
  return (n) => {
    const point = points.find((p) => p[0] === n);
    value.textContent = point ? (fraction ? percent(point[1]) : point[1].toFixed(2)) : "not measured";
    dot.style.display = point ? "" : "none";
    if (point) ["cx", "cy"].forEach((name, i) => dot.setAttribute(name, at(point)[i]));
  };
}

function start(panel, tree) {
  const find = (name) => panel.querySelector(`[data-part=${name}]`);
  const [slider, number, canvas, rows, select] = ["slider", "number", "map", "areas", "scene"].map(find);
  const colourTree = find("tree") ? growTree(find("tree"), tree) : null;
  const lines = find("lines") ? JSON.parse(panel.dataset.lines).map(([key, title]) => growLine(find("lines"), tree, key, title)) : [];
  let scene = null;
  let only = null;

  const paintMap = (classes) => {
    if (scene) paint(canvas, scene, classes, tree.colours, only);
  };

  const show = () => {
    const n = Number(slider.value);
    const classes = classesOf(tree, n);
    const names = namesOf(tree, classes);
    if (!names.has(only)) only = null;
    const everywhere = sharesOf(classes, tree.sizes);
    const here = scene ? sharesOf(classes, scene.sizes) : new Map();
    const largest = [...everywhere].sort((a, b) => b[1] - a[1] || a[0] - b[0]).map(([k]) => k);
    rows.replaceChildren(...largest.map((k) => {
      const swatch = element("span", { className: "swatch" });
      swatch.style.setProperty("--class", tree.colours[k]);
      const button = element("button", { type: "button", title: "Point out on the map" }, swatch, names.get(k));
      button.setAttribute("aria-pressed", String(only === k));
      button.addEventListener("click", () => {
        only = only === k ? null : k;
        for (const other of rows.querySelectorAll("button")) other.setAttribute("aria-pressed", "false");
        button.setAttribute("aria-pressed", String(only === k));
        paintMap(classes);
      });
      const shares = [everywhere.get(k), here.get(k) ?? 0].map((share) => element("td", { className: "n", textContent: percent(share) }));
      return element("tr", {}, element("th", { scope: "row", className: "pick" }, button), ...shares);
    }));
    number.textContent = n;
    slider.setAttribute("aria-valuetext", `${n} classes`);
    for (const place of panel.querySelectorAll("[data-n]")) place.textContent = n;
    canvas.setAttribute("aria-label", `Map in ${n} classes; the largest is ${names.get(largest[0])}, ${percent(everywhere.get(largest[0]))} of the fitted scenes`);
    find("back").disabled = n === tree.chosen;
    colourTree?.(classes, tree.colours);
    for (const mark of lines) mark(n);
    paintMap(classes);
  };

  const choose = async () => {
    const { id, src, picture, alt } = (select?.selectedOptions[0] ?? panel).dataset;
    if (picture) Object.assign(find("picture"), { src: picture, alt });
    try {
      scene = await sceneCodes(id, src, tree.sizes.length);
      show();
    } catch (error) {
      find("trouble").textContent = `No small map: ${error.message}.`;
    }
  };

  slider.addEventListener("input", show);
  select?.addEventListener("change", choose);
  for (const button of panel.querySelectorAll("[data-step]")) {
    button.addEventListener("click", () => {
      slider.value = Number(slider.value) + Number(button.dataset.step);
      show();
    });
  }
  find("back").addEventListener("click", () => {
    slider.value = tree.chosen;
    show();
  });
  panel.hidden = false;
  show();
  choose();
}

for (const panel of document.querySelectorAll(".choice")) start(panel, globalThis.sassChoice.tree);
