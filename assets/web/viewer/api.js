// Questions to periscope. Places, ranges and values go out; SQL stays on the server.

const LIMIT_MS = 25_000;

// How far the server's clock is from the browser's: ranges follow the server's.
let offset = 0;

export function now() { return Date.now() + offset; }

export class Unreachable extends Error {}

async function request(path, options = {}) {
  let response;
  for (let attempt = 0; ; attempt += 1) {
    try {
      // In full: a page that was opened with a password in its address may not ask by a path alone.
      response = await fetch(location.origin + path, { signal: AbortSignal.timeout(LIMIT_MS), ...options });
      break;
    } catch (error) {
      // A connection that was kept may have ended just now: once more on a new one.
      if (attempt === 1 || error.name !== "TypeError") throw new Unreachable(error.message);
    }
  }
  const date = Date.parse(response.headers.get("date") || "");
  if (!Number.isNaN(date)) {
    const difference = date - Date.now();
    if (Math.abs(difference - offset) > 3000) offset = Math.abs(difference) > 3000 ? difference : 0;
  }
  const answer = await response.json().catch(() => null);
  if (response.ok && answer !== null) return answer;
  const error = answer?.error || { message: "periscope answers " + response.status, hint: "Load the page again." };
  return { error };
}

export function dashboards() { return request("/api/v1/dashboards"); }

export function dashboard(uid) { return request("/api/v1/dashboards/" + encodeURIComponent(uid)); }

// Returns one result for every query: { frame } or { error }.
export async function query(uid, question) {
  const answer = await request("/api/v1/query/" + encodeURIComponent(uid), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(question),
  });
  return answer.results || question.queries.map(() => ({ error: answer.error }));
}
