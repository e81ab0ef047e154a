"""What every test starts from."""

import pytest
import torch


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Whatever ran before, and in whichever process."""
    torch.manual_seed(0)
