"""Weights and models to and from other libraries: torch, ONNX, Keras, Flax, Equinox, Haste and cuDNN.

A conversion preserves the function that is computed, or raises `LossyConversion` with the reason. Each
library is imported only when it is used::

    from gatedcells import interop

    keras_layer = interop.keras.to_layer(gru)
    interop.onnx.export(gru, "gru.onnx")

A conversion from a module copies the weights of a plain GRU or LSTM. It raises `LossyConversion` if the
module computes anything else (layer normalisation, zoneout, peepholes, a gate hook, learnt initial states,
``precision="bf16"``, an overridden forward) or is in training with a dropout that only gatedcells has, and
`TypeError` for any other module.
"""

from gatedcells.interop import cudnn as cudnn
from gatedcells.interop import equinox as equinox
from gatedcells.interop import flax as flax
from gatedcells.interop import gate_order as gate_order
from gatedcells.interop import haste as haste
from gatedcells.interop import keras as keras
from gatedcells.interop import onnx as onnx
from gatedcells.interop import torch_nn as torch_nn
from gatedcells.interop.cells import cells_of as cells_of
from gatedcells.interop.cells import layer_of as layer_of
from gatedcells.interop.weights import LossyConversion as LossyConversion
