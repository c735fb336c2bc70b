import { bundle, keepToken, Refusal, synth } from "./api.js";
import { drawMel, drawWave } from "./draw.js";
import { melSpectrogram } from "./mel.js";
import { Player } from "./player.js";

const $ = (id) => document.getElementById(id);
const IDEAS = ["drum", "violin", "dog barking", "rain", "siren", "marimba"];
const KEEP = 40; // takes of a session; older ones give their memory back
const STAGES = ["queue", "text", "denoise", "vocode", "prepare", "clip", "write"];
const UNITS = { num_steps: "", guidance_scale: "", duration: " s" };

const player = new Player();
const takes = [];
let voice = null;
let picture = null;
let current = null;
let making = null;
const wished = new Set(); // of steps and guidance: what is not left to a distilled denoiser

/* ---- the voice and what it allows ---- */

function options(id, names) {
  $(id).replaceChildren(...names.map((name) => new Option(name, name)));
}

function ownSettings() {
  const { num_steps: many, distilled_steps: few, guidance_scale: scale } = voice.diffusion;
  $("num_steps").value = few.length ? few[0] : many;
  $("guidance_scale").value = scale;
  wished.clear();
  if (!few.length) wished.add("num_steps").add("guidance_scale");
  const seconds = (voice.diffusion.default_frames * voice.mel.hop_length) / voice.mel.sample_rate;
  $("duration").value = Math.min(seconds, voice.server.limits.duration);
  $("template").value = "";
  $("negative").value = "";
  $("seamless").checked = false;
  $("sampler").selectedIndex = 0;
  $("format").selectedIndex = 0;
  showSliders();
}

async function loadVoice() {
  try {
    voice = await bundle();
  } catch (error) {
    complain(error);
    return;
  }
  hideError();
  const { limits, formats, samplers, images, version, provider } = voice.server;
  $("num_steps").max = limits.num_steps;
  $("duration").max = Math.floor(limits.duration * 10) / 10;
  $("query").maxLength = limits.query_chars;
  options("sampler", samplers);
  options("format", formats);
  $("template").placeholder = voice.condition.templates[0];
  $("choose").hidden = document.querySelector(".drop-hint").hidden = images.length === 0;
  $("voice").textContent = `${voice.name} on ${provider}, ${voice.mel.sample_rate / 1000} kHz`;
  $("version").textContent = `version ${version}`;
  ownSettings();
}

function wish(event) {
  const { id } = event.target;
  if (id !== "duration") wished.add(id);
  // guidance is the ordinary denoiser's, and so are the steps then
  if (voice && id === "guidance_scale" && !wished.has("num_steps")) $("num_steps").value = voice.diffusion.num_steps;
  showSliders();
}

function showSliders() {
  for (const [id, unit] of Object.entries(UNITS)) {
    const input = $(id);
    document.querySelector(`output[for=${id}]`).textContent = `${Number(input.value)}${unit}`;
    input.style.setProperty("--done", `${(100 * (input.value - input.min)) / (input.max - input.min)}%`);
  }
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

/* ---- making a sound ---- */

function wishes() {
  if ($("fresh").checked) $("seed").value = Math.floor(Math.random() * 2 ** 31);
  const wanted = {
    query: $("query").value.trim(),
    seed: Number($("seed").value),
    num_steps: Number($("num_steps").value),
    guidance_scale: Number($("guidance_scale").value),
    duration: Number($("duration").value),
    sampler: $("sampler").value,
    loop: $("seamless").checked,
    format: $("format").value,
  };
  for (const name of ["num_steps", "guidance_scale"]) if (!wished.has(name)) delete wanted[name];
  for (const name of ["template", "negative"]) if ($(name).value.trim()) wanted[name] = $(name).value.trim();
  return wanted;
}

async function generate() {
  if (making) {
    making.abort();
    return;
  }
  if (!voice) await loadVoice();
  if (!voice) return;
  if (!picture && !$("query").value.trim()) {
    complain(new Refusal(0, "empty", "Say what it should sound like, for example “drum”."));
    $("query").focus();
    return;
  }
  const wanted = wishes();
  const name = picture ? picture.name : wanted.query;
  hideError();
  making = new AbortController();
  const done = showBusy(name);
  try {
    const made = await synth(wanted, picture, making.signal);
    const buffer = await decode(made.blob);
    const samples = buffer.getChannelData(0);
    const mel = melSpectrogram(samples, voice.mel);
    const take = { ...made, name, format: wanted.format, buffer, samples, mel, url: URL.createObjectURL(made.blob) };
    takes.unshift(take);
    for (const old of takes.splice(KEEP)) URL.revokeObjectURL(old.url);
    show(take);
    if (wanted.loop) player.loop(true);
    $("result").scrollIntoView({ block: "nearest" });
    $("status").textContent = `Made ${name}: ${take.seconds.toFixed(1)} seconds, real-time factor ${take.rtf.toFixed(2)}`;
    player.play();
  } catch (error) {
    if (error.name !== "AbortError") complain(error);
  } finally {
    making = null;
    done();
  }
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
  $("go").textContent = "Stop";
  return () => {
    clearInterval(timer);
    $("busy").hidden = true;
    $("screen").classList.remove("waiting");
    $("go").textContent = "Generate";
  };
}

function complain(error) {
  const text = error.message || String(error);
  $("error").textContent = text[0].toUpperCase() + text.slice(1);
  $("error").hidden = false;
  $("status").textContent = "";
  if (error.status === 401) {
    $("token-row").hidden = false;
    $("token").focus();
  }
}

function hideError() {
  $("error").hidden = true;
}

/* ---- showing a take ---- */

function draw() {
  if (!current) return;
  drawMel($("mel"), current.mel);
  drawWave($("wave"), current.samples, "#f6e7dc");
}

function show(take) {
  current = take;
  player.load(take.buffer);
  const length = `${take.seconds.toFixed(1)} seconds`;
  $("mel").setAttribute("aria-label", `Mel spectrogram of ${take.name}, ${length}`);
  $("wave").setAttribute("aria-label", `Waveform of ${take.name}, ${length}`);
  $("empty").hidden = true;
  $("title").textContent = take.name;
  $("about").textContent = ` · seed ${take.seed}`;
  $("facts").textContent = ` · ${take.num_steps} steps · guidance ${take.guidance_scale}`;
  const link = $("download");
  link.href = take.url;
  link.download = fileName(take);
  link.removeAttribute("aria-disabled");
  showTimes(take);
  showHistory();
  draw();
}

function fileName(take) {
  const stem = take.name.toLowerCase().replace(/\.\w+$/, "").replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");
  return `${stem.slice(0, 50) || "sound"}-${take.seed}.${take.format}`;
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
  $("history").hidden = false;
  const ink = getComputedStyle(document.documentElement).getPropertyValue("--accent").trim();
  $("takes").replaceChildren(...takes.map((take) => {
    const item = document.createElement("li");
    const button = document.createElement("button");
    const canvas = document.createElement("canvas");
    const [name, facts] = [document.createElement("span"), document.createElement("span")];
    button.type = "button";
    button.setAttribute("aria-current", String(take === current));
    name.className = "name";
    name.textContent = take.name;
    facts.className = "quiet small";
    facts.textContent = `${take.seconds.toFixed(1)} s · RTF ${take.rtf.toFixed(2)} · #${take.seed}`;
    canvas.setAttribute("aria-hidden", "true");
    button.append(canvas, name, facts);
    button.addEventListener("click", () => {
      const place = takes.indexOf(take);
      show(take);
      $("takes").children[place].firstElementChild.focus();
      player.play();
    });
    item.append(button);
    requestAnimationFrame(() => drawWave(canvas, take.samples, ink));
    return item;
  }));
}

/* ---- what the user does ---- */

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  generate();
});
for (const id of Object.keys(UNITS)) $(id).addEventListener("input", wish);
$("seed").addEventListener("input", () => { $("fresh").checked = false; });
$("reset").addEventListener("click", () => voice && ownSettings());
$("file").addEventListener("change", (event) => event.target.files[0] && setPicture(event.target.files[0]));
$("remove").addEventListener("click", () => setPicture(null));
$("use-token").addEventListener("click", () => {
  keepToken($("token").value.trim());
  $("token-row").hidden = true;
  loadVoice();
});
$("ideas").append(...IDEAS.map((idea) => {
  const [item, button] = [document.createElement("li"), document.createElement("button")];
  button.type = "button";
  button.textContent = idea;
  button.addEventListener("click", () => {
    if (picture) setPicture(null);
    $("query").value = idea;
    if (!making) generate();
  });
  item.append(button);
  return item;
}));

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
  const keys = { " ": () => player.toggle(), l: () => player.ready && player.loop(), "/": () => $("query").focus() };
  const act = keys[event.key.toLowerCase()];
  if (!act) return;
  event.preventDefault();
  act();
});
new ResizeObserver(draw).observe($("screen"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => takes.length && showHistory());

loadVoice();
