"""Vocoders and their training."""
