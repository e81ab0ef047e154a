"""A table of words: the mean of what it knows, in memory that suits the kernel."""

import pytest
import torch

from selfsup.models import build_encoder
from selfsup.models.word_table import WordTable, flat, new_table


def test_a_text_is_the_mean_of_its_known_words() -> None:
    table = WordTable(3, 6, [0, 2])
    table.leave_out(torch.tensor([False, True, False, False, False, False]))
    ids = torch.tensor([[2, 3, 1, 4, 0, 0], [2, 1, 1, 0, 0, 0], [5, 5, 5, 3, 0, 0]])
    v = table.vectors
    expected = torch.stack([(v[3] + v[4]) / 2, torch.zeros(3), (3 * v[5] + v[3]) / 4])
    torch.testing.assert_close(table(ids), expected)
    assert bool((v[:3] == 0).all())
    assert float(v[3:].detach().abs().max()) <= 0.5 / 3
    table(ids).sum().backward()
    assert v.grad is not None
    assert v.grad.abs().sum(dim=1).tolist() == pytest.approx([0, 0, 0, 3 / 2 + 3 / 4, 3 / 2, 9 / 4])


@pytest.mark.parametrize("width", [1, 16, 20])
def test_rows_of_tables_are_padded_and_aligned(width: int) -> None:
    table = new_table(5, width)
    assert table.shape == (5, width)
    assert (table.stride(), table.data_ptr() % 64) == ((-(-width // 16) * 16, 1), 0)
    table[4, width - 1] = 7
    assert flat(table).shape == (5 * table.stride(0),)
    assert flat(table)[4 * table.stride(0) + width - 1] == 7
    with pytest.raises(ValueError, match="made by new_table"):
        flat(torch.zeros(5, 20))


def test_it_is_built_by_its_name_and_comes_back_from_its_state() -> None:
    text = {"length": 9, "pad": 0, "start": 2, "end": 3}
    one = build_encoder("words_37", channels=11, image_size=0, text=text)
    assert one.width == 37
    assert one.spec == {"name": "words_37", "channels": 11, "image_size": 0, "text": text}
    assert isinstance(one, WordTable)
    assert one.known.tolist() == [False, True, False, False, *[True] * 7]
    two = build_encoder(**one.spec)
    two.load_state_dict(one.state_dict())
    ids = torch.randint(11, (4, 9))
    assert torch.equal(one(ids), two(ids))
    for name in ("words_0", "words_x", "words_"):
        with pytest.raises(ValueError, match="no encoder"):
            build_encoder(name, channels=11, image_size=0, text=text)
