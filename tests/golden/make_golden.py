"""Rewrite the stored outputs of the tiny bundle: ``python tests/golden/make_golden.py``.

Run it only where a change of the sound is meant, and commit what it writes on its own. The input
noise is stored too, so that a change of the noise and a change of the arithmetic show apart.
"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

import numpy as np

from clipsynth_rt import Synthesizer
from clipsynth_rt.synthesis.schedule import gaussian_noise

HERE = Path(__file__).parent
GOLDEN = HERE / "tiny.npz"
QUERIES = ("drum", "piano")
SEEDS = (11, 12)
NUM_FRAMES = 16
CASES = {
    "ddim": {"num_steps": 4, "guidance_scale": 2.0},
    "unguided": {"num_steps": 4, "guidance_scale": 1.0},
    "one_step": {"num_steps": 1, "guidance_scale": 2.0},
    "ancestral": {"num_steps": 4, "guidance_scale": 2.0, "eta": 1.0},
    "dpmpp_2m": {"num_steps": 4, "guidance_scale": 2.0, "sampler": "dpmpp_2m"},
}


def stored_noise() -> np.ndarray:
    """Return the noise that every case starts from, float32 [2, 8, 16]."""
    return np.stack([gaussian_noise(seed, NUM_FRAMES, 8) for seed in SEEDS])


def compute(bundle: Path, noise: np.ndarray, threads: int = 1) -> dict[str, np.ndarray]:
    """Return every case's mels and the first one's waveforms, from ``noise``."""
    synthesizer = Synthesizer.from_bundle(bundle, "cpu", threads=threads)
    condition = synthesizer.encode_text(QUERIES)
    results = {"condition": condition}
    for name, options in CASES.items():
        results[name] = synthesizer.sample(condition, SEEDS, NUM_FRAMES, noise=noise, **options)
    results["waveform"] = synthesizer.vocode(results["ddim"])
    return results


def main() -> None:
    """Build the tiny bundle, run every case, and store it."""
    path = HERE.parent / "make_tiny_bundle.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    noise = stored_noise()
    with tempfile.TemporaryDirectory() as folder:
        bundle = script.make_tiny_bundle(folder)
        np.savez_compressed(GOLDEN, noise=noise, **compute(bundle, noise))


if __name__ == "__main__":
    main()
