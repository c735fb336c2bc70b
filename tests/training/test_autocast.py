import pytest
import torch

from clipsynth_training.run import autocast


def test_bfloat16_is_used_where_the_processor_has_it(monkeypatch):
    a = torch.ones(2, 2)
    monkeypatch.setattr(autocast, "cpu_has_bfloat16", lambda: True)
    with autocast.mixed_precision("cpu"):
        assert (a @ a).dtype == torch.bfloat16
    with autocast.mixed_precision("cpu", enabled=False):
        assert (a @ a).dtype == torch.float32


@pytest.mark.usefixtures("in_float32")
def test_a_processor_without_bfloat16_stays_in_float32():
    a = torch.ones(2, 2)
    with autocast.mixed_precision("cpu"):
        assert (a @ a).dtype == torch.float32


def test_the_answer_for_this_processor_is_known():
    assert autocast.cpu_has_bfloat16() in (True, False)
