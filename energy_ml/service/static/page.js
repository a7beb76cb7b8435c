"use strict";
// One page, no build step, nothing from elsewhere. All text reaches the page as text, never as markup.
const API = "/api/v1", SHOWN_MINUTES = 360, POLL_MS = 5000, SVG = "http://www.w3.org/2000/svg";
const state = { region: null, prices: null, forecasts: [], batteries: [], battery: "", charge: 0.5, runs: new Map(), socket: null };
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

// --- speaking with the service ---------------------------------------------------------------------------------------
const token = () => sessionStorage.getItem("token");
async function ask(path, body, headers = {}) {
  if (token()) headers.Authorization = `Bearer ${token()}`;
  if (body) headers["Content-Type"] = "application/json";
  const answer = await fetch(API + path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
  const found = await answer.json();
  if (answer.status === 401) login(Boolean(headers.Authorization));
  if (!answer.ok) throw Object.assign(new Error([found.detail, found.remedy].filter(Boolean).join(" ")), { status: answer.status });
  return found;
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

// --- prices and forecasts --------------------------------------------------------------------------------------------
function niceStep(span) {
  const raw = span / 5, power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 5, 10].map((f) => f * power).find((s) => s >= raw);
}
function chart() {
  const { prices, forecasts } = state, width = Math.max(320, Math.min(900, $("chart").clientWidth)), height = 330, left = 52, right = 14, top = 10, bottom = 26;
  const times = prices.timestamps.map(Date.parse), values = prices.regions[state.region];
  const ahead = forecasts.map((f) => ({ ...f, t: Date.parse(f.target_time) }));
  const now = times[times.length - 1], first = times[0], last = Math.max(now, ...ahead.map((f) => f.t));
  // The hour ahead gets a third of the width: that is what one looks for.
  const share = ahead.length ? 0.34 : 0;
  const x = (t) => left + (width - left - right) * (t <= now ? (1 - share) * (t - first) / Math.max(now - first, 1) : 1 - share + share * (t - now) / Math.max(last - now, 1));
  const known = values.filter((v) => v !== null);
  let low = Math.min(...known, ...ahead.map((f) => f.lower)), high = Math.max(...known, ...ahead.map((f) => f.upper));
  const step = niceStep(Math.max(high - low, 1));
  low = Math.floor(low / step) * step; high = Math.ceil(high / step) * step;
  const y = (v) => top + (height - top - bottom) * (high - v) / (high - low);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Price of ${state.region} and forecasts` });
  for (let v = low; v <= high + step / 2; v += step) {
    svg.append(draw("line", { x1: left, x2: width - right, y1: y(v), y2: y(v), class: Math.abs(v) < 1e-9 ? "zero" : "grid" }));
    svg.append(draw("text", { x: left - 8, y: y(v) + 4, "text-anchor": "end" }, number(v, step < 1 ? 1 : 0)));
  }
  const hour = 3600e3, gap = Math.max(1, Math.ceil((now - first) / hour / (width > 600 ? 6 : 3))) * hour;
  for (let t = Math.ceil(first / gap) * gap; t < now - gap / 3; t += gap) svg.append(draw("text", { x: x(t), y: height - 6, "text-anchor": "middle" }, clock(t)));
  svg.append(draw("line", { x1: x(now), x2: x(now), y1: top, y2: height - bottom, class: "now" }));
  svg.append(draw("text", { x: x(now), y: height - 6, "text-anchor": "middle" }, clock(now)));
  let path = "", open = false;
  values.forEach((v, i) => { if (v === null) open = false; else { path += `${open ? "L" : "M"}${x(times[i]).toFixed(1)} ${y(v).toFixed(1)}`; open = true; } });
  if (ahead.length) {
    const start = `${x(now)} ${y(ahead[0].price_now)}`;
    const upper = ahead.map((f) => `${x(f.t)} ${y(f.upper)}`), lower = ahead.map((f) => `${x(f.t)} ${y(f.lower)}`).reverse();
    svg.append(draw("path", { d: `M${start}L${upper.join("L")}L${lower.join("L")}Z`, class: "band" }));
    svg.append(draw("path", { d: `M${start}L${ahead.map((f) => `${x(f.t)} ${y(f.price)}`).join("L")}`, class: "ahead" }));
  }
  svg.append(draw("path", { d: path, class: "past" }));
  let labelled = x(now) + 18;
  for (const f of ahead) {
    svg.append(draw("line", { x1: x(f.t), x2: x(f.t), y1: y(f.lower), y2: y(f.upper), class: "whisker" }));
    const dot = draw("circle", { cx: x(f.t), cy: y(f.price), r: 5, class: "dot" });
    dot.append(draw("title", {}, `${clock(f.t)}: ${number(f.price)} (${number(f.lower)} to ${number(f.upper)})`));
    svg.append(dot);
    if (x(f.t) - labelled > 26) { // labels of the nearest horizons would lie on each other
      svg.append(draw("text", { x: Math.min(x(f.t), width - right - 18), y: height - 6, "text-anchor": "middle" }, `+${f.horizon} min`));
      labelled = x(f.t);
    }
  }
  $("chart").replaceChildren(svg);
}
function cards() {
  $("forecasts").replaceChildren(
    make("div", { className: "card" }, make("span", {}, `now, ${clock(state.forecasts[0]?.timestamp ?? Date.now())}`), make("b", {}, number(state.forecasts[0]?.price_now)), make("span", {}, "newest price")),
    ...state.forecasts.map((f) => {
      const change = f.price - f.price_now;
      return make("div", { className: "card", title: `${f.model_id} ${f.version}` },
        make("span", {}, `+${f.horizon} min, ${clock(f.target_time)}`), make("b", {}, number(f.price)),
        Math.abs(change) < 0.005 ? make("span", {}, "no change") : make("span", { className: change > 0 ? "up" : "down" }, `${change > 0 ? "▲ +" : "▼ "}${number(change)}`),
        make("span", { title: `${Math.round(f.level * 100)} % interval` }, `${number(f.lower, 1)} to ${number(f.upper, 1)}`));
    }));
}
function header(prices) {
  $("regions").replaceChildren(...Object.keys(prices.regions).map((name) => {
    const button = make("button", { type: "button", onclick: () => { state.region = name; state.battery = ""; refresh(); } }, name);
    button.setAttribute("aria-pressed", String(name === state.region));
    return button;
  }));
  const newest = prices.timestamps[prices.timestamps.length - 1], age = prices.data_age_minutes;
  const old = age < 120 ? `${Math.round(age)} min old` : age < 2880 ? `${Math.round(age / 60)} h old` : `${Math.round(age / 1440)} days old`;
  $("asof").replaceChildren(`prices up to ${day(newest)} ${clock(newest)} ${prices.zone} `, make("span", { className: prices.stale ? "pill stale" : "pill on" }, prices.stale ? `stale: ${old}` : old));
}

// --- battery ---------------------------------------------------------------------------------------------------------
async function battery() {
  const mine = state.batteries.filter((b) => b.region === state.region);
  const own = mine.find((b) => b.battery_id === state.battery) ?? (state.battery === "" ? mine[0] : undefined);
  $("which").replaceChildren(...mine.map((b) => make("option", { value: b.battery_id, selected: b === own }, `${b.battery_id}, ${number(b.capacity_mwh, 1)} MWh`)), make("option", { value: "-", selected: !own }, "reference, 1 MWh"));
  const capacity = own ? own.capacity_mwh : 1, told = own && own.charge_level_mwh !== null;
  const asked = { ...(own ? { battery: own.battery_id } : { capacity_mwh: 1 }), ...(!told && { charge_level_mwh: state.charge * capacity }) };
  const found = await ask("/models/act", { ...asked, region: state.region });
  const gauge = make("div", { className: "gauge", title: "charge and its allowed bounds" }, filled(found.charge_level_mwh / capacity));
  for (const bound of found.bounds_mwh) { const mark = make("u"); mark.style.left = `${(bound / capacity) * 100}%`; gauge.append(mark); }
  const q = Object.entries(found.q_values), best = Math.max(...q.map(([, v]) => v)), worst = Math.min(...q.map(([, v]) => v));
  const parts = [
    make("p", { className: `verdict ${found.action}` }, found.action === "hold" ? "Hold" : `${found.action === "charge" ? "Charge" : "Discharge"} ${number(Math.abs(found.power_mw))} MW`),
    make("p", { className: "why" }, found.why), gauge,
    make("div", { className: "row" }, make("span", {}, `${number(found.charge_level_mwh)} of ${number(capacity)} MWh`), make("span", {}, `allowed ${number(found.bounds_mwh[0])} to ${number(found.bounds_mwh[1])}`)),
  ];
  if (!told) parts.push(make("input", { type: "range", min: 0, max: 1, step: 0.01, value: state.charge, ariaLabel: "Charge, part of the capacity", onchange: (e) => { state.charge = Number(e.target.value); battery().catch(notice); } }));
  else parts.push(make("div", { className: "row" }, make("span", {}, `telemetry of ${day(own.timestamp)} ${clock(own.timestamp)} ${state.prices.zone}`)));
  parts.push(make("div", { className: "q" }, ...q.flatMap(([name, v]) => [make("span", {}, name), make("div", {}, filled(best > worst ? 0.04 + 0.96 * (v - worst) / (best - worst) : 1)), make("span", {}, number(v - best, 3))])));
  parts.push(make("div", { className: "row" }, make("span", {}, `value of each action below the best one, ${state.prices.unit.replace("/MWh", "")}`), make("span", {}, found.version)));
  $("action").replaceChildren(...parts);
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
  $("models").querySelector("tbody").replaceChildren(...rows);
}

// --- trainings -------------------------------------------------------------------------------------------------------
function runs() {
  const shown = [...state.runs.values()].slice(-3).reverse();
  if (!shown.length) return $("runs").replaceChildren(make("p", { className: "soft" }, "none running"));
  $("runs").replaceChildren(...shown.map((run) => make("div", { className: "run" },
    make("p", {}, make("span", {}, run.title ?? "run started elsewhere"), make("span", { className: run.state === "failed" ? "failed" : "soft", title: run.error ?? "" }, run.state ?? ([...run.models.values()].every((m) => m.kind === "completed") ? "completed" : "running"))),
    ...[...run.models].map(([id, m]) => make("div", { className: `bar ${m.kind}`, title: m.note }, make("span", {}, id), make("div", {}, filled(m.progress)), make("span", {}, m.kind === "failed" ? "✕" : `${Math.round(m.progress * 100)} %`))),
    ...(run.error ? [make("p", { className: "soft" }, run.error)] : []),
    ...(run.id && run.state === "running" ? [make("button", { type: "button", onclick: () => cancel(run.id) }, "Cancel")] : []))));
}
async function cancel(id) {
  try { await ask(`/models/train/${id}/cancel`, {}); notice(null); } catch (error) { notice(error); }
}
function hear(event) {
  const run = state.runs.get(event.run_id) ?? { models: new Map() };
  state.runs.delete(event.run_id);
  state.runs.set(event.run_id, run);
  if (event.event === "training") {
    Object.assign(run, { id: event.training_id, title: `${event.type.replace("_", " ")}, as of ${event.as_of}`, state: event.state, error: event.error });
    if (event.state !== "running") models().catch(notice);
  } else {
    const note = Object.entries(event.metrics).map(([k, v]) => `${k} ${typeof v === "number" ? Number(v.toPrecision(4)) : v}`).join(", ");
    run.models.set(event.model_id, { progress: event.progress, kind: event.event.replace("model_training_", ""), note });
  }
  runs();
}
function connect() {
  const encoded = token() && btoa(token()).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
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
    state.batteries = (await ask("/batteries")).batteries;
    try { await battery(); } catch (error) { $("action").replaceChildren(make("p", { className: "soft" }, error.message)); trouble ??= error; }
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
  try { await ask("/models/train", { type: $("kind").value }, { "Idempotency-Key": crypto.randomUUID() }); notice(null); } catch (error) { notice(error); }
};
async function start() {
  state.socket = null;
  runs();
  await refresh();
  if (!$("login").hidden) return;
  connect();
  models().catch(notice);
}
start();
setInterval(() => $("login").hidden && refresh(), POLL_MS);
setInterval(() => $("login").hidden && models().catch(notice), 6 * POLL_MS);
