"""Procedural sound models, one family a module."""
