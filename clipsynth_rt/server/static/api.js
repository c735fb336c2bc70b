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

function body(options, pictures) {
  if (!pictures.length) return { body: JSON.stringify(options), headers: { "Content-Type": "application/json" } };
  const form = new FormData();
  for (const [name, value] of Object.entries(options)) if (name !== "query") form.append(name, String(value));
  for (const picture of pictures) form.append("image", picture);
  return { body: form };
}

/** Make one sound from a query or a picture. */
export async function synth(options, picture, signal) {
  const answer = await ask("v1/synth", { method: "POST", signal, ...body(options, picture ? [picture] : []) });
  const fact = (name) => answer.headers.get(`Clipsynth-${name}`);
  return {
    blob: await answer.blob(),
    seed: Number(fact("Seed")),
    num_steps: Number(fact("Num-Steps")),
    guidance_scale: Number(fact("Guidance-Scale")),
    rtf: Number(fact("Rtf")),
    seconds: Number(fact("Audio-Seconds")),
    stages: stages(answer.headers.get("Server-Timing")),
  };
}

function fromLine(line) {
  const clip = JSON.parse(line);
  if (clip.code) throw new Refusal(clip.status, clip.code, clip.detail);
  const bytes = Uint8Array.from(atob(clip.sound), (letter) => letter.charCodeAt(0));
  return {
    blob: new Blob([bytes], { type: clip.media_type }),
    seed: clip.seed,
    num_steps: clip.num_steps,
    guidance_scale: clip.guidance_scale,
    rtf: clip.rtf,
    seconds: clip.audio_s,
    stages: [["queue", clip.queue_s], ...Object.entries(clip.stages_s)].map(([name, s]) => [name, 1000 * s]),
  };
}

/** Make several sounds of one query or picture, with seeds from options.seed on; yields each as it is made. */
export async function* vary(options, picture, count, signal) {
  const { query, ...shared } = options;
  const several = { ...shared, response_format: "ndjson" };
  if (!picture) several.queries = Array(count).fill(query);
  const pictures = picture ? Array(count).fill(picture) : [];
  const answer = await ask("v1/synth", { method: "POST", signal, ...body(several, pictures) });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) yield fromLine(line);
  }
}
