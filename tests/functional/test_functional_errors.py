"""A wrong call of the pure functions is named in the user's words before anything runs."""

import pytest
import torch

from gatedcells import gru_sequence, gru_step, lstm_sequence, lstm_step


def gru(T=3, B=2, I=4, H=5, **changed):
    tensors = {
        "input": torch.zeros(T, B, I),
        "hidden": torch.zeros(B, H),
        "weight_ih": torch.zeros(3 * H, I),
        "weight_hh": torch.zeros(3 * H, H),
        "bias_ih": torch.zeros(3 * H),
        "bias_hh": torch.zeros(3 * H),
    }
    return tensors | changed


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        (
            {"input": torch.zeros(2, 4)},
            RuntimeError,
            r"input must be \[T, B, I\], got 2 dimensions: \[2, 4\]",
        ),
        ({"input": torch.zeros(0, 2, 4)}, RuntimeError, "sequence length to be larger than 0"),
        ({"hidden": torch.zeros(3, 5)}, RuntimeError, r"hidden must be \[B=2, H=5\], got \[3, 5\]"),
        ({"hidden": torch.zeros(1, 2, 5)}, RuntimeError, r"hidden must be \[B=2, H=5\], got \[1, 2, 5\]"),
        ({"weight_ih": torch.zeros(20, 4)}, RuntimeError, r"weight_ih must be .*15, I=4\], got \[20, 4\]"),
        ({"weight_ih": torch.zeros(15, 3)}, RuntimeError, r"weight_ih must be .*I=4\], got \[15, 3\]"),
        ({"weight_hh": torch.zeros(14, 5)}, RuntimeError, r"weight_hh must be .*15, H=5\], got \[14, 5\]"),
        ({"bias_hh": torch.zeros(5)}, RuntimeError, r"bias_hh must be .*15\], got \[5\]"),
        ({"hidden": torch.zeros(2, 5).double()}, RuntimeError, "hidden and input must have the same dtype"),
        ({"bias_ih": torch.zeros(15).half()}, RuntimeError, "bias_ih and input must have the same dtype"),
        (
            {"hidden": torch.zeros(2, 5, device="meta")},
            RuntimeError,
            "hidden and input must be on the same device",
        ),
        ({"lengths": torch.tensor([1, 2, 3])}, RuntimeError, r"lengths must be \[B=2\], got \[3\]"),
        ({"lengths": torch.tensor([1.0, 2.0])}, ValueError, "lengths must be int32 or int64"),
        ({"lengths": torch.tensor([1, 4])}, ValueError, r"lengths must lie in 0..T=3, got 1..4"),
        ({"lengths": torch.tensor([-1, 2])}, ValueError, r"lengths must lie in 0..T=3, got -1..2"),
        ({"backend": "cudnn"}, ValueError, "backend must be one of 'auto', .*'reference', got 'cudnn'"),
    ],
)
def test_gru_sequence_names_what_was_expected_and_given(changed, error, message):
    with pytest.raises(error, match=message):
        gru_sequence(**gru(**changed))


def test_lstm_sequence_names_the_state_that_does_not_fit():
    H, P = 4, 2
    weights = (torch.zeros(4 * H, 3), torch.zeros(4 * H, P), None, None, torch.zeros(P, H))
    x = torch.zeros(2, 1, 3)
    with pytest.raises(RuntimeError, match=r"hidden must be \[B=1, P=2\], got \[1, 4\]"):
        lstm_sequence(x, (torch.zeros(1, H), torch.zeros(1, H)), *weights)
    with pytest.raises(RuntimeError, match=r"cell must be \[B=1, H=4\], got \[1, 2\]"):
        lstm_sequence(x, (torch.zeros(1, P), torch.zeros(1, P)), *weights)
    with pytest.raises(RuntimeError, match=r"weight_hr must be \[P=2, H=4\], got \[3, 4\]"):
        lstm_sequence(x, (torch.zeros(1, P), torch.zeros(1, H)), *weights[:4], torch.zeros(3, 4))


def test_steps_take_one_batch_of_inputs():
    with pytest.raises(RuntimeError, match=r"input must be \[B, I\], got \[3, 2, 4\]"):
        gru_step(**gru())
    with pytest.raises(RuntimeError, match=r"input must be \[B, I\], got \[4\]"):
        lstm_step(
            torch.zeros(4), (torch.zeros(1, 5), torch.zeros(1, 5)), torch.zeros(20, 4), torch.zeros(20, 5)
        )
