"""``clipsynth-rt synth``."""
