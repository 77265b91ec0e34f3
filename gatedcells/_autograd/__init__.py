"""One autograd rule per operator, the same for every backend. Importing this registers them."""

from gatedcells._autograd import gru as gru
from gatedcells._autograd import lstm as lstm
