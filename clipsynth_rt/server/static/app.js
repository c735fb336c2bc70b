import { bundle, keepToken, Refusal, synth, vary } from "./api.js";
import { drawHertz, drawMel, drawSeconds, drawWave } from "./draw.js";
import { keep, recall } from "./history.js";
import { melSpectrogram } from "./mel.js";
import { Player } from "./player.js";
import { zip } from "./zip.js";

const $ = (id) => document.getElementById(id);
const IDEAS = 8;
const VARIATIONS = 4;
const KEEP = 40; // sounds in the history; older ones give their memory back
const STAGES = ["queue", "text", "denoise", "vocode", "prepare", "clip", "write"];
const FOR_BETTER = ["num_steps", "guidance_scale", "negative", "sampler"]; // not the distilled network's

const player = new Player();
const takes = recall(KEEP);
const queue = []; // what is asked for and not begun
let voice = null;
let picture = null;
let current = null;
let running = null;
let waiting = null; // what to do once there is a token

/* ---- the voice and what it allows ---- */

function choices(id, names) {
  $(id).replaceChildren(...names.map((name) => new Option(name, name)));
}

const distilled = () => Boolean(voice?.diffusion.distilled_steps.length);
const quality = () => document.querySelector("[name=denoiser]:checked").value;

/** Show what a quality can do, and what it does where nothing is chosen. */
function showQuality() {
  const fast = distilled() && quality() === "distilled";
  const { diffusion, server } = voice;
  const steps = fast ? diffusion.distilled_steps[0] : diffusion.num_steps;
  const longest = fast ? Math.min(server.limits.duration, server.limits.distilled_duration) : server.limits.duration;
  $("num_steps").placeholder = String(steps);
  $("guidance_scale").placeholder = fast ? "1" : String(diffusion.guidance_scale);
  for (const id of FOR_BETTER) $(id).disabled = fast;
  $("better-hint").hidden = !fast;
  $("duration").max = Math.floor(longest * 10) / 10;
  $("quality-hint").textContent = `${steps} steps, up to ${Math.floor(longest)} s`;
  showDuration();
}

function ownSettings() {
  const seconds = (voice.diffusion.default_frames * voice.mel.hop_length) / voice.mel.sample_rate;
  document.querySelector(`[name=denoiser][value=${distilled() ? "distilled" : "full"}]`).checked = true;
  for (const id of ["num_steps", "guidance_scale", "template", "negative"]) $(id).value = "";
  $("seamless").checked = false;
  $("sampler").selectedIndex = $("format").selectedIndex = 0;
  showQuality();
  $("duration").value = Math.min(seconds, voice.server.limits.duration);
  showDuration();
}

function showIdeas() {
  const groups = Object.values(voice.concepts).map((names) => [...names].sort(() => Math.random() - 0.5));
  const longest = Math.max(0, ...groups.map((names) => names.length));
  // one of each group in turn
  const names = Array.from({ length: longest }, (_, i) => groups.map((group) => group[i])).flat().filter(Boolean);
  $("shuffle").hidden = names.length <= IDEAS;
  $("ideas").replaceChildren(...names.slice(0, IDEAS).map((name) => {
    const [item, button] = [document.createElement("li"), document.createElement("button")];
    button.type = "button";
    button.textContent = name;
    button.addEventListener("click", () => {
      if (picture) setPicture(null);
      $("query").value = name;
      generate();
    });
    item.append(button);
    return item;
  }));
}

async function loadVoice() {
  try {
    voice = await bundle();
  } catch (error) {
    complain(error);
    return;
  }
  hideError();
  $("token-form").hidden = true;
  const { limits, formats, samplers, images, version, provider } = voice.server;
  $("num_steps").max = limits.num_steps;
  $("query").maxLength = limits.query_chars;
  choices("sampler", samplers);
  choices("format", formats);
  $("concepts").replaceChildren(...Object.values(voice.concepts).flat().map((name) => new Option(name, name)));
  $("template").placeholder = voice.condition.templates[0];
  $("choose").hidden = document.querySelector(".drop-hint").hidden = images.length === 0;
  $("quality").hidden = !distilled();
  $("voice").textContent = `${voice.name} on ${provider}, ${voice.mel.sample_rate / 1000} kHz`;
  $("version").textContent = `version ${version}`;
  drawHertz($("hertz"), voice.mel);
  showIdeas();
  ownSettings();
  fromLink();
}

function showDuration() {
  const input = $("duration");
  document.querySelector("output[for=duration]").textContent = `${Number(input.value)} s`;
  input.style.setProperty("--done", `${(100 * (input.value - input.min)) / (input.max - input.min)}%`);
}

/* ---- a picture in place of words ---- */

function setPicture(file) {
  if (file && !file.type.startsWith("image/")) {
    complain(new Refusal(0, "image", `${file.name} is not a picture.`));
    return;
  }
  hideError();
  if ($("preview").src) URL.revokeObjectURL($("preview").src);
  picture = file;
  $("file").value = "";
  $("picture").hidden = !file;
  $("query").hidden = $("choose").hidden = Boolean(file);
  if (file) {
    $("preview").src = URL.createObjectURL(file);
    $("picture-name").textContent = file.name;
    $("go").focus();
  } else {
    $("preview").removeAttribute("src");
    $("query").focus();
  }
}

/* ---- settings: the options of a request, in the form, in the history and in links ---- */

function settings() {
  const fast = distilled() && quality() === "distilled";
  const options = {
    query: $("query").value.trim(),
    seed: Number($("seed").value),
    duration: Number($("duration").value),
    loop: $("seamless").checked,
    format: $("format").value,
  };
  if (distilled()) options.denoiser = quality();
  if (!fast) {
    for (const id of ["num_steps", "guidance_scale"]) if ($(id).value) options[id] = Number($(id).value);
    if ($("negative").value.trim()) options.negative = $("negative").value.trim();
    options.sampler = $("sampler").value;
  }
  if ($("template").value.trim()) options.template = $("template").value.trim();
  return options;
}

function restore(options) {
  ownSettings();
  if (options.query) {
    if (picture) setPicture(null);
    $("query").value = options.query;
  }
  if (distilled() && ["full", "distilled"].includes(options.denoiser)) {
    document.querySelector(`[name=denoiser][value=${options.denoiser}]`).checked = true;
  }
  showQuality();
  for (const id of ["seed", "duration", "num_steps", "guidance_scale", "negative", "template"]) {
    if (id in options) $(id).value = options[id];
  }
  for (const id of ["sampler", "format"]) {
    if ([...$(id).options].some((one) => one.value === options[id])) $(id).value = options[id];
  }
  $("seamless").checked = options.loop === true || options.loop === "true";
  if ("seed" in options) $("fresh").checked = false;
  showDuration();
}

/** Fill the form in from an address; nothing is made before the user asks for it. */
function fromLink() {
  const options = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  if (options.query) restore(options);
}

async function share() {
  // after the #: what was asked for goes into no server's log
  const link = new URL(`#${new URLSearchParams(current.options)}`, location.href).href;
  try {
    await navigator.clipboard.writeText(link);
    $("status").textContent = "The link is copied";
    $("share").lastElementChild.textContent = "Copied";
    setTimeout(() => { $("share").lastElementChild.textContent = "Share"; }, 2000);
  } catch {
    // browsers keep the clipboard from pages without TLS
    $("link-row").hidden = false;
    $("link").value = link;
    $("link").select();
  }
}

/* ---- making sounds ---- */

async function generate(count = 1) {
  if (!voice) await loadVoice();
  if (!voice) {
    waiting = () => generate(count);
    return;
  }
  if (!picture && !$("query").value.trim()) {
    complain(new Refusal(0, "empty", "Say what it should sound like, for example “drum”."));
    $("query").focus();
    return;
  }
  if ($("fresh").checked) $("seed").value = Math.floor(Math.random() * 2 ** 31);
  const options = settings();
  const most = Math.min(count, voice.server.limits.clips);
  queue.push({ options, picture, name: picture ? picture.name : options.query, count: most });
  showQueue();
  next();
}

async function next() {
  if (running || !queue.length) return;
  const job = queue.shift();
  hideError();
  showQueue();
  running = new AbortController();
  const done = showBusy(job.name);
  try {
    await make(job, running.signal);
  } catch (error) {
    if (error.status === 401) {
      queue.unshift(job); // and again with the token
      waiting = next;
    }
    if (error.name !== "AbortError") complain(error);
  } finally {
    running = null;
    done();
  }
  if (!waiting) next();
}

async function make(job, signal) {
  const { options, picture: shown, count, entry } = job;
  if (count === 1) {
    await add(job, await synth(options, shown, signal), entry);
    return;
  }
  let many = 0;
  for await (const made of vary(options, shown, count, signal)) {
    many += 1;
    await add({ ...job, options: { ...options, seed: made.seed } }, made, null, many === 1);
    $("status").textContent = `Made ${many} of ${count}`;
  }
}

async function add({ options, picture: shown, name }, made, entry, first = true) {
  const buffer = await decode(made.blob);
  const samples = buffer.getChannelData(0);
  const mel = melSpectrogram(samples, voice.mel);
  const take = { ...made, options, name, isPicture: Boolean(shown), format: options.format, buffer, samples, mel, url: URL.createObjectURL(made.blob) };
  const place = entry ? takes.indexOf(entry) : -1;
  if (place >= 0) takes[place] = take;
  else takes.unshift(take);
  for (const old of takes.splice(KEEP)) if (old.url) URL.revokeObjectURL(old.url);
  keep(takes);
  if (!first) {
    showHistory();
    return;
  }
  show(take);
  if (options.loop) player.repeat(true);
  $("result").scrollIntoView({ block: "nearest" });
  $("status").textContent = `Made ${name}: ${take.seconds.toFixed(1)} seconds, real-time factor ${take.rtf.toFixed(2)}`;
  player.play();
}

async function decode(blob) {
  const context = new OfflineAudioContext(1, 1, voice.mel.sample_rate);
  return context.decodeAudioData(await blob.arrayBuffer());
}

function showBusy(name) {
  const began = performance.now();
  const tick = () => {
    $("elapsed").textContent = `${((performance.now() - began) / 1000).toFixed(1)} s`;
  };
  tick();
  const timer = setInterval(tick, 100);
  $("status").textContent = `Making ${name}`;
  $("busy").hidden = false;
  $("screen").classList.add("waiting");
  $("stop").hidden = false;
  return () => {
    clearInterval(timer);
    $("busy").hidden = true;
    $("screen").classList.remove("waiting");
    $("stop").hidden = true;
  };
}

function showQueue() {
  $("queue").hidden = !queue.length;
  $("queue").textContent = queue.length ? `Next: ${queue.map((job) => job.name).join(", ")}` : "";
}

function complain(error) {
  if (error.status === 401) {
    const tried = !$("token-form").hidden && $("token").value;
    $("token-form").hidden = false;
    $("token").focus();
    if (!tried) return;
    error = new Refusal(401, "token", "That token is not right. Check it, and try again.");
    $("token").select();
  }
  const text = error.message || String(error);
  $("error").textContent = text[0].toUpperCase() + text.slice(1);
  $("error").hidden = false;
  $("status").textContent = "";
}

function hideError() {
  $("error").hidden = true;
}

/* ---- showing a take ---- */

function draw() {
  if (!current) return;
  drawMel($("mel"), current.mel);
  drawWave($("wave"), current.samples, "#f6e7dc");
  drawSeconds($("seconds"), current.seconds);
}

function show(take) {
  current = take;
  player.load(take.buffer);
  const length = `${take.seconds.toFixed(1)} seconds`;
  const { f_min_hz: low, f_max_hz: high } = voice.mel;
  $("mel").setAttribute("aria-label", `Mel spectrogram of ${take.name}, ${length}, ${low} to ${high} hertz`);
  $("wave").setAttribute("aria-label", `Waveform of ${take.name}, ${length}`);
  $("empty").hidden = true;
  $("title").textContent = take.name;
  $("about").textContent = ` · seed ${take.seed}`;
  $("facts").textContent = ` · ${take.num_steps} steps · guidance ${take.guidance_scale}`;
  $("share").disabled = take.isPicture; // a link holds no picture
  $("link-row").hidden = true;
  const link = $("download");
  link.href = take.url;
  link.download = fileName(take);
  link.removeAttribute("aria-disabled");
  showTimes(take);
  showHistory();
  draw();
}

/** Show and play a sound of the history, which is made again where only its settings were kept. */
function again(take) {
  restore(take.options);
  if (take.buffer) {
    show(take);
    player.play();
  } else {
    queue.push({ options: take.options, picture: null, name: take.name, count: 1, entry: take });
    showQueue();
    next();
  }
}

function fileName(take) {
  const stem = take.name.toLowerCase().replace(/\.\w+$/, "").replace(/[^\p{L}\p{M}\p{N}]+/gu, "-").replace(/^-|-$/g, "");
  return `${stem.slice(0, 50) || "sound"}-${take.seed}.${take.format}`;
}

async function downloadAll() {
  const names = new Set();
  const files = takes.filter((take) => take.blob).map((take) => {
    const [stem, ending] = fileName(take).split(/\.(?=\w+$)/);
    let name = `${stem}.${ending}`;
    for (let i = 2; names.has(name); i++) name = `${stem}-${i}.${ending}`;
    names.add(name);
    return [name, take.blob];
  });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await zip(files));
  link.download = "sounds.zip";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function showTimes(take) {
  const shown = take.stages.filter(([name, ms]) => STAGES.includes(name) && (name !== "queue" || ms >= 1));
  const sum = shown.reduce((all, [, ms]) => all + ms, 0) || 1;
  $("times").hidden = false;
  $("rtf").textContent = take.rtf.toFixed(3);
  $("faster").textContent = take.rtf < 1 ? `· ${(1 / take.rtf).toFixed(1)}× faster than real time` : "· slower than real time";
  $("bar").replaceChildren(...shown.map(([name, ms]) => {
    const part = document.createElement("i");
    part.className = `stage-${name}`;
    part.style.flexGrow = String(ms / sum);
    return part;
  }));
  $("stages").replaceChildren(...shown.map(([name, ms]) => {
    const row = document.createElement("div");
    row.className = `stage-${name}`;
    const [term, value] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = name;
    value.textContent = duration(ms);
    row.append(term, value);
    return row;
  }));
}

function duration(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} s`;
  return ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`;
}

function showHistory() {
  const made = takes.filter((take) => take.blob).length;
  $("history").hidden = !takes.length;
  $("download-all").hidden = made < 2;
  $("download-all").textContent = `Download all ${made}`;
  const ink = getComputedStyle(document.documentElement).getPropertyValue("--accent").trim();
  $("takes").replaceChildren(...takes.map((take) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    const canvas = document.createElement("canvas");
    const [name, facts] = [document.createElement("span"), document.createElement("span")];
    button.type = "button";
    button.setAttribute("aria-current", String(take === current));
    button.classList.toggle("faded", !take.buffer);
    name.className = "name";
    name.textContent = take.name;
    facts.className = "quiet small";
    facts.textContent = `${take.seconds.toFixed(1)} s · seed ${take.seed}`;
    canvas.setAttribute("aria-hidden", "true");
    button.append(canvas, name, facts);
    button.addEventListener("click", () => {
      const place = takes.indexOf(take);
      again(take);
      $("takes").children[place].firstElementChild.focus();
    });
    item.append(button);
    requestAnimationFrame(() => drawWave(canvas, take.samples, ink));
    return item;
  }));
}

function clear() {
  for (const take of takes.splice(0)) if (take.url && take !== current) URL.revokeObjectURL(take.url);
  keep(takes);
  showHistory();
  $("query").focus();
}

/* ---- what the user does ---- */

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  generate();
});
$("form").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !event.shiftKey || event.target.tagName === "BUTTON") return;
  event.preventDefault();
  generate(VARIATIONS);
});
$("variations").addEventListener("click", () => generate(VARIATIONS));
$("stop").addEventListener("click", () => {
  queue.length = 0;
  showQueue();
  running?.abort();
  $("query").focus();
});
$("duration").addEventListener("input", showDuration);
for (const radio of document.querySelectorAll("[name=denoiser]")) radio.addEventListener("change", showQuality);
$("seed").addEventListener("input", () => { $("fresh").checked = false; });
$("reset").addEventListener("click", () => voice && ownSettings());
$("shuffle").addEventListener("click", showIdeas);
$("share").addEventListener("click", share);
$("download-all").addEventListener("click", downloadAll);
$("clear").addEventListener("click", clear);
$("file").addEventListener("change", (event) => event.target.files[0] && setPicture(event.target.files[0]));
$("remove").addEventListener("click", () => setPicture(null));
$("token-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  keepToken($("token").value.trim());
  await loadVoice();
  if (!$("token-form").hidden) return;
  $("query").focus();
  const go = waiting;
  waiting = null;
  go?.();
});
addEventListener("hashchange", () => voice && fromLink());

let drags = 0;
const dragging = (change) => {
  drags = Math.max(0, drags + change);
  document.body.classList.toggle("dropping", drags > 0);
};
addEventListener("dragenter", () => dragging(1));
addEventListener("dragleave", () => dragging(-1));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  dragging(-drags);
  if (event.dataTransfer.files[0] && voice?.server.images.length) setPicture(event.dataTransfer.files[0]);
});
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea, button, a, summary")) return;
  const keys = { " ": () => player.toggle(), r: () => player.ready && player.repeat(), "/": () => $("query").focus() };
  const act = keys[event.key.toLowerCase()];
  if (!act) return;
  event.preventDefault();
  act();
});
new ResizeObserver(draw).observe($("screen"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => takes.length && showHistory());

showHistory();
loadVoice();
