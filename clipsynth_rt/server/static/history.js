// What was made, kept in this browser: settings and a picture of the waveform, not the sound itself,
// because the same settings give the same sound again.

const KEY = `clipsynth-history ${location.pathname}`;
const PEAKS = 72;

function peaks(samples) {
  return Array.from({ length: PEAKS }, (_, i) => {
    const part = samples.subarray(Math.floor((i * samples.length) / PEAKS), Math.ceil(((i + 1) * samples.length) / PEAKS));
    return Number(part.reduce((most, value) => Math.max(most, Math.abs(value)), 0).toFixed(3));
  });
}

/** Keep a history; pictures stay with the page, and so do sounds made from them. */
export function keep(takes) {
  const kept = takes.filter((take) => !take.isPicture).map((take) => {
    take.peaks ??= peaks(take.samples);
    const { name, options, seed, seconds, peaks: shape } = take;
    return { name, options, seed, seconds, peaks: shape };
  });
  try {
    localStorage.setItem(KEY, JSON.stringify(kept));
  } catch {
    // a browser that keeps nothing, or has no room: the page works without
  }
}

/** Return what was kept, at most some; nothing where it cannot be read. */
export function recall(most) {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? "[]").slice(0, most)
      .filter(({ name, options, seconds, peaks: shape }) => name && options?.query && seconds > 0 && shape?.length)
      .map((take) => ({ ...take, format: take.options.format, samples: Float32Array.from(take.peaks) }));
  } catch {
    return [];
  }
}
