// Renews the page every two seconds out of /api/v1/status. Texts of daemons only ever become
// textContent: nothing of theirs is read as HTML.
"use strict";

const PERIOD_MS = 2000;
const LONGEST = 300;

function byId(id) { return document.getElementById(id); }

// Control and direction characters could hide or reorder what stands around them.
function clean(value) {
  const text = String(value).replace(
    /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, "\ufffd");
  const characters = Array.from(text);
  return characters.length > LONGEST ? characters.slice(0, LONGEST).join("") + "…" : text;
}

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = clean(text);
  if (className) made.className = className;
  return made;
}

function row(...cells) {
  const made = document.createElement("tr");
  made.append(...cells);
  return made;
}

function state(word) {
  const known = /^[a-z_]{1,20}$/.test(word) ? word : "";
  return element("td", word, "state " + known);
}

function age(seconds) {
  if (!(seconds >= 0)) return "–";
  const whole = Math.floor(seconds);
  if (whole < 60) return whole + " s";
  if (whole < 3600) return Math.floor(whole / 60) + " min";
  if (whole < 86400) return Math.floor(whole / 3600) + " h " + Math.floor(whole % 3600 / 60) + " min";
  return Math.floor(whole / 86400) + " d " + Math.floor(whole % 86400 / 3600) + " h";
}

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let value = count;
  while (value >= 1024 && unit + 1 < units.length) { value /= 1024; unit += 1; }
  return (unit === 0 ? String(value) : (Math.floor(value * 10) / 10).toFixed(1)) + " " + units[unit];
}

function since(time, now) {
  return time ? age(Math.max(0, (now - Date.parse(time)) / 1000)) : "–";
}

function ago(time, now) {
  return time ? since(time, now) + " ago" : "never";
}

// The document of the shim wraps the daemon's own.
function field(status, name) {
  if (status === null || typeof status !== "object") return undefined;
  if (name in status) return status[name];
  const first = Array.isArray(status.instances) ? status.instances[0] : undefined;
  const inner = first && first.status;
  return inner && typeof inner === "object" ? inner[name] : undefined;
}

function shown(value) {
  return value === undefined || value === null ? "–" : value;
}

function daemonRow(daemon, now) {
  const name = document.createElement("td");
  name.append(element("bdi", daemon.name));
  const beats = document.createElement("td");
  const bar = element("div", null, "beats");
  bar.title = daemon.beats.filter(Boolean).length + " of " + daemon.beats.length + " answered";
  for (const good of daemon.beats) bar.append(element("i", null, good ? "good" : ""));
  beats.append(bar);
  const error = element("td", null, "text");
  const text = daemon.poll_error || field(daemon.status, "last_error");
  if (text) error.append(element("bdi", text));
  return row(
    name, state(daemon.state), beats,
    element("td", ago(daemon.last_sample_at, now)),
    element("td", shown(field(daemon.status, "fetch_count"))),
    element("td", shown(field(daemon.status, "error_count"))),
    element("td", daemon.restarts), error);
}

function partRow(name, entry, now) {
  const words = element("td", null, "text");
  words.append(element("bdi", entry.reason || entry.doing || ""));
  return row(element("td", name), state(entry.state), element("td", since(entry.since, now)), words);
}

function figures(report, now) {
  const { spool, writer } = report;
  return [
    ["Waiting on disk", spool.rows + " rows, " + bytes(spool.bytes)],
    ["Oldest waiting", spool.rows > 0 ? age(spool.oldest_age_seconds) : "–"],
    ["On disk since start", spool.durable_rows + " rows"],
    ["Written to QuestDB since start", writer.rows_total + " rows"],
    ["Last write", ago(writer.last_write_at, now)],
    ["Refused", writer.refused_total + " rows"],
    ["Lost", spool.lost_rows + " rows"],
  ];
}

function link(url) {
  if (!/^https?:\/\//.test(url) || url.length > LONGEST) return element("span", url);
  const made = element("a", url);
  made.href = url;
  made.rel = "noreferrer";
  return made;
}

function server(it) {
  const parts = [element("span", it.state + (it.version ? " " + it.version : ""))];
  if (it.http) parts.push(" · ", link(it.http));
  if (it.pg) parts.push(element("span", " · PostgreSQL wire " + it.pg));
  if (it.pid) parts.push(element("span", " · pid " + it.pid));
  return parts;
}

function render(report, now) {
  byId("host").textContent = clean(report.host);
  byId("env").textContent = clean(report.env);
  byId("mode").textContent = clean(report.mode);
  byId("version").textContent = clean(report.version);
  byId("uptime").textContent = since(report.started_at, now);
  byId("daemons").replaceChildren(...report.daemons.map((daemon) => daemonRow(daemon, now)));
  byId("no-daemons").hidden = report.daemons.length > 0;
  byId("parts").replaceChildren(
    ...Object.entries(report.parts).map(([name, entry]) => partRow(name, entry, now)));
  byId("rows").replaceChildren(
    ...figures(report, now).flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
  byId("questdb").replaceChildren(...server(report.questdb));
  byId("grafana").replaceChildren(...server(report.grafana));
}

async function refresh() {
  try {
    // In full: a page that was opened with a password in its address may not ask by a path alone.
    const response = await fetch(location.origin + "/api/v1/status", { signal: AbortSignal.timeout(5000) });
    if (!response.ok) throw new Error("status " + response.status);
    // Ages follow the server's clock: the browser's may be wrong.
    const date = Date.parse(response.headers.get("date") || "");
    render(await response.json(), Number.isNaN(date) ? Date.now() : date);
    byId("lost").hidden = true;
  } catch (error) {
    byId("lost").hidden = false;
  }
  setTimeout(refresh, PERIOD_MS);
}

setTimeout(refresh, PERIOD_MS);
