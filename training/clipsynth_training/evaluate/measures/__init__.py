"""Measures of sounds, with intervals."""
