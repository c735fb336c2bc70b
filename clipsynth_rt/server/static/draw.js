// Pictures of sound on canvases, and their axes.

import { toMel } from "./mel.js";

// waypoints from black through violet and coral to cream, equally spaced in lightness
const RAMP = [[13, 10, 22], [45, 17, 85], [114, 31, 129], [183, 55, 121], [241, 96, 93], [254, 159, 109], [252, 253, 191]];

function colour(x) {
  const at = Math.min(0.9999, Math.max(0, x)) * (RAMP.length - 1);
  const i = Math.floor(at);
  return RAMP[i].map((value, c) => value + (at - i) * (RAMP[i + 1][c] - value));
}

/** Fit a canvas' pixels to its box on the screen, and return its context. */
function prepare(canvas) {
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * scale));
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * scale));
  return canvas.getContext("2d");
}

/** Draw a log-mel spectrogram, low notes at the bottom. */
export function drawMel(canvas, mel) {
  const context = prepare(canvas);
  const picture = new ImageData(mel.frames, mel.bins);
  const top = mel.values.reduce((most, value) => Math.max(most, value), mel.floor + 1);
  for (let m = 0; m < mel.bins; m++) {
    for (let f = 0; f < mel.frames; f++) {
      const level = (mel.values[m * mel.frames + f] - mel.floor) / (top - mel.floor);
      const at = 4 * ((mel.bins - 1 - m) * mel.frames + f);
      picture.data.set([...colour(level), 255], at);
    }
  }
  const small = document.createElement("canvas");
  small.width = mel.frames;
  small.height = mel.bins;
  small.getContext("2d").putImageData(picture, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

/** Draw a waveform: in each column its peak, faintly, and its RMS. */
export function drawWave(canvas, samples, ink) {
  const context = prepare(canvas);
  const { width, height } = canvas;
  const gap = Math.max(2, Math.round(2.5 * (window.devicePixelRatio || 1)));
  const columns = Math.floor(width / gap);
  const top = samples.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-4);
  const bar = (column, level, alpha) => {
    const tall = Math.max(gap * 0.4, (level / top) * height * 0.92);
    context.globalAlpha = alpha;
    context.beginPath();
    context.roundRect(column * gap, (height - tall) / 2, gap * 0.6, tall, gap * 0.3);
    context.fill();
  };
  context.clearRect(0, 0, width, height);
  context.fillStyle = ink;
  for (let column = 0; column < columns; column++) {
    const from = Math.floor((column * samples.length) / columns);
    const to = Math.max(from + 1, Math.floor(((column + 1) * samples.length) / columns));
    let [peak, power] = [0, 0];
    for (let i = from; i < to; i++) {
      peak = Math.max(peak, Math.abs(samples[i]));
      power += samples[i] ** 2;
    }
    bar(column, peak, 0.4);
    bar(column, Math.sqrt(power / (to - from)), 1);
  }
}

const HERTZ = [125, 250, 500, 1000, 2000, 4000, 8000, 16000];
const STEPS_S = [0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10];

function tick(text, side, share) {
  const label = document.createElement("span");
  label.textContent = text;
  label.style[side] = `${100 * share}%`;
  return label;
}

/** Label a mel spectrogram's frequencies, on the mel scale of its rows. */
export function drawHertz(axis, spec) {
  const [low, high] = [toMel(spec.f_min_hz), toMel(spec.f_max_hz)];
  let last = 0;
  const ticks = [];
  for (const hz of HERTZ) {
    const share = (toMel(hz) - low) / (high - low);
    if (share < last + 0.07 || share > 0.97) continue; // room for the labels
    last = share;
    ticks.push(tick(hz >= 1000 ? `${hz / 1000} kHz` : `${hz} Hz`, "bottom", share));
  }
  axis.replaceChildren(...ticks);
}

/** Label the seconds of a sound, at most eight of them. */
export function drawSeconds(axis, seconds) {
  const step = STEPS_S.find((one) => seconds / one <= 8) ?? 20;
  const count = Math.floor((0.97 * seconds) / step);
  axis.replaceChildren(...Array.from({ length: count }, (_, i) => {
    const at = (i + 1) * step;
    return tick(`${Number(at.toFixed(2))} s`, "left", at / seconds);
  }));
}
