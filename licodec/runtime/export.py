"""The ONNX graphs of `lite`, from its torch modules: `python -m licodec.runtime.export [FOLDER]`.

The graphs hold no weights: what a convolution multiplies with are initializers whose data the
weights file gives under the same names, everything else of the weights is an input. So the graphs
depend on the configuration alone and serve all weights of it, nothing is stored twice, and no
optimiser can fold the multiplier of an integer network into its weights, which would round
them (ONNX Runtime does that to constants). `onnx.py` runs them.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from licodec.files import beside
from licodec.models.lite import Lite, LiteConfig, join_cells, split_cells
from licodec.models.lite_entropy import MEAN_UNIT, PASSES, row_of
from licodec.runtime.torch import geometry_of
from licodec.weights import paths

if TYPE_CHECKING:
    import onnx

INDEX = "graphs.json"
OPSET = 17
SIDE = 2 * Lite.stride  # of the picture that the graphs are traced with; sides are free afterwards


@dataclass(frozen=True)
class Graph:
    """A part of the model: a function of it, and the names and examples of what goes in and comes out."""

    function: Callable[..., Tensor | tuple[Tensor, ...]]
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]


class _Part(nn.Module):
    def __init__(self, model: Lite, function: Callable[..., Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.function(*inputs)


def graphs(model: Lite) -> dict[str, Graph]:
    """The parts of a prepared model that coding runs, by name."""
    entropy = model.entropy
    y = torch.zeros(1, model.latent_channels, SIDE // model.latent_stride, SIDE // model.latent_stride)
    z = torch.zeros(1, model.hyper_channels, SIDE // model.hyper_stride, SIDE // model.hyper_stride)
    quality = torch.ones(1, dtype=torch.float64)
    integers = entropy.tables(quality)
    stream = entropy.begin(z, integers.start)
    parts = split_cells(y)

    def tables(quality: Tensor) -> tuple[Tensor, ...]:
        of = entropy.tables(quality)
        return of.start, of.row, row_of(of.z_row).flatten().int(), *of.factors

    def head(step: int, stream: Tensor, row: Tensor, factor: Tensor) -> tuple[Tensor, ...]:
        mean, rows = entropy.head(step, stream, factor, row)
        return stream, mean * MEAN_UNIT, rows.int()

    def begin(z: Tensor, start: Tensor, row: Tensor, factor: Tensor) -> tuple[Tensor, ...]:
        return head(0, entropy.begin(z, start), row, factor)

    def after(step: int) -> Callable[..., tuple[Tensor, ...]]:
        def update(stream: Tensor, part: Tensor, row: Tensor, factor: Tensor) -> tuple[Tensor, ...]:
            return head(step, entropy.update(step - 1, stream, part), row, factor)

        return update

    of_quality = {"row": integers.row, "factor": integers.factors[0]}
    coded = tuple(f"part{step}" for step in range(PASSES))
    x = torch.zeros(1, 3, SIDE, SIDE)
    found = {
        "analysis": Graph(model.analyse, {"x": x, "quality": quality}, ("y",)),
        "hyper": Graph(
            lambda y, quality: model.hyper_analyse(y, quality).round(), {"y": y, "quality": quality}, ("z",)
        ),
        "tables": Graph(
            tables, {"quality": quality}, ("start", "row", "z_rows", *(f"factor{step}" for step in range(PASSES)))
        ),
        "split": Graph(lambda y: tuple(split_cells(y)), {"y": y}, coded),
        "step0": Graph(begin, {"z": z, "start": integers.start, **of_quality}, ("stream", "mean", "rows")),
        "join": Graph(lambda *parts: join_cells(list(parts)), dict(zip(coded, parts, strict=True)), ("y",)),
        "synthesis": Graph(model.synthesise, {"y": y, "quality": quality}, ("x",)),
    }
    for step in range(1, PASSES):
        inputs = {"before": stream, "part": parts[0], **of_quality}
        found[f"step{step}"] = Graph(after(step), inputs, ("stream", "mean", "rows"))
    return found


def _convert(model: Lite, graph: Graph, path: Path) -> dict[str, list[str]]:
    """Write a graph; returns the names of its weights, as `_weights_outside` does."""
    import onnx

    free = {2: "height", 3: "width"}
    maps = [name for name, value in graph.inputs.items() if value.ndim == 4 and name not in ("start", "row", "factor")]
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, of what is constant here
        raw = Path(folder) / "graph.onnx"
        torch.onnx.export(
            _Part(model, graph.function).eval(),
            tuple(graph.inputs.values()),
            str(raw),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_axes={name: {axis: f"{name}_{side}" for axis, side in free.items()} for name in maps},
            opset_version=OPSET,
            do_constant_folding=False,
            dynamo=False,
        )
        proto = onnx.load(raw)
    onnx.checker.check_model(proto)
    weights = _weights_outside(proto)
    proto = _folded(proto)
    _empty(proto, weights["kernels"])
    with beside(path) as temporary:
        temporary.write_bytes(proto.SerializeToString(deterministic=True))
    return weights


def _weights_outside(proto: onnx.ModelProto) -> dict[str, list[str]]:
    """Name the weights of a graph as the model does. Returns which are its kernels, and which are now its inputs."""
    import onnx

    graph = proto.graph
    renamed = {tensor.name: tensor.name.removeprefix("model.") for tensor in graph.initializer}
    for node in graph.node:
        node.doc_string = ""
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
    kernels = {name for node in graph.node if node.op_type == "Conv" for name in node.input[1:]}
    weights: dict[str, list[str]] = {"kernels": [], "inputs": []}
    for tensor in list(graph.initializer):
        tensor.name = name = renamed[tensor.name]
        weights["kernels" if name in kernels else "inputs"].append(name)
        if name not in kernels:
            graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims)))
            graph.initializer.remove(tensor)
    return weights


def _folded(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with what is constant computed, half its nodes: otherwise every session would do that."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC  # standard operators
        options.optimized_model_filepath = f"{folder}/graph.onnx"
        onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        folded = onnx.load(options.optimized_model_filepath)
    for other in [opset for opset in folded.opset_import if opset.domain]:
        folded.opset_import.remove(other)
    onnx.checker.check_model(folded)
    return folded


def _empty(proto: onnx.ModelProto, kernels: list[str]) -> None:
    """Take the data of the kernels out of a graph."""
    import onnx

    for tensor in proto.graph.initializer:
        if tensor.name in kernels:
            empty = onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            empty.data_location = onnx.TensorProto.EXTERNAL
            empty.external_data.add(key="location", value="weights")
            tensor.CopyFrom(empty)


def _make_distinct(model: Lite) -> None:
    """Give all tensors different values: torch's exporter keeps one of equal ones, and they are yet to be loaded."""
    generator = torch.Generator().manual_seed(0)
    for tensor in model.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * 100)


def export(folder: Path, config: LiteConfig | None = None) -> None:
    """Write the graphs of a configuration, and the index that says what they are of."""
    config = config or LiteConfig()
    model = Lite.for_coding(config).prepare()
    _make_distinct(model)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: _convert(model, graph, folder / f"{name}.onnx") for name, graph in graphs(model).items()}
    used = {name for lists in weights.values() for names in lists.values() for name in names}
    if used != set(model.state_dict()):
        raise RuntimeError(f"not every tensor is in a graph: {sorted(used ^ set(model.state_dict()))}")
    index = {"model": Lite.name, "config": asdict(config), "facts": asdict(geometry_of(model)), "weights": weights}
    with beside(folder / INDEX) as temporary:
        temporary.write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    export(Path(sys.argv[1]) if len(sys.argv) > 1 else paths.BUNDLED / "lite-3")
