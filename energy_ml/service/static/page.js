"use strict";
// One page, no build step, nothing from elsewhere. All text reaches the page as text, never as markup.
const API = "/api/v1", SHOWN_MINUTES = 180, MOST_BATTERIES = 20, MOST_REGIONS = 16, POLL_MS = 5000, SVG = "http://www.w3.org/2000/svg";
const state = { region: null, prices: null, forecasts: [], batteries: [], reference: null, battery: "", charge: 0.5, plan: null, results: { reports: [], earned: [] }, runs: new Map(), socket: null, read: {} };
const $ = (id) => document.getElementById(id);
const number = (v, digits = 2) => (v === null || v === undefined || Number.isNaN(v) ? "–" : v.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
// Swedish dates are ISO dates.
const local = (t) => new Date(t).toLocaleString("sv", { timeZone: state.prices?.zone ?? "UTC" });
const clock = (t) => local(t).slice(11, 16);
const day = (t) => local(t).slice(0, 10);

function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) name in made ? (made[name] = value) : made.setAttribute(name, value);
  made.append(...children);
  return made;
}
function draw(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
function filled(share) {
  const bar = make("i");
  bar.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return bar;
}

// Make `place` hold `wanted`, changing nodes instead of replacing them: focus, selection and sliders in hand stay.
function show(place, ...wanted) {
  wanted.forEach((want, at) => {
    const have = place.childNodes[at];
    if (!have) place.append(want);
    else if (have.nodeName !== want.nodeName || have.type !== want.type) have.replaceWith(want);
    else if (have.nodeType === Node.TEXT_NODE) { if (have.data !== want.data) have.data = want.data; }
    else become(have, want);
  });
  while (place.childNodes.length > wanted.length) place.lastChild.remove();
}
function become(have, want) {
  for (const { name, value } of [...want.attributes]) if (name !== "style" && have.getAttribute(name) !== value) have.setAttribute(name, value);
  for (const { name } of [...have.attributes]) if (name !== "style" && !want.hasAttribute(name)) have.removeAttribute(name);
  if (have.style.cssText !== want.style.cssText) have.style.cssText = want.style.cssText;
  for (const name of ["onclick", "oninput"]) have[name] = want[name];
  if (have.nodeName === "OPTION") have.selected = want.selected;
  if (have.nodeName === "INPUT" && have !== document.activeElement) have.value = want.value;
  show(have, ...want.childNodes);
}

// --- speaking with the service ---------------------------------------------------------------------------------------
const token = () => sessionStorage.getItem("token");
async function ask(path, body, headers = {}, heard = () => {}) {
  if (token()) headers.Authorization = `Bearer ${token()}`;
  if (body) headers["Content-Type"] = "application/json";
  const answer = await fetch(API + path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
  const found = await answer.json();
  if (answer.status === 401) login(Boolean(headers.Authorization));
  if (!answer.ok) throw Object.assign(new Error([found.detail, found.remedy].filter(Boolean).join(" ")), { status: answer.status });
  heard(answer.status);
  return found;
}
// A link carries no header: for reports the token goes along as a cookie, which is sent nowhere else.
function keepToken() {
  const encoded = token() && btoa(token()).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  if (encoded) document.cookie = `energy_ml_token=${encoded}; path=/reports/; SameSite=Strict`;
  return encoded;
}
function login(wrong) {
  $("login").hidden = false;
  $("login").querySelector("label").textContent = wrong ? "This token isn’t right." : "This service asks for its token.";
  $("main").hidden = true;
  $("link").className = "pill off"; $("link").textContent = "needs a token";
  $("token").focus();
}
function notice(error) {
  $("notice").hidden = !error || error.status === 401;
  $("notice").textContent = error ? error.message : "";
}
function told(text) {
  $("told").hidden = !text;
  $("told").textContent = text;
}

// --- charts ----------------------------------------------------------------------------------------------------------
function niceStep(span) {
  const raw = span / 5, power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 5, 10].map((f) => f * power).find((s) => s >= raw);
}
// One time axis, and an axis of values for part of the height. Points are what pointer and arrow keys read.
function frame(id, label, height, first, last) {
  const width = Math.max(300, Math.min(900, $(id).clientWidth)), left = 52, right = 14, bottom = 26;
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const x = (t) => left + (width - left - right) * (t - first) / Math.max(last - first, 1);
  const hour = 3600e3, gap = Math.max(0.5, 2 ** Math.ceil(Math.log2((last - first) / hour / (width > 600 ? 8 : 4)))) * hour;
  for (let t = Math.ceil(first / gap) * gap; t <= last; t += gap) {
    svg.append(draw("line", { x1: x(t), x2: x(t), y1: 10, y2: height - bottom, class: "grid" }));
    if (x(t) < width - 20) svg.append(draw("text", { x: x(t), y: height - 6, "text-anchor": "middle" }, clock(t)));
  }
  return { id, svg, x, left, width, height, right, bottom, first, last };
}
function values(chart, low, high, top, bottom) {
  const step = niceStep(Math.max(high - low, 1e-6) * (bottom - top < 120 ? 2.5 : 1));
  low = Math.floor(low / step + 1e-9) * step; high = Math.ceil(high / step - 1e-9) * step;
  const y = (v) => top + (bottom - top) * (high - v) / Math.max(high - low, 1e-9);
  for (let v = low; v <= high + step / 2; v += step) {
    chart.svg.append(draw("line", { x1: chart.left, x2: chart.width - chart.right, y1: y(v), y2: y(v), class: Math.abs(v) < step / 1e6 ? "zero" : "grid" }));
    chart.svg.append(draw("text", { x: chart.left - 8, y: y(v) + 4, "text-anchor": "end" }, number(v, step < 0.1 ? 2 : step < 1 ? 1 : 0)));
  }
  return y;
}
function reads(chart, points) {
  const { id, svg, x } = chart, cursor = draw("line", { y1: 10, y2: chart.height - chart.bottom, class: "cursor", visibility: "hidden" });
  svg.append(cursor);
  show($(id), svg);
  const point = (at) => {
    state.read[id] = at === null ? null : Math.max(0, Math.min(points.length - 1, at));
    const found = points[state.read[id]], line = $(id).querySelector(".cursor");
    line.setAttribute("visibility", found ? "visible" : "hidden");
    if (found) { line.setAttribute("x1", x(found.t)); line.setAttribute("x2", x(found.t)); }
    const text = found ? found.text : "Point at the chart, or use the arrow keys in it, to read values.";
    if ($(`read-${id}`).textContent !== text) $(`read-${id}`).textContent = text;
  };
  $(id).onpointermove = (event) => {
    const box = $(id).getBoundingClientRect(), t = chart.first + (chart.last - chart.first) * ((event.clientX - box.left) * chart.width / box.width - chart.left) / (chart.width - chart.left - chart.right);
    point(points.reduce((best, p, i) => (Math.abs(p.t - t) < Math.abs(points[best].t - t) ? i : best), 0));
  };
  $(id).onpointerleave = () => point(null);
  $(id).onkeydown = (event) => {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (way) { event.preventDefault(); point((state.read[id] ?? (way > 0 ? -1 : points.length)) + way); }
  };
  point(state.read[id] ?? null);
}

// --- prices and forecasts --------------------------------------------------------------------------------------------
function chart() {
  const { prices, forecasts } = state, height = 330, unit = prices.unit;
  const ahead = forecasts.map((f) => ({ ...f, t: Date.parse(f.target_time) }));
  const all = prices.timestamps.map((t, i) => ({ t: Date.parse(t), v: prices.regions[state.region][i] }));
  const now = all[all.length - 1].t, past = all.filter((p) => p.t >= now - SHOWN_MINUTES * 60e3);
  const known = past.filter((p) => p.v !== null), shown = frame("chart", `Price of ${state.region} and forecasts`, height, past[0].t, Math.max(now, ...ahead.map((f) => f.t)));
  const { svg, x } = shown, y = values(shown, Math.min(...known.map((p) => p.v), ...ahead.map((f) => f.lower)), Math.max(...known.map((p) => p.v), ...ahead.map((f) => f.upper)), 10, height - shown.bottom);
  svg.append(draw("line", { x1: x(now), x2: x(now), y1: 10, y2: height - shown.bottom, class: "now" }));
  svg.append(draw("text", { x: x(now) - 5, y: 20, "text-anchor": "end" }, "now"));
  let path = "", open = false;
  for (const p of past) if (p.v === null) open = false; else { path += `${open ? "L" : "M"}${x(p.t).toFixed(1)} ${y(p.v).toFixed(1)}`; open = true; }
  if (ahead.length) {
    const start = `${x(now)} ${y(ahead[0].price_now)}`;
    const upper = ahead.map((f) => `${x(f.t)} ${y(f.upper)}`), lower = ahead.map((f) => `${x(f.t)} ${y(f.lower)}`).reverse();
    svg.append(draw("path", { d: `M${start}L${upper.join("L")}L${lower.join("L")}Z`, class: "band" }));
    svg.append(draw("path", { d: `M${start}L${ahead.map((f) => `${x(f.t)} ${y(f.price)}`).join("L")}`, class: "ahead" }));
  }
  svg.append(draw("path", { d: path, class: "past" }));
  for (const f of ahead) svg.append(draw("line", { x1: x(f.t), x2: x(f.t), y1: y(f.lower), y2: y(f.upper), class: "whisker" }), draw("circle", { cx: x(f.t), cy: y(f.price), r: 5, class: "dot" }));
  if (ahead.length) $("level").textContent = `${Math.round(ahead[0].level * 100)} % interval`;
  reads(shown, [
    ...known.map((p) => ({ t: p.t, text: `${clock(p.t)}: ${number(p.v)} ${unit}, measured` })),
    ...ahead.map((f) => ({ t: f.t, text: `${clock(f.t)}, +${f.horizon} min: ${number(f.price)} ${unit} forecast, ${number(f.lower)} to ${number(f.upper)}` })),
  ]);
}
function cards() {
  const first = state.forecasts[0];
  show($("forecasts"),
    make("div", { className: "card" }, make("span", {}, `now${first ? `, ${clock(first.timestamp)}` : ""}`), make("b", {}, number(first?.price_now)), make("span", {}, "newest price")),
    ...state.forecasts.map((f) => {
      const change = f.price - f.price_now;
      return make("div", { className: "card", title: `${f.model_id} ${f.version}` },
        make("span", {}, `+${f.horizon} min, ${clock(f.target_time)}`), make("b", {}, number(f.price)),
        make("span", {}, Math.abs(change) < 0.005 ? "no change" : `${change > 0 ? "▲ +" : "▼ "}${number(change)}`),
        make("span", { title: `${Math.round(f.level * 100)} % interval` }, `${number(f.lower, 1)} to ${number(f.upper, 1)}`));
    }));
}
function choose(region, battery = "") {
  Object.assign(state, { region, battery, read: {} });
  refresh();
}
// A few regions are buttons; of many one is typed and found.
function regions(names) {
  if (names.length <= MOST_REGIONS) return names.map((name) => make("button", { type: "button", "aria-pressed": String(name === state.region), onclick: () => choose(name) }, name));
  const field = make("input", { type: "search", value: state.region, "aria-label": `One of ${names.length} regions`, oninput: ({ target }) => names.includes(target.value) && choose(target.value) });
  field.setAttribute("list", "every");
  return [field, make("datalist", { id: "every" }, ...names.map((name) => make("option", { value: name })))];
}
function header(prices) {
  show($("regions"), ...regions(Object.keys(prices.regions)));
  const newest = prices.timestamps[prices.timestamps.length - 1], age = prices.data_age_minutes;
  const old = age < 120 ? `${Math.round(age)} min old` : age < 2880 ? `${Math.round(age / 60)} h old` : `${Math.round(age / 1440)} days old`;
  show($("asof"), new Text(`prices up to ${day(newest)} ${clock(newest)} ${prices.zone} `), make("span", { className: prices.stale ? "pill stale" : "pill on" }, prices.stale ? `stale: ${old}` : old));
}

// --- battery ---------------------------------------------------------------------------------------------------------
const money = (v) => `${number(v)} ${state.prices.unit.replace("/MWh", "")}`;
const doing = (step) => (step.action === "hold" ? "Hold" : `${step.action === "charge" ? "Charge" : "Discharge"} ${number(Math.abs(step.power_mw))} MW`);
async function battery() {
  const mine = state.batteries.filter((b) => b.region === state.region);
  const own = mine.find((b) => b.battery_id === state.battery) ?? (state.battery === "" ? mine[0] : undefined), shown = own ?? state.reference;
  const size = (b) => `${number(b.capacity_mwh, 1)} MWh, ${number(b.rated_power_mw, 1)} MW`;
  show($("which"), ...mine.map((b) => make("option", { value: b.battery_id, selected: b === own }, `${b.battery_id}, ${size(b)}`)), make("option", { value: "-", selected: !own }, state.reference ? `reference, ${size(state.reference)}` : "reference"));
  if (!shown) throw new Error("No battery policy serves yet: train one.");
  const capacity = shown.capacity_mwh, tells = own && own.charge_level_mwh !== null;
  const asked = { region: state.region, ...(own && { battery: own.battery_id }), ...(!tells && { charge_level_mwh: state.charge * capacity }) };
  const [found, plan] = await Promise.all([ask("/models/act", asked), ask("/models/plan", asked)]);
  const gauge = make("div", { className: "gauge", title: "charge and its allowed bounds" }, filled(found.charge_level_mwh / capacity));
  for (const bound of found.bounds_mwh) { const mark = make("u"); mark.style.left = `${(bound / capacity) * 100}%`; gauge.append(mark); }
  const q = Object.entries(found.q_values), best = Math.max(...q.map(([, v]) => v)), worst = Math.min(...q.map(([, v]) => v));
  show($("action"),
    make("p", { className: `verdict ${found.action}` }, doing(found)),
    make("p", { className: "why" }, found.why), gauge,
    make("div", { className: "row" }, make("span", {}, `${number(found.charge_level_mwh)} of ${number(capacity)} MWh`), make("span", {}, `allowed ${number(found.bounds_mwh[0])} to ${number(found.bounds_mwh[1])}`)),
    tells ? make("div", { className: "row" }, make("span", {}, `telemetry of ${day(own.timestamp)} ${clock(own.timestamp)} ${state.prices.zone}`))
      : make("input", { type: "range", min: 0, max: 1, step: 0.01, value: state.charge, "aria-label": "Charge, part of the capacity", oninput: (e) => { state.charge = Number(e.target.value); battery().catch(notice); } }),
    make("div", { className: "q" }, ...q.flatMap(([name, v]) => [make("span", {}, name), make("div", {}, filled(best > worst ? 0.04 + 0.96 * (v - worst) / (best - worst) : 1)), make("span", {}, number(v - best, 3))])),
    make("div", { className: "row" }, make("span", {}, `value of each action below the best one, ${state.prices.unit.replace("/MWh", "")}`), make("span", {}, found.version)));
  state.plan = plan;
  next(plan);
  $("earned").textContent = earned(state.region, own?.battery_id ?? "reference");
}
// Cash of the backtests: of the newest day judged, and of the seven days up to it.
function days(region, battery_id) {
  const mine = state.results.earned.filter((e) => e.region === region && e.battery_id === battery_id).sort((a, b) => (a.day < b.day ? -1 : 1));
  return { last: mine[mine.length - 1], week: mine.reduce((sum, e) => sum + e.cash, 0), count: mine.length };
}
function earned(region, battery_id) {
  const { last, week, count } = days(region, battery_id);
  return last ? `In backtests it earned ${money(last.cash)} on ${last.day}, ${money(week)} in the seven days up to then (${count} judged).` : "No backtest of this battery yet.";
}
function next(plan) {
  const steps = plan.steps.map((s) => ({ ...s, t: Date.parse(s.timestamp), end: Date.parse(s.timestamp) + s.minutes * 60e3 })), height = 350, split = 190, unit = state.prices.unit;
  const shown = frame("plan", `Plan for the coming day of ${plan.battery ?? "the reference battery"}`, height, steps[0].t, steps[steps.length - 1].end), { svg, x } = shown;
  const prices = steps.map((s) => s.price), y = values(shown, Math.min(...prices), Math.max(...prices), 26, split), level = values(shown, 0, plan.capacity_mwh, split + 46, height - shown.bottom);
  svg.append(draw("text", { x: shown.left, y: 14 }, unit), draw("text", { x: shown.left, y: split + 36 }, "MWh in the cells"));
  for (const s of steps) if (s.action !== "hold") svg.append(draw("rect", { x: x(s.t), width: Math.max(1, x(s.end) - x(s.t) - 0.5), y: split + 9, height: 8, class: s.action === "charge" ? "buys" : "sells" }), draw("rect", { x: x(s.t), width: Math.max(1, x(s.end) - x(s.t) - 0.5), y: y(s.price) - 2.5, height: 5, class: s.action === "charge" ? "buys" : "sells" }));
  svg.append(draw("path", { d: steps.map((s, i) => `${i ? "L" : "M"}${x(s.t).toFixed(1)} ${y(s.price).toFixed(1)}L${x(s.end).toFixed(1)} ${y(s.price).toFixed(1)}`).join(""), class: "past" }));
  svg.append(draw("path", { d: `M${x(steps[0].t)} ${level(0)}L${x(steps[0].t)} ${level(plan.charge_level_mwh)}${steps.map((s) => `L${x(s.end).toFixed(1)} ${level(s.charge_after_mwh).toFixed(1)}`).join("")}L${x(shown.last)} ${level(0)}Z`, class: "filled" }));
  for (const bound of plan.bounds_mwh) svg.append(draw("line", { x1: shown.left, x2: shown.width - shown.right, y1: level(bound), y2: level(bound), class: "bound" }));
  $("planned").textContent = `${money(plan.cash)} in 24 hours, if prices come as expected`;
  reads(shown, steps.map((s) => ({ t: (s.t + s.end) / 2, text: `${clock(s.t)} to ${clock(s.end)}: ${doing(s)} at ${number(s.price)} ${unit}, then ${number(s.charge_after_mwh)} MWh, ${money(s.cash)}` })));
}
async function fleet() {
  state.results = await ask("/results");
  const { reports, dagster_url } = state.results;
  state.dagster = dagster_url;
  if (reports.length) show($("reports"), ...reports.slice(-7).reverse().map((name) => make("a", { href: `/reports/${name}`, target: "_blank", rel: "noopener" }, name)));
  const listed = state.batteries.filter((b) => b.region).slice(0, MOST_BATTERIES);
  const rows = await Promise.all(listed.map(async (b) => {
    const known = b.charge_level_mwh !== null, plan = known ? await ask("/models/plan", { battery: b.battery_id, region: b.region }).catch(() => null) : null, { last, week } = days(b.region, b.battery_id);
    return make("tr", {}, make("td", {}, make("button", { type: "button", className: "plain", onclick: () => choose(b.region, b.battery_id) }, b.battery_id)), make("td", {}, b.region),
      make("td", {}, `${known ? number(b.charge_level_mwh) : "–"} of ${number(b.capacity_mwh)} MWh`),
      make("td", { className: plan?.steps[0].action ?? "" }, plan ? doing(plan.steps[0]) : "–"), make("td", {}, number(plan?.cash)), make("td", { title: last?.day ?? "" }, number(last?.cash)), make("td", {}, last ? number(week) : "–"));
  }));
  $("fleet").hidden = rows.length < 2;
  $("fleet-units").textContent = `${state.prices.unit.replace("/MWh", "")}; past days are backtests`;
  show($("fleet").querySelector("tbody"), ...rows);
}

// --- champions -------------------------------------------------------------------------------------------------------
async function models() {
  const listed = (await ask("/models")).models;
  const horizon = (m) => Number(/_(\d+)m$/.exec(m.model_id)?.[1] ?? 1e9);
  listed.sort((a, b) => horizon(a) - horizon(b));
  const rows = await Promise.all(listed.map(async (m) => {
    const metrics = m.champion ? (await ask(`/models/${m.model_id}/metrics`)).metrics : {}, test = metrics.test ?? {};
    const figures = test.mae === undefined
      ? [make("td", { colSpan: 4 }, metrics.validation_profit === undefined ? "–" : `validation profit ${number(metrics.validation_profit, 0)}`)]
      : [make("td", {}, number(test.mae)), make("td", {}, number(test.persistence_mae)), make("td", {}, number(test.rmae, 3)), make("td", {}, test.coverage === undefined ? "–" : `${number(test.coverage * 100, 1)} %`)];
    const status = m.problem ? make("span", { className: "pill stale", title: m.problem }, m.serving ? "keeps the old one" : "broken") : m.serving ? make("span", { className: "pill on" }, "serving") : make("span", { className: "pill off" }, "not loaded");
    return make("tr", {}, make("td", {}, m.model_id), make("td", {}, m.serving ?? m.champion ?? "–"), make("td", {}, m.as_of ?? "–"), ...figures, make("td", {}, status));
  }));
  show($("models").querySelector("tbody"), ...rows);
}

// --- trainings -------------------------------------------------------------------------------------------------------
function runs() {
  const shown = [...state.runs.values()].slice(-3).reverse();
  if (!shown.length) return show($("runs"), make("p", { className: "soft" }, "none running"));
  show($("runs"), ...shown.map((run) => make("div", { className: "run" },
    make("p", {}, make("span", {}, run.title ?? "run started elsewhere"), make("span", { className: run.state === "failed" ? "failed" : "soft", title: run.error ?? "" }, run.state ?? ([...run.models.values()].every((m) => m.kind === "completed") ? "completed" : "running"))),
    ...[...run.models].map(([id, m]) => make("div", { className: `bar ${m.kind}`, title: m.note }, make("span", {}, id), make("div", {}, filled(m.progress)), make("span", {}, m.kind === "failed" ? "✕" : `${Math.round(m.progress * 100)} %`))),
    ...(run.run_id && state.dagster ? [make("p", {}, make("a", { href: `${state.dagster}/runs/${run.run_id}`, target: "_blank", rel: "noopener" }, "the run in Dagster"))] : []),
    ...(run.error ? [make("p", { className: "soft" }, run.error)] : []),
    ...(run.id && run.state === "running" ? [make("button", { type: "button", onclick: () => cancel(run.id) }, "Cancel")] : []))));
}
async function cancel(id) {
  try { await ask(`/models/train/${id}/cancel`, {}); notice(null); } catch (error) { notice(error); }
}
function hear(event) {
  const run = state.runs.get(event.run_id) ?? { run_id: event.run_id, models: new Map() };
  state.runs.delete(event.run_id);
  state.runs.set(event.run_id, run);
  if (event.event === "training") {
    Object.assign(run, { id: event.training_id, title: `${event.type.replace("_", " ")}, as of ${event.as_of}`, state: event.state, error: event.error });
    if (event.state !== "running") { told(""); models().then(fleet).catch(notice); }
  } else {
    const note = Object.entries(event.metrics).map(([k, v]) => `${k} ${typeof v === "number" ? Number(v.toPrecision(4)) : v}`).join(", ");
    run.models.set(event.model_id, { progress: event.progress, kind: event.event.replace("model_training_", ""), note });
  }
  runs();
}
function connect() {
  const encoded = keepToken();
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${API}/ws`, encoded ? ["energy-ml", `bearer.${encoded}`] : ["energy-ml"]);
  state.socket = socket;
  socket.onopen = () => { state.runs.clear(); runs(); $("link").className = "pill on"; $("link").textContent = "live"; };
  socket.onmessage = (message) => hear(JSON.parse(message.data));
  socket.onclose = () => { if (state.socket !== socket || !$("login").hidden) return; $("link").className = "pill off"; $("link").textContent = "reconnecting"; setTimeout(connect, 2000); };
}

// --- putting it together ---------------------------------------------------------------------------------------------
async function refresh() {
  try {
    const prices = await ask(`/prices?minutes=${SHOWN_MINUTES}`);
    const names = Object.keys(prices.regions);
    if (!names.includes(state.region)) state.region = names.includes("FR") ? "FR" : names[0];
    state.prices = prices;
    $("units").textContent = `${prices.unit}, 90 % interval, times ${prices.zone}`;
    header(prices);
    let trouble = null;
    try { state.forecasts = (await ask("/models/predict", { regions: [state.region] })).forecasts.sort((a, b) => a.horizon - b.horizon); }
    catch (error) { state.forecasts = []; trouble = error; }
    chart(); cards();
    Object.assign(state, await ask("/batteries"));
    $("next").hidden = false;
    try { await battery(); } catch (error) { show($("action"), make("p", { className: "soft" }, error.message)); $("next").hidden = true; trouble ??= error; }
    notice(trouble);
  } catch (error) { notice(error); }
}
$("which").onchange = (event) => { state.battery = event.target.value; battery().catch(notice); };
$("login").onsubmit = (event) => {
  event.preventDefault();
  sessionStorage.setItem("token", $("token").value);
  $("login").hidden = true; $("main").hidden = false; $("token").value = "";
  state.socket?.close(); start();
};
$("train").onsubmit = async (event) => {
  event.preventDefault();
  try {
    const key = Array.from(crypto.getRandomValues(new Uint8Array(16)), (n) => n.toString(16)).join("");
    let status;
    const run = await ask("/models/train", { type: $("kind").value }, { "Idempotency-Key": key }, (code) => { status = code; });
    told(status === 200 ? `Already running: ${run.type.replace("_", " ")}, as of ${run.as_of}. Cancel it, or wait until it has ended.` : "");
    notice(null);
  } catch (error) { told(""); notice(error); }
};
async function start() {
  state.socket = null;
  runs();
  await refresh();
  if (!$("login").hidden) return;
  connect();
  models().then(fleet).then(battery).catch(notice);
}
start();
window.onresize = () => { if (state.prices) chart(); if (state.plan) next(state.plan); };
setInterval(() => $("login").hidden && refresh(), POLL_MS);
setInterval(() => $("login").hidden && models().then(fleet).catch(notice), 6 * POLL_MS);
