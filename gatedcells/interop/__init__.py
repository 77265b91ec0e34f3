"""Exchange of weights and models with other libraries: Keras, ONNX, Flax, Equinox, Haste, cuDNN, torch
itself.

A conversion keeps the function or raises `LossyConversion` with the reason. Each library is imported when it
is used::

    from gatedcells import interop

    keras_layer = interop.keras.to_layer(gru)
    interop.onnx.export(gru, "gru.onnx")
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
