"""Listening tests and their scores."""
