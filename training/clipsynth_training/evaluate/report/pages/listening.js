"use strict";
const $ = (id) => document.getElementById(id);
const MUSHRA = TEST.kind === "mushra";
const answers = { kit: TEST.kit, kind: TEST.kind, listener: "", started: "", finished: "", trials: [] };
let trials = [], number = -1, trial = null, current = null, began = 0;

function shuffled(list) {
  const out = [...list], random = new Uint32Array(out.length);
  crypto.getRandomValues(random);
  for (let i = out.length - 1; i > 0; i--) {
    const j = random[i] % (i + 1);
    [out[i], out[j]] = [out[j], out[i]];
  }
  return out;
}

function make(tag, options = {}, ...children) {
  const { data = {}, aria = {}, ...rest } = options;
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, data);
  for (const [name, value] of Object.entries(aria)) element.setAttribute(`aria-${name}`, value);
  element.append(...children);
  return element;
}

function playButton(clip, label, key) {
  const button = make("button", { type: "button", className: "play", data: { clip } }, label);
  if (key) button.append(make("kbd", { aria: { hidden: "true" } }, key));
  if (key) button.setAttribute("aria-keyshortcuts", key);
  button.addEventListener("click", () => play(clip));
  return button;
}

function start(clip) {
  const audio = new Audio(`clips/${clip}.wav`);
  audio.preload = "auto";
  audio.loop = $("loop").checked;
  audio.addEventListener("error", () => {
    $("trouble").hidden = false;
    $("trouble").textContent = `clips/${clip}.wav cannot be played. Is the folder complete?`;
  });
  audio.addEventListener("ended", showState);
  audio.addEventListener("pause", showState);
  audio.addEventListener("play", showState);
  return audio;
}

function play(clip) {
  const from = current ? trial.audio[current] : null;
  const to = trial.audio[clip];
  // switching goes on where the other version is, as BS.1534 asks
  const at = from && from !== to && !from.paused ? from.currentTime : 0;
  if (from) from.pause();
  to.currentTime = MUSHRA ? at : 0;
  current = clip;
  trial.plays[clip] = (trial.plays[clip] || 0) + 1;
  to.play().catch(() => {});
  showState();
}

function pause() {
  if (!current) return;
  const audio = trial.audio[current];
  if (audio.paused) audio.play().catch(() => {});
  else audio.pause();
}

function showState() {
  const playing = current !== null && !trial.audio[current].paused;
  for (const button of document.querySelectorAll(".play")) {
    const live = button.dataset.clip === current && playing;
    button.classList.toggle("live", live);
    button.setAttribute("aria-pressed", String(live));
  }
  $("pause").textContent = playing || !current ? "Pause" : "Go on";
  $("pause").disabled = !current;
  showMissing();
}

function showMissing() {
  const unheard = trial.order.filter((clip) => !trial.plays[clip]).length;
  const open = trial.order.filter((clip) => !(clip in trial.scores)).length;
  let text = "";
  if (unheard) text = unheard === 1 ? "1 sound is not yet heard." : `${unheard} sounds are not yet heard.`;
  else if (open) text = MUSHRA ? `${open} ${open === 1 ? "is" : "are"} not yet rated.` : "Say which you prefer.";
  else if (MUSHRA && Math.max(...Object.values(trial.scores)) < 100)
    text = "One of them is the reference: give it 100.";
  $("missing").textContent = text;
  $("next").disabled = Boolean(text);
}

function mushra(where) {
  where.append(make("div", { className: "reference" },
    playButton(trial.reference, "Reference", "R"), "what all others are compared with"));
  const words = ["Bad", "Poor", "Fair", "Good", "Excellent"].map((word) => make("li", {}, word));
  where.append(make("div", { className: "scale", aria: { hidden: "true" } },
    make("span"), make("ol", {}, ...words), make("span")));
  trial.order.forEach((clip, i) => {
    const slider = make("input", { type: "range", min: 0, max: 100, value: 50, className: "untouched",
      data: { clip }, aria: { label: `Rating of version ${i + 1}, 0 bad to 100 excellent` } });
    const shown = make("output", {}, "–");
    const rate = () => {
      slider.className = "";
      trial.scores[clip] = Number(slider.value);
      shown.textContent = slider.value;
      showMissing();
    };
    slider.addEventListener("input", rate);
    slider.addEventListener("change", rate);
    where.append(make("div", { className: "row" }, playButton(clip, `Play ${i + 1}`, ""), slider, shown));
  });
}

function comparison(where) {
  const buttons = trial.order.map((clip, i) => playButton(clip, "AB"[i], ""));
  where.append(make("div", { className: "pair" }, ...buttons));
  const labels = ["A is better", "No preference", "B is better"];
  where.append(make("div", { className: "choice", role: "group" }, ...labels.map((label, i) => {
    const button = make("button", { type: "button", aria: { pressed: "false" } }, label);
    button.addEventListener("click", () => choose(i));
    return button;
  })));
}

function choose(place) {
  const [a, b] = trial.order;
  trial.scores = { [a]: 1 - place / 2, [b]: place / 2 };
  document.querySelectorAll(".choice button").forEach((button, i) =>
    button.setAttribute("aria-pressed", String(i === place)));
  showMissing();
}

function show() {
  const asked = trials[number];
  trial = { id: asked.id, reference: asked.reference, order: shuffled(asked.stimuli), scores: {}, plays: {}, audio: {} };
  current = null;
  began = performance.now();
  const clips = MUSHRA ? [trial.reference, ...trial.order] : trial.order;
  for (const clip of clips) trial.audio[clip] = start(clip);
  $("where").textContent = `${number + 1} of ${trials.length}`;
  $("progress").value = number;
  $("question").textContent = MUSHRA ? asked.name : TEST.question.replace("{name}", asked.name);
  $("stimuli").replaceChildren();
  (MUSHRA ? mushra : comparison)($("stimuli"));
  $("next").textContent = number + 1 < trials.length ? "Next" : "Finish";
  showState();
  $("question").focus();
}

function next() {
  if ($("next").disabled) return;
  Object.values(trial.audio).forEach((audio) => audio.pause());
  answers.trials.push({ trial: trial.id, order: trial.order, scores: trial.scores, plays: trial.plays,
    seconds: Math.round((performance.now() - began) / 100) / 10 });
  number += 1;
  if (number < trials.length) show();
  else finish();
}

function finish() {
  answers.finished = new Date().toISOString();
  $("trial").hidden = true;
  $("done").hidden = false;
  $("progress").value = trials.length;
  $("where").textContent = "Done";
  const name = answers.listener.replace(/[^\w-]+/g, "_") || "listener";
  $("save").download = `${TEST.kind}-${TEST.kit}-${name}.json`;
  $("save").href = URL.createObjectURL(new Blob([JSON.stringify(answers, null, 1)], { type: "application/json" }));
  $("save").addEventListener("click", () => window.removeEventListener("beforeunload", warn));
  $("save").focus();
}

function warn(event) {
  event.preventDefault();
}

$("begin").addEventListener("submit", (event) => {
  event.preventDefault();
  answers.listener = $("listener").value.trim();
  answers.started = new Date().toISOString();
  trials = shuffled(TEST.trials);
  number = 0;
  $("intro").hidden = true;
  $("trial").hidden = false;
  window.addEventListener("beforeunload", warn);
  show();
});
$("next").addEventListener("click", next);
$("pause").addEventListener("click", pause);
$("loop").addEventListener("change", () => {
  Object.values(trial.audio).forEach((audio) => { audio.loop = $("loop").checked; });
});
setInterval(() => {
  if (!current) return void ($("time").value = 0);
  const audio = trial.audio[current];
  $("time").value = audio.duration ? audio.currentTime / audio.duration : 0;
}, 60);

document.addEventListener("keydown", (event) => {
  if ($("trial").hidden || event.ctrlKey || event.altKey || event.metaKey) return;
  const key = event.key.toLowerCase();
  const onButton = event.target.tagName === "BUTTON" || event.target.type === "checkbox";
  const onSlider = event.target.type === "range";
  const place = MUSHRA ? Number(key) - 1 : "ab".indexOf(key);
  if (MUSHRA && key === "r") play(trial.reference);
  else if (key.length === 1 && trial.order[place]) {
    play(trial.order[place]);
    document.querySelector(`input[data-clip="${trial.order[place]}"]`)?.focus();
  } else if (key === " " && !onButton) pause();
  else if (key === "enter" && !onButton) next();
  else if (!MUSHRA && !onSlider && ["arrowleft", "arrowdown", "arrowright"].includes(key))
    choose(["arrowleft", "arrowdown", "arrowright"].indexOf(key));
  else return;
  event.preventDefault();
});
