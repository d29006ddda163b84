"""What runs a model for the codec: the protocol, and how a model that fulfils it is opened.

`torch.py` runs every model, on CPU and CUDA; `onnx.py` runs `lite` on the CPU without torch.
Nothing here imports torch before it is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from licodec.runtime.protocol import Context, Geometry, Model
from licodec.runtime.settings import threads, use_threads

if TYPE_CHECKING:
    from licodec.weights.file import Weights

__all__ = ["Context", "Geometry", "Model", "open_model", "threads", "use_threads"]


def open_model(weights: Weights, device: str = "auto", precision: str = "float32") -> Model:
    """The model of a weights file on a device.

    `lite` runs in ONNX Runtime on the CPU, also where there is a GPU, unless `cuda` or another precision is asked for:
    loading torch takes longer than coding most pictures. Other models, and a `lite` of a
    configuration that there are no graphs of, run in torch.

    Args:
        device: `auto`, `cpu` or `cuda[:N]`.
        precision: of g_a and g_s: `float32`, or `bf16` where the processor has it. What the entropy
            coder depends on is the same in both, so either decodes the other's files.

    Raises:
        UsageError: no such device, or no such precision on it.
        WeightsError: the weights do not fit their model.
        OutOfMemoryError: memory does not suffice.
    """
    if device in ("auto", "cpu") and precision == "float32":
        from licodec.runtime import onnx

        if folder := onnx.graphs_for(weights):
            return onnx.OnnxModel(weights, folder)
    from licodec.runtime.torch import TorchModel

    return TorchModel.load(weights, device, precision)
