"""One thread: tiny tensors gain nothing from more, and waiting threads take the machine's time."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def single_thread():
    torch.set_num_threads(1)
