"""bfloat16 in the C++ kernels: products in pairs, or in float32 where no instruction takes pairs."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gatedcells_kernels.cpu import packing, sequence
from gatedcells_kernels.tape import Keep
from tests.kernels.test_cpu_sequences import drawn_resets, gru_tensors, lstm_tensors

SIZES = st.tuples(st.integers(2, 40), st.integers(1, 40), st.integers(0, 70), st.integers(1, 70))
LOW = torch.bfloat16


@pytest.fixture
def no_instruction(native, level):
    if native.multiplies_pairs:
        pytest.skip("its instruction adds pairs in an order of its own, and no weight is widened")


def in_pairs_and_widened(call):
    """What something returns with weights in pairs, and with weights in float32."""
    found = []
    for form in (packing.Form.PACKED, packing.Form.WIDENED):
        with (
            patch("gatedcells_kernels.cpu.gru.form_for", lambda *_, form=form: form),
            patch("gatedcells_kernels.cpu.lstm.form_for", lambda *_, form=form: form),
        ):
            found.append([t for t in call() if t.numel()])
    return found


def rows_and_steps(data, sizes):
    T, B, *_ = sizes
    lengths = data.draw(st.none() | st.lists(st.integers(0, T), min_size=B, max_size=B))
    return None if lengths is None else torch.tensor(lengths, dtype=torch.int64), drawn_resets(data, T, B)


@pytest.mark.usefixtures("no_instruction")
@settings(max_examples=40)
@given(sizes=SIZES, reverse=st.booleans(), reset_after=st.booleans(), data=st.data())
def test_a_gru_has_the_same_bits_whether_weights_are_widened(sizes, reverse, reset_after, data):
    tensors, rows = gru_tensors(*sizes, dtype=LOW), rows_and_steps(data, sizes)

    def call():
        states, tape = sequence.gru_forward(*tensors, *rows, reverse, reset_after, Keep.TAPE)
        read = states, states[-1], tensors[1], tensors[3], *rows, states, tape, reverse, reset_after
        return states, tape, *sequence.gru_backward(*read)

    in_pairs, widened = in_pairs_and_widened(call)
    assert all(torch.equal(a, b) for a, b in zip(in_pairs, widened, strict=True))


@pytest.mark.usefixtures("no_instruction")
@settings(max_examples=40)
@given(sizes=SIZES, P=st.integers(0, 20), reverse=st.booleans(), data=st.data())
def test_an_lstm_has_the_same_bits_whether_weights_are_widened(sizes, P, reverse, data):
    tensors, rows = lstm_tensors(*sizes, P=P, dtype=LOW), rows_and_steps(data, sizes)
    _, hidden, cell, _, weight_hh, _, _, weight_hr = tensors

    def call():
        states, last_cell, tape = sequence.lstm_forward(*tensors, *rows, reverse, Keep.TAPE)
        read = states, states[-1], last_cell, hidden, cell, weight_hh, weight_hr, *rows, states, tape, reverse
        return states, last_cell, tape, *sequence.lstm_backward(*read)

    in_pairs, widened = in_pairs_and_widened(call)
    assert all(torch.equal(a, b) for a, b in zip(in_pairs, widened, strict=True))


def test_weights_are_widened_only_where_no_instruction_takes_pairs(native, level):
    form = packing.form_for(native, 5, 64, LOW)
    assert form == (packing.Form.PACKED if level == "avx512_bf16" else packing.Form.WIDENED)
    assert packing.form_for(native, 5, 1, LOW) == packing.Form.PACKED
    assert packing.form_for(native, 5, 64, torch.float32) == packing.Form.PACKED
    assert packing.form_for(native, 1, 64, LOW) == packing.Form.AS_THEY_ARE
