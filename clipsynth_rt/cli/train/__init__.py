"""``clipsynth-rt train``."""
