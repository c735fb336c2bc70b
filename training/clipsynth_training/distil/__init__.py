"""Distillation of the denoiser into a few calls."""
