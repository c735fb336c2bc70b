"""Signals that end a run: one is one, however many ways it comes."""

import signal

import pytest

from clipsynth_training.run import interruption
from clipsynth_training.run.interruption import StopSignals


def test_what_a_launcher_passes_on_is_the_same_signal():
    with StopSignals() as signals:
        # Ctrl-C from the terminal, and from torchrun, which got it too
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert signals.received == signal.SIGINT


def test_a_second_signal_acts_as_it_did_before(monkeypatch):
    monkeypatch.setattr(interruption, "SAME_S", 0.0)
    with StopSignals(), pytest.raises(KeyboardInterrupt):  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
