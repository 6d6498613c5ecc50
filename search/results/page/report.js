"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const tokens = getComputedStyle(document.documentElement);
  const token = (name) => tokens.getPropertyValue(name).trim();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const written = byId("plots").textContent;
  const places = [...document.querySelectorAll(".plot")];
  let isPrinted = false;

  // ---- plots ----
  // The colour of letters is not known when the page is written: a colour that nothing else has
  // stands for it.
  const figures = () => JSON.parse(written.replaceAll("#010203", token("--ink")));

  function axis(given, isNarrow, isAlone) {
    return {
      ...given, automargin: isAlone, gridcolor: token("--grid"), linecolor: token("--line"),
      zerolinecolor: token("--line"), tickfont: { size: isNarrow ? 10 : 12 },
      title: { ...given.title, font: { size: isNarrow ? 11 : 13 } },
    };
  }

  function dressed(place, layout) {
    const isNarrow = place.clientWidth < 500 && !isPrinted;
    const found = {
      ...layout, height: Number(place.dataset.height), autosize: true,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: false,
      margin: { l: isNarrow ? 44 : 60, r: isNarrow ? 12 : 24, t: 24, b: 44 },
      font: { color: token("--ink"), family: "system-ui, sans-serif", size: 12 },
      hovermode: "closest",
      hoverlabel: { bgcolor: token("--panel"), bordercolor: token("--line"),
        font: { color: token("--ink") }, namelength: 40, align: "left" },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 11 },
        bgcolor: "rgba(0,0,0,0)" },
    };
    if (isNarrow) Object.assign(found.legend, { font: { size: 9 }, entrywidth: 84 });
    if (isPrinted) found.height = Math.min(found.height, Math.max(300, 0.8 * found.height));
    if (isPrinted) found.width = place.dataset.wide ? 700 : 600;
    for (const name of Object.keys(layout).concat("xaxis", "yaxis"))
      if (/^[xy]axis\d*$/.test(name))
        found[name] = axis(layout[name] || {}, isNarrow, !layout.xaxis2);
    found.annotations = (layout.annotations || []).map((one) =>
      ({ ...one, bgcolor: token("--veil"), borderpad: 0,
        font: { ...one.font, color: token("--ink") } }));
    // Many axes on a page's width: their names lean, and what is at them is smaller.
    if (isPrinted && place.dataset.plot === "parallel") {
      Object.assign(found.xaxis, { tickangle: -30, tickfont: { size: 9 } });
      found.margin = { ...found.margin, t: 70, r: 60 };
      for (const one of found.annotations) one.font.size = 7;
    }
    return found;
  }

  function draw(place, figure) {
    const config = { responsive: true, displaylogo: false,
      displayModeBar: place.clientWidth < 500 ? false : "hover",
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
    return Plotly.react(place, figure.data, dressed(place, figure.layout || {}), config);
  }

  function drawAll() {
    const found = figures();
    for (const place of places) draw(place, found[place.dataset.plot]);
  }

  // One after the other, so that the words can be read meanwhile.
  function drawFirst(found, left) {
    if (!left.length) { document.documentElement.dataset.drawn = "yes"; return; }
    const place = left[0];
    draw(place, found[place.dataset.plot]);
    place.on("plotly_click", (event) => {
      const number = event.points[0].customdata;
      if (Number.isInteger(number)) show(number);
    });
    setTimeout(() => drawFirst(found, left.slice(1)));
  }

  dark.addEventListener("change", drawAll);
  addEventListener("beforeprint", () => { isPrinted = true; drawAll(); });
  addEventListener("afterprint", () => { isPrinted = false; drawAll(); });

  // ---- leaderboard ----
  const board = byId("board");
  const body = board.tBodies[0];
  const rows = [...body.rows];
  const details = JSON.parse(byId("details").textContent);
  const heads = [...board.tHead.rows[0].cells];
  const wanted = byId("wanted");
  const state = byId("state");
  const unfolded = new Map();

  function made(tag, text, attributes = {}) {
    const found = document.createElement(tag);
    if (text !== undefined) found.textContent = text;
    for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value);
    return found;
  }

  function shape(tag, attributes, text) {
    const found = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value);
    if (text !== undefined) found.textContent = text;
    return found;
  }

  function curve(trial) {
    const width = 340, height = 150, left = 40, right = 8, top = 8, bottom = 20;
    const all = trial.curves.flat().concat(details.baseline ?? []);
    const low = Math.min(...all), high = Math.max(...all), span = high - low || 1;
    const last = Math.max(2, details.epochs);
    const x = (epoch) => left + (width - left - right) * (epoch - 1) / (last - 1);
    const y = (score) => top + (height - top - bottom) * (high - score) / span;
    const found = shape("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
      "aria-label": "learning curve" });
    const grey = { stroke: token("--soft"), "stroke-width": 1 };
    for (const rung of details.rungs)
      found.append(shape("line", { x1: x(rung), x2: x(rung), y1: top, y2: height - bottom, ...grey,
        "stroke-dasharray": "1 4" }));
    if (details.baseline !== null)
      found.append(shape("line", { x1: left, x2: width - right, y1: y(details.baseline),
        y2: y(details.baseline), ...grey, "stroke-dasharray": "5 4" }));
    for (const scores of trial.curves)
      found.append(shape("polyline", { fill: "none", stroke: trial.colour, "stroke-width": 2,
        points: scores.map((score, place) => `${x(place + 1)},${y(score)}`).join(" ") }));
    const first = trial.curves[0] || [];
    if (trial.best && trial.curves.length === 1)
      found.append(shape("circle", { cx: x(trial.best), cy: y(first[trial.best - 1]), r: 4,
        fill: trial.colour }));
    const letters = { fill: token("--soft"), "font-size": 11 };
    found.append(shape("text", { x: 2, y: top + 8, ...letters }, high.toFixed(3)));
    found.append(shape("text", { x: 2, y: height - bottom, ...letters }, low.toFixed(3)));
    found.append(shape("text", { x: width - right, y: height - 4, "text-anchor": "end", ...letters },
      `epoch ${last}`));
    return found;
  }

  function account(number) {
    const trial = details.trials[number];
    const found = made("div", undefined, { class: "trial" });
    const about = made("div");
    about.append(made("b", `Trial ${number}`));
    const list = made("ul");
    for (const reason of trial.reasons) list.append(made("li", reason));
    about.append(list);
    if (trial.curves.length) about.append(curve(trial));
    const settings = made("dl");
    trial.settings.forEach((value, place) => {
      if (value === null) return;
      const pair = made("div");
      pair.append(made("dt", details.names[place]), made("dd", value));
      settings.append(pair);
    });
    found.append(about, settings);
    return found;
  }

  function unfold(row, isWanted = !unfolded.has(row)) {
    const button = row.querySelector("button");
    button.setAttribute("aria-expanded", isWanted);
    button.textContent = isWanted ? "\u25be" : "\u25b8";
    if (!isWanted) {
      unfolded.get(row)?.remove();
      unfolded.delete(row);
    } else if (!unfolded.has(row)) {
      const below = made("tr", undefined, { class: "unfolded" });
      const cell = made("td", undefined, { colspan: heads.length });
      cell.append(account(row.dataset.trial));
      below.append(cell);
      row.after(below);
      unfolded.set(row, below);
    }
  }

  function show(number) {
    const row = rows.find((one) => Number(one.dataset.trial) === number);
    if (!row) return;
    row.hidden = false;
    unfold(row, true);
    row.scrollIntoView({ block: "center" });
  }

  function sort(place) {
    const head = heads[place];
    const isNumber = head.classList.contains("number");
    // What is large is what one looks for, except for ranks, numbers and names.
    const first = isNumber && !["rank", "trial"].includes(head.innerText.trim()) ?
      "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    for (const one of heads) one.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const key = (row) => {
      const text = row.cells[place].dataset.value ?? row.cells[place].textContent.trim();
      return isNumber ? parseFloat(text) : text;
    };
    const isMissing = (value) => value === "" || Number.isNaN(value);
    const keyed = rows.map((row, at) => ({ row, at, value: key(row) }));
    keyed.sort((a, b) => {
      if (isMissing(a.value) || isMissing(b.value))
        return isMissing(a.value) - isMissing(b.value) || a.at - b.at;
      const found = isNumber ? a.value - b.value : a.value.localeCompare(b.value);
      return sign * found || a.at - b.at;
    });
    for (const { row } of keyed) {
      body.append(row);
      if (unfolded.has(row)) body.append(unfolded.get(row));
    }
  }

  function filter() {
    const words = wanted.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !(words.every((word) => text.includes(word)) &&
        (!state.value || row.classList.contains(state.value)));
      if (row.hidden && unfolded.has(row)) unfold(row, false);
      shown += !row.hidden;
    }
    byId("shown").textContent = `${shown} of ${rows.length} trials`;
  }

  heads.forEach((head, place) => {
    const button = made("button", head.textContent, { type: "button" });
    button.addEventListener("click", () => sort(place));
    head.replaceChildren(button);
  });
  for (const row of rows) {
    const button = made("button", "\u25b8", { type: "button", "aria-expanded": "false",
      "aria-label": `trial ${row.dataset.trial}` });
    row.cells[0].dataset.value = row.cells[0].textContent;
    row.cells[0].prepend(button);
    row.addEventListener("click", () => { if (!String(getSelection())) unfold(row); });
  }
  wanted.addEventListener("input", filter);
  state.addEventListener("change", filter);
  filter();
  drawFirst(figures(), places);
})();
