// Draws the page's charts: unpacks library and data, offers what a reader may choose, and redraws when that changes.
(async () => {
  const unpack = (id) => {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  const library = document.createElement("script");
  library.textContent = await unpack("chart-library");
  document.head.append(library);
  const charts = JSON.parse(await unpack("chart-data"));
  const HOUR = 3600e3, DAY = 24 * HOUR;

  const rowsOf = (columns) => {
    const names = Object.keys(columns);
    let time = 0;
    return (columns[names[0]] ?? []).map((_, i) => {
      const row = Object.fromEntries(names.map((name) => [name, columns[name][i]]));
      if ("time" in row) row.time = time += row.time;
      return row;
    });
  };

  // Newest hours, each day, all: label -> [from, to].
  const windows = (rows, hours) => {
    const times = rows.map((row) => row.time), last = times.reduce((a, b) => Math.max(a, b));
    const found = [[`last ${hours} hours`, last - hours * HOUR + 1, last]];
    for (const day of new Set(times.map((t) => Math.floor(t / DAY) * DAY)))
      found.push([new Date(day).toISOString().slice(0, 10), day, day + DAY - 1]);
    return [...found.sort((a, b) => b[1] - a[1] || a[2] - b[2]), ["all", -Infinity, Infinity]];
  };

  const select = (parent, label, options, value, changed) => {
    const box = document.createElement("select"), name = document.createElement("label");
    options.forEach((option) => box.add(new Option(option, option, false, option === value)));
    box.addEventListener("change", () => changed(options[box.selectedIndex]));
    name.append(label, box);
    parent.append(name);
  };

  const widened = (spec, width) => {
    const inner = { ...spec };
    if (spec.vconcat) inner.vconcat = spec.vconcat.map((view) => ({ ...view, width: width - 90 }));
    else if (spec.facet) inner.spec = { ...spec.spec, width: width - 90 };
    else Object.assign(inner, { width, autosize: { type: "fit-x", contains: "padding" } });
    return inner;
  };

  const show = (figure, chart) => {
    const box = figure.querySelector(".chart"), controls = figure.querySelector(".choices");
    const rows = rowsOf(chart.columns), picked = {};
    let width = 0, view = null, time = null;
    const draw = async () => {
      const spec = widened(chart.spec, width);
      spec.config = { ...spec.config, legend: { ...spec.config.legend, columns: width < 600 ? 1 : 4 } };
      if (rows.length) {
        const params = chart.params.find((p) => Object.keys(picked).every((c) => p[c] === picked[c])) ?? {};
        spec.params = Object.entries(params).filter(([name]) => !(name in picked)).map(([name, value]) => ({ name, value }));
        spec.data = { values: rows.filter((row) => Object.keys(picked).every((c) => row[c] === picked[c]) && (!time || (row.time >= time[1] && row.time <= time[2]))) };
      }
      view?.finalize();
      view = await vegaEmbed(box, spec, { renderer: "svg", actions: false, ast: true });
      box.firstElementChild.setAttribute("aria-hidden", "true"); // the label of the box describes it
    };
    for (const { column, label, value, options } of chart.choices) {
      picked[column] = value;
      select(controls, label, options, value, (option) => { picked[column] = option; draw(); });
    }
    if (chart.hours && rows.length) {
      const all = windows(rows, chart.hours);
      time = all.find(([label]) => label.startsWith("last"));
      select(controls, "Time", all.map(([label]) => label), time[0], (option) => { time = all.find(([label]) => label === option); draw(); });
    }
    new ResizeObserver(([entry]) => {
      const now = Math.floor(entry.contentRect.width);
      if (now && now !== width) { width = now; draw(); }
    }).observe(box);
  };

  document.querySelectorAll("figure[data-chart]").forEach((figure) => show(figure, charts[figure.dataset.chart]));
  const marked = () => document.querySelectorAll(".scroll").forEach((box) => box.classList.toggle("wide", box.scrollWidth > box.clientWidth + 1));
  addEventListener("resize", marked);
  marked();
})();
