"""One autograd rule per operator, the same for every backend. Importing this registers them."""

from gatedcells._autograd.gru import GRUSequence as GRUSequence
from gatedcells._autograd.lstm import LSTMSequence as LSTMSequence
from gatedcells._autograd.variants import variant_sequence as variant_sequence
