// The page: events of /live (apmpi/tools/web/live.py) and answers of /past and /checks into its elements.

const SCALE_DBFS = -72; // to 0
const ERLE_SCALE_DB = 50; // the highest that occurs
const CURVE_SECONDS = 300;
// Least time between two changes that a screen reader announces.
const ANNOUNCE_MS = 5000;
// A connection without an event for so long is made again: the device was switched off.
const SILENCE_MS = 10000;
const RETRY_MS = 2000;

const byId = id => document.getElementById(id);

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// ---- state and figures

let announced = "";
let announcedAt = -ANNOUNCE_MS;

function announce(text) {
  if (text === announced || performance.now() - announcedAt < ANNOUNCE_MS) return;
  [announced, announcedAt] = [text, performance.now()];
  byId("change").textContent = text;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function showState({sentence, kind, problem, rows}) {
  setText(byId("state"), sentence);
  byId("state").className = problem ? "bad" : "";
  for (const id of ["levels", "curve", "figures"]) byId(id).classList.toggle("stale", problem);
  announce(kind);
  if (rows.length) showRows(rows);
}

// A row without a label goes on with the one before. Elements are kept, so that a selection is.
function showRows(rows) {
  const list = byId("figures");
  while (list.children.length > 2 * rows.length) list.lastChild.remove();
  rows.forEach(([label, parts], number) => {
    if (!list.children[2 * number]) list.append(element("dt"), element("dd"));
    const term = list.children[2 * number], value = list.children[2 * number + 1];
    setText(term, label);
    term.hidden = label === "";
    const text = parts.map(([part]) => part).join("") || "-";
    const styles = parts.map(([, style]) => style).join();
    if (value.textContent === text && value.dataset.styles === styles) return;
    value.dataset.styles = styles;
    value.replaceChildren(...parts.map(([part, style]) => element("span", {className: style}, part)));
    if (!value.textContent) value.textContent = "-";
  });
}

// ---- levels

const meters = new Map();

function meter(name) {
  if (meters.has(name)) return meters.get(name);
  const label = name.replaceAll("_", " ");
  const rms = element("div", {className: "rms"}), peak = element("div", {className: "peak"});
  const bar = element("div", {className: "meter"}, rms, peak);
  const value = element("span", {className: "value"});
  for (const [key, text] of Object.entries({
    role: "meter", "aria-label": `level of ${label}`, "aria-valuemin": SCALE_DBFS, "aria-valuemax": 0,
  })) bar.setAttribute(key, text);
  byId("levels").append(element("div", {className: "level"}, element("span", {}, label), bar, value));
  meters.set(name, {bar, rms, peak, value});
  return meters.get(name);
}

const part = dbfs => Math.min(Math.max(1 - dbfs / SCALE_DBFS, 0), 1);

function showLevels(levels) {
  for (const [name, [rms, peak]] of Object.entries(levels)) {
    const shown = meter(name), silent = rms === null || peak === null;
    shown.rms.style.transform = `scaleX(${silent ? 0 : part(rms)})`;
    shown.peak.style.left = `${silent ? 0 : 100 * part(peak)}%`;
    shown.bar.classList.toggle("full", !silent && peak > -0.1);
    const text = silent ? "no sound" : `${rms.toFixed(1)}, peak ${peak.toFixed(1)} dBFS`;
    setText(shown.value, silent ? text : `${rms.toFixed(0)}, peak ${peak.toFixed(0)} dBFS`);
    shown.bar.setAttribute("aria-valuenow", silent ? SCALE_DBFS : Math.max(rms, SCALE_DBFS));
    shown.bar.setAttribute("aria-valuetext", text);
  }
}

// ---- echo reduction over time

function showCurve(erleDb) {
  const first = CURVE_SECONDS - erleDb.length;
  const y = db => ERLE_SCALE_DB - Math.min(Math.max(db, 0), ERLE_SCALE_DB);
  const points = erleDb.map((db, number) => `${first + number},${y(db)}`).join(" ");
  byId("curve").querySelector("polyline").setAttribute("points", points);
  const now = erleDb.length ? `now ${erleDb.at(-1).toFixed(0)} dB` : "not known yet";
  byId("curve").setAttribute("aria-label", `echo reduction of the last 5 minutes: ${now}`);
}

// ---- the last hours

function time(seconds) {
  const date = new Date(1000 * seconds);
  const text = date.toLocaleString([], {weekday: "short", hour: "2-digit", minute: "2-digit", second: "2-digit"});
  return element("time", {dateTime: date.toISOString()}, text);
}

function showPast({problem, sentence, findings = [], messages = [], head = [], rows = []}) {
  byId("past").textContent = problem ?? sentence;
  byId("findings").replaceChildren(...findings.map(([verdict, text, todo]) =>
    element("li", {className: verdict === "WRONG" ? "bad" : ""}, todo ? `${text}: ${todo}` : text)));
  byId("messages").replaceChildren(...messages.map(([at, text, fault]) =>
    element("li", {className: fault ? "bad" : ""}, time(at), text)));
  const table = document.querySelector("#past ~ details table");
  const names = ["time", ...head].map(name => element("th", {scope: "col"}, name));
  table.tHead.replaceChildren(element("tr", {}, ...names));
  table.tBodies[0].replaceChildren(...rows.map(([at, texts]) =>
    element("tr", {}, element("td", {}, time(at)), ...texts.map(text => element("td", {}, text)))));
  for (const details of document.querySelectorAll("#past ~ details")) details.hidden = problem !== undefined;
}

async function readPast() {
  byId("read-past").disabled = true;
  try {
    showPast(await (await fetch("past")).json());
  } catch {
    showPast({problem: "the journal could not be read: no connection to the device"});
  }
  byId("read-past").disabled = false;
}

byId("read-past").addEventListener("click", readPast);
readPast();

// ---- checks

function showChecks(findings) {
  const wrong = findings.filter(([verdict]) => verdict === "WRONG").length;
  byId("checks").textContent = wrong ? `${wrong} to look after` : "all is fine";
  byId("checks").className = wrong ? "bad" : "good";
  byId("findings-list").replaceChildren(...findings.flatMap(([verdict, name, text, todo]) => [
    element("dt", {}, name),
    element("dd", {className: verdict === "WRONG" ? "bad" : ""}, todo ? `${text}: ${todo}` : text),
  ]));
}

byId("check").addEventListener("click", async () => {
  byId("check").disabled = true;
  try {
    showChecks((await (await fetch("checks")).json()).findings);
  } catch {
    byId("checks").textContent = "no connection to the device";
  }
  byId("check").disabled = false;
});

// ---- connection

function connect() {
  const events = new EventSource("live");
  let heard = performance.now();
  const on = (kind, show) => events.addEventListener(kind, event => {
    heard = performance.now();
    show(JSON.parse(event.data));
  });
  on("levels", showLevels);
  on("curve", showCurve);
  on("state", showState);
  const watch = setInterval(() => {
    if (performance.now() - heard > SILENCE_MS) again();
  }, 1000);
  function again() {
    clearInterval(watch);
    events.close();
    const sentence = "no connection to the device; trying again";
    showState({sentence, kind: sentence, problem: true, rows: []});
    setTimeout(connect, RETRY_MS);
  }
  events.onerror = again;
}

connect();
