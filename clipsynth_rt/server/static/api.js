// Talking to the server.

const TOKEN = "clipsynth-token";

/** What the server says no with (RFC 9457). */
export class Refusal extends Error {
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

export const keepToken = (token) => sessionStorage.setItem(TOKEN, token);

async function ask(path, options = {}) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal(0, "unreachable", "The server does not answer. Is it still running?");
  }
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => ({}));
  throw new Refusal(answer.status, body.code, body.detail || `The server answered ${answer.status}.`);
}

export const bundle = async () => (await ask("v1/bundle")).json();

/** Milliseconds by stage, from Server-Timing. */
function stages(header) {
  return (header || "").split(",").map((part) => part.trim().split(";dur=")).filter((part) => part.length === 2)
    .map(([name, ms]) => [name, Number(ms)]);
}

/** Make one sound from a query or a picture. */
export async function synth(wishes, picture, signal) {
  let body = JSON.stringify(wishes);
  let headers = { "Content-Type": "application/json" };
  if (picture) {
    body = new FormData();
    headers = {};
    for (const [name, value] of Object.entries(wishes)) if (name !== "query") body.append(name, String(value));
    body.append("image", picture);
  }
  const answer = await ask("v1/synth", { method: "POST", body, headers, signal });
  const fact = (name) => answer.headers.get(`Clipsynth-${name}`);
  return {
    blob: await answer.blob(),
    seed: fact("Seed"),
    num_steps: Number(fact("Num-Steps")),
    guidance_scale: Number(fact("Guidance-Scale")),
    rtf: Number(fact("Rtf")),
    seconds: Number(fact("Audio-Seconds")),
    provider: fact("Provider"),
    batch: Number(fact("Batch")),
    stages: stages(answer.headers.get("Server-Timing")),
  };
}
