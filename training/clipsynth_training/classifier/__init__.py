"""The classifier that judges the voice."""
