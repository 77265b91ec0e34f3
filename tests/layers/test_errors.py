"""Wrong use raises what torch raises: the same type and the same words."""

import re

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from tests.support.inputs import OURS, TORCHS

Z = torch.zeros


def packed(I=3):
    return pack_padded_sequence(Z(5, 2, I), torch.tensor([5, 3]))


CONSTRUCTION = [
    ({"dropout": 1.5}, "number in range"),
    ({"dropout": True}, "number in range"),
    ({"dropout": -0.1}, "number in range"),
    ({"bias": 1}, "bias should be of type bool"),
    ({"batch_first": 0}, "batch_first should be of type bool"),
    ({"num_layers": 0}, "num_layers"),
    ({"input_size": 3.0}, "input_size should be of type int"),
    ({"input_size": 0}, "greater than zero"),
    ({"hidden_size": -1}, "greater than zero"),
    ({"hidden_size": np.int64(4)}, "got: int64"),
    ({"hidden_size": "4"}, "got: str"),
]
LSTM_CONSTRUCTION = [
    ({"proj_size": -1}, "positive integer or zero"),
    ({"proj_size": 4}, "smaller than hidden_size"),
]
FORWARD = [
    lambda m: m(Z(3)),
    lambda m: m(Z(2, 2, 2, 3)),
    lambda m: m(Z(5, 2, 7)),
    lambda m: m(Z(5, 7)),
    lambda m: m(Z(5, 2, 3).double()),
    lambda m: m(Z(0, 2, 3)),
]
GRU_FORWARD = [
    lambda m: m(packed(7)),
    lambda m: m(Z(5, 2, 3), Z(1, 3, 4)),
    lambda m: m(Z(5, 2, 3), Z(1, 2, 5)),
    lambda m: m(Z(5, 2, 3), Z(2, 2, 4)),
    lambda m: m(Z(5, 2, 3), Z(2, 4)),
    lambda m: m(Z(5, 3), Z(1, 1, 4)),
    lambda m: m(Z(5, 3), Z(2, 4)),
    lambda m: m(packed(), Z(1, 3, 4)),
]
LSTM_FORWARD = [
    lambda m: m(Z(5, 2, 3), (Z(1, 3, 4), Z(1, 2, 4))),
    lambda m: m(Z(5, 2, 3), (Z(1, 2, 4), Z(1, 3, 4))),
    lambda m: m(Z(5, 2, 3), (Z(2, 4), Z(2, 4))),
    lambda m: m(Z(5, 3), (Z(1, 1, 4), Z(1, 1, 4))),
]
CELL_FORWARD = [
    lambda m, h: m(Z(1, 2, 3)),
    lambda m, h: m(Z(2, 7)),
    lambda m, h: m(Z(7)),
    lambda m, h: m(Z(2, 3), h(Z(2, 1, 4))),
    lambda m, h: m(Z(2, 3), h(Z(2, 5))),
    lambda m, h: m(Z(2, 3), h(Z(3, 4))),
    lambda m, h: m(Z(2, 3), h(Z(1, 4))),  # no broadcasting of the batch
    lambda m, h: m(Z(3), h(Z(5))),
]


UP_TO_2_8 = re.compile(r"input must have the type (\S+), got type (\S+)")
FROM_2_9 = (
    r"RNN input dtype (\2) does not match weight dtype (\1). Convert input: input.to(\1), or convert model:"
    r" model.to(\2)"
)


def outcome(action):
    with pytest.raises(Exception) as caught:
        action()
    return type(caught.value), UP_TO_2_8.sub(FROM_2_9, str(caught.value))


def refuses(cls, arguments, words):
    try:
        cls(**arguments)
    except (TypeError, ValueError) as error:
        return words in str(error)
    return False


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
@pytest.mark.parametrize(("arguments", "words"), CONSTRUCTION)
def test_construction_errors_are_torchs(name, arguments, words):
    arguments = {"input_size": 3, "hidden_size": 4} | arguments
    if not refuses(TORCHS[name], arguments, words):
        pytest.skip("this release of torch does not check it, and ours leaves construction to torch")
    assert outcome(lambda: OURS[name](**arguments)) == outcome(lambda: TORCHS[name](**arguments))


@pytest.mark.parametrize(("arguments", "words"), LSTM_CONSTRUCTION)
def test_projection_errors_are_torchs(arguments, words):
    ours = outcome(lambda: OURS["LSTM"](3, 4, **arguments))
    assert ours == outcome(lambda: TORCHS["LSTM"](3, 4, **arguments))
    assert words in ours[1]


def test_a_gru_with_a_projection_is_refused_in_torchs_words():
    assert outcome(lambda: OURS["GRU"](3, 4, proj_size=2)) == outcome(
        lambda: TORCHS["GRU"](3, 4, proj_size=2)
    )


@pytest.mark.parametrize("name", ["GRU", "LSTM"])
def test_dropout_that_has_no_place_warns_in_torchs_words(name):
    messages = []
    for kind in (OURS, TORCHS):
        with pytest.warns(UserWarning, match="non-zero dropout expects num_layers greater than 1") as caught:
            kind[name](3, 4, dropout=0.3)
        messages.append(str(caught[0].message))
    assert messages[0] == messages[1]


@pytest.mark.parametrize(
    ("name", "call"),
    [("GRU", call) for call in FORWARD + GRU_FORWARD] + [("LSTM", call) for call in FORWARD + LSTM_FORWARD],
)
def test_forward_errors_are_torchs(name, call):
    ours, theirs = (kind[name](3, 4) for kind in (OURS, TORCHS))
    assert outcome(lambda: call(ours)) == outcome(lambda: call(theirs))


@pytest.mark.parametrize("name", ["GRUCell", "LSTMCell"])
@pytest.mark.parametrize("call", CELL_FORWARD)
def test_cell_errors_are_torchs(name, call):
    ours, theirs = (kind[name](3, 4) for kind in (OURS, TORCHS))
    state = (lambda h: h) if name == "GRUCell" else (lambda h: (h, h))
    assert outcome(lambda: call(ours, state)) == outcome(lambda: call(theirs, state))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        # torch's packed LSTM checks nothing: "The size of tensor a (3) must match the size of tensor b"
        (
            lambda m: m(packed(), (Z(1, 3, 4), Z(1, 2, 4))),
            r"Expected hidden\[0\] size \(1, 2, 4\), got \[1, 3, 4\]",
        ),
        (lambda m: m(packed(7)), r"input.size\(-1\) must be equal to input_size. Expected 3, got 7"),
        (
            lambda m: m(Z(5, 2, 3), (Z(1, 2, 4).double(), Z(1, 2, 4))),
            "hidden and input must have the same dtype",
        ),
        (lambda m: m(Z(5, 2, 3), (Z(1, 2, 4), Z(1, 2, 4, device="meta"))), "not at the same device"),
        (lambda m: m(Z(5, 2, 3, device="meta")), "Input and parameter tensors are not at the same device"),
    ],
)
def test_where_torch_leaks_an_internal_error_ours_names_the_argument(call, message):
    with pytest.raises((RuntimeError, ValueError), match=message):
        call(OURS["LSTM"](3, 4))


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64])
def test_a_state_of_another_dtype_is_an_error_of_torchs_type(name, dtype):
    leading = () if name.endswith("Cell") else (1,)
    h = Z(*leading, 2, 4)
    state = h.to(dtype) if name.startswith("GRU") else (h.to(dtype), h)
    input = Z(2, 3) if name.endswith("Cell") else Z(5, 2, 3)
    ours, theirs = (outcome(lambda kind=kind: kind[name](3, 4)(input, state)) for kind in (OURS, TORCHS))
    assert ours[0] is theirs[0]
    assert ours[1] == f"hidden and input must have the same dtype, got {dtype} and torch.float32"


@pytest.mark.parametrize("name", OURS)
def test_float64_under_autocast_is_an_error_of_torchs_type(name):
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = (
            outcome(lambda kind=kind: kind[name](3, 4)(Z(2, 3).double())) for kind in (OURS, TORCHS)
        )
    assert ours[0] is theirs[0]
    assert "same dtype under autocast too" in ours[1]


def test_a_cell_takes_a_state_with_the_dimensions_of_its_input():
    with pytest.raises(RuntimeError, match="For unbatched 1-D input, hidden should also be 1-D but got 2-D"):
        OURS["GRUCell"](3, 4)(Z(3), Z(1, 4))
    with pytest.raises(RuntimeError, match=r"For batched 2-D input, hx\[0\] should also be 2-D but got 1-D"):
        OURS["LSTMCell"](3, 4)(Z(2, 3), (Z(4), Z(4)))
