"""Translating a trained model to ONNX, its preprocessing inside."""

import json

import torch
from torch import nn

from src.mnist.dataset import SIDE
from src.reader.export.onnx_classifier import INPUT, LOGITS, SCORE
from src.reader.head.outlier_head import OutlierHead, logits_and_features
from src.resnet.inference import to_input
from src.resnet.model_file import METADATA_KEY
from src.resnet.network import as_convolutions, trim

OPSET, IR_VERSION = 18, 8  # of 2022: runtimes of 2023 open it


class WholeModel(nn.Module):
    """From images (N, 1, 28, 28) uint8 as MNIST has them to logits (N, C) and outlier scores (N,), float32."""

    def __init__(self, model: nn.Module, head: OutlierHead, image_size: int) -> None:
        super().__init__()
        self.model, self.head, self.image_size = model, head, image_size

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, features = logits_and_features(self.model, to_input(images, self.image_size))
        return logits, self.head(features)


def encode_onnx(model: nn.Module, head: OutlierHead, metadata: dict) -> bytes:
    """Encode ``model`` with its preprocessing as ONNX: the same bytes for the same weights and metadata.

    Its input is ``images`` (N, 1, 28, 28) uint8. Its outputs are ``logits`` (N, C) float32 and ``outlier_score`` (N,)
    float32, above 0 for what is unlike any digit. N is free.

    Args:
        model, head: in evaluation mode, on the CPU.
        metadata: as `load_model` returns it; it goes in as JSON under the key that the model's own file has it under.
    """
    trimmed = as_convolutions(trim(model, metadata["image_size"]))  # two fifths of the weights, the same answers
    program = torch.onnx.export(
        WholeModel(trimmed, head, metadata["image_size"]).eval(),
        (torch.zeros(2, 1, SIDE, SIDE, dtype=torch.uint8),),  # 2, because torch.export takes a size of 1 for fixed
        input_names=[INPUT],
        output_names=[LOGITS, SCORE],
        dynamic_shapes=({0: "N"},),
        opset_version=OPSET,
        verbose=False,
    )
    assert program is not None  # it is for those exporters that write a file
    proto = program.model_proto
    proto.ir_version = IR_VERSION
    graph = proto.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        part.ClearField("metadata_props")  # stack traces, with the paths of this machine
    proto.metadata_props.add(key=METADATA_KEY, value=json.dumps(metadata, sort_keys=True))
    return proto.SerializeToString(deterministic=True)
def as_convolutions(trimmed: nn.Module) -> nn.Module:
    """Copy ``trimmed`` with a plain convolution, of the taps that are left, in place of each `TrimmedConv2d`.

    The same answers, from operators that every runtime has.
    """
    model = copy.deepcopy(trimmed)
    for name, module in trimmed.named_modules():
        if isinstance(module, TrimmedConv2d):
            channels_out, channels_in, taps, _ = module.weight.shape
            conv = nn.Conv2d(channels_in, channels_out, taps, module.stride, padding=1 - module.taps.start, bias=False)
            conv.weight = nn.Parameter(module.weight.detach().clone())
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, conv)
    return model


