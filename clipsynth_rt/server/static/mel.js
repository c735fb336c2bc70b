// Log-mel spectrogram of a waveform, as the voice's own MelSpec says (Slaney's scale and norm).

/** In-place radix-2 FFT (Cooley and Tukey 1965); lengths are a power of two. */
function fft(re, im, cos, sin) {
  const n = re.length;
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [re[i], re[j]] = [re[j], re[i]];
      [im[i], im[j]] = [im[j], im[i]];
    }
  }
  for (let size = 2; size <= n; size <<= 1) {
    const half = size >> 1;
    const stride = n / size;
    for (let start = 0; start < n; start += size) {
      for (let k = 0; k < half; k++) {
        const a = start + k;
        const b = a + half;
        const c = cos[k * stride];
        const s = sin[k * stride];
        const x = re[b] * c + im[b] * s;
        const y = im[b] * c - re[b] * s;
        re[b] = re[a] - x;
        im[b] = im[a] - y;
        re[a] += x;
        im[a] += y;
      }
    }
  }
}

const LOG_STEP = Math.log(6.4) / 27;
export const toMel = (hz) => (hz < 1000 ? (3 * hz) / 200 : 15 + Math.log(hz / 1000) / LOG_STEP);
const toHz = (mel) => (mel < 15 ? (200 * mel) / 3 : 1000 * Math.exp((mel - 15) * LOG_STEP));

/** Triangular filters as lists of [FFT bin, weight]. */
function filters(spec) {
  const low = toMel(spec.f_min_hz);
  const step = (toMel(spec.f_max_hz) - low) / (spec.n_mels + 1);
  const edges = Array.from({ length: spec.n_mels + 2 }, (_, i) => toHz(low + i * step));
  const width = spec.sample_rate / spec.n_fft;
  return Array.from({ length: spec.n_mels }, (_, m) => {
    const [left, centre, right] = edges.slice(m, m + 3);
    const area = 2 / (right - left);
    const taps = [];
    for (let k = 0; k <= spec.n_fft / 2; k++) {
      const hz = k * width;
      const weight = Math.min((hz - left) / (centre - left), (right - hz) / (right - centre));
      if (weight > 0) taps.push([k, weight * area]);
    }
    return taps;
  });
}

/**
 * Log-mel values, a row a bin from the lowest.
 * @param {Float32Array} samples mono, at the spec's sample rate
 * @returns {{frames: number, bins: number, floor: number, values: Float32Array}}
 */
export function melSpectrogram(samples, spec) {
  const n = spec.n_fft;
  const bank = filters(spec);
  const frames = Math.max(1, Math.ceil(samples.length / spec.hop_length));
  const values = new Float32Array(frames * spec.n_mels);
  const pad = (n - spec.hop_length) / 2;
  const indent = (n - spec.win_length) / 2;
  const window = Float64Array.from({ length: n }, (_, i) =>
    i < indent || i >= n - indent ? 0 : 0.5 - 0.5 * Math.cos((2 * Math.PI * (i - indent)) / spec.win_length));
  const cos = Float64Array.from({ length: n / 2 }, (_, k) => Math.cos((2 * Math.PI * k) / n));
  const sin = Float64Array.from({ length: n / 2 }, (_, k) => Math.sin((2 * Math.PI * k) / n));
  const last = samples.length - 1;
  const magnitude = new Float64Array(n / 2 + 1);
  for (let frame = 0; frame < frames; frame++) {
    const re = new Float64Array(n);
    const im = new Float64Array(n);
    for (let i = 0; i < n; i++) {
      let at = Math.abs(frame * spec.hop_length + i - pad);
      if (at > last) at = Math.max(0, 2 * last - at);
      re[i] = samples[at] * window[i];
    }
    fft(re, im, cos, sin);
    for (let k = 0; k <= n / 2; k++) magnitude[k] = Math.hypot(re[k], im[k]) ** spec.power;
    for (let m = 0; m < spec.n_mels; m++) {
      let sum = 0;
      for (const [k, weight] of bank[m]) sum += weight * magnitude[k];
      values[m * frames + frame] = Math.log(Math.max(sum, spec.floor));
    }
  }
  return { frames, bins: spec.n_mels, floor: Math.log(spec.floor), values };
}
