"""ResNet (He et al. 2015, https://arxiv.org/abs/1512.03385) for one channel and any classes, whole and trimmed.

It halves the map five times: of a 28-pixel image the third stage sees 2 × 2 and the last one 1 × 1. There, with
a padding of 1, most taps of a 3 × 3 kernel multiply zeros, and eight in nine weights of the last stage never get a
gradient. A trimmed network leaves both out: same outputs, same gradients, a fraction of the work.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import get_model

LARGEST_MAP = 2  # pixels: from 3 on a product over all pairs of positions does more work than the convolution


def build_model(network: str, num_classes: int) -> nn.Module:
    """Build torchvision's ``network`` with ``conv1`` for one channel and ``fc`` for ``num_classes``, weights random.

    Input (N, 1, H, W) float32, output logits (N, num_classes).
    """
    model = get_model(network)
    model.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    model.fc = nn.Linear(model.fc.in_features, num_classes)  # pyrefly: ignore[bad-argument-type, missing-attribute]
    return model


class TrimmedConv2d(nn.Module):
    """A 3 × 3 convolution with padding 1, for one map of at most 2 × 2, as one matrix product.

    Input (N, C_in, H, W), output (N, C_out, H / stride, W / stride). Output position o sees input position i through
    tap i + 1 - stride · o. On a map this small all of these taps lie inside the kernel, so that a matrix over all pairs
    of positions holds no zeros. Its cases, written for one row of the map, with a kernel row (k0 k1 k2):

    - side 1, stride 1 or 2: one output, (k1). Taps 1 to 1 are kept.
    - side 2, stride 1: two outputs; the first sees the inputs through (k1 k2), the second through (k0 k1). Taps 0 to 2.
    - side 2, stride 2: one output, (k1 k2). Taps 1 to 2.

    In two dimensions each entry is such a pair for the rows and one for the columns. Side 2, stride 1, rows and columns
    numbered from 0, the map's pixels as (row, column), K[r, c] the kernel's taps, gives the matrix

                      (0,0)    (0,1)    (1,0)    (1,1)
        output (0,0)  K[1, 1]  K[1, 2]  K[2, 1]  K[2, 2]
        output (0,1)  K[1, 0]  K[1, 1]  K[2, 0]  K[2, 1]
        output (1,0)  K[0, 1]  K[0, 2]  K[1, 1]  K[1, 2]
        output (1,1)  K[0, 0]  K[0, 1]  K[1, 0]  K[1, 1]

    whose row for an output is the 2 × 2 window of the kernel that begins at its first tap.

    Attributes:
        weight: (C_out, C_in, T, T), the taps that see the map: 1 × 1, 2 × 2 or 3 × 3.
        taps: which of the kernel's three they are, the same in both directions.
    """

    def __init__(self, conv: nn.Conv2d, side: int) -> None:
        super().__init__()
        self.side, self.stride = side, conv.stride[0]
        self.side_out = -(-side // self.stride)
        first = 1 - self.stride * (self.side_out - 1)  # the tap through which the last output sees input 0
        self.taps = slice(first, side + 1)
        self.weight = nn.Parameter(conv.weight[:, :, self.taps, self.taps].detach().clone().contiguous())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[2:] != (self.side, self.side):
            raise ValueError(f"trimmed for maps of {self.side} x {self.side}, not {tuple(x.shape[2:])}")
        # Where the window of each output begins in `weight`: (0) for one output, (1, 0) for two.
        starts = [self.stride * (self.side_out - 1 - position) for position in range(self.side_out)]
        # In the precision of the map, and channels last: then the slices and their gradients copy whole, short rows.
        weight = self.weight.to(x.dtype).permute(0, 2, 3, 1)
        blocks = [weight[:, top : top + self.side, left : left + self.side] for top in starts for left in starts]
        matrix = torch.stack(blocks).flatten(0, 1).flatten(1)
        product = F.linear(x.permute(0, 2, 3, 1).flatten(1), matrix)
        return product.view(len(x), self.side_out, self.side_out, len(self.weight)).permute(0, 3, 1, 2)


def trim(model: nn.Module, image_size: int) -> nn.Module:
    """Copy ``model``, trimmed for images of ``image_size`` pixels. Whatever sees larger maps stays as it is.

    Args:
        model: from `build_model`, on the CPU.
        image_size: S. The copy takes (N, 1, S, S) alone.
    """
    model = copy.deepcopy(model)
    for name, side in _small_maps(model, image_size).items():
        model.set_submodule(name, TrimmedConv2d(model.get_submodule(name), side))  # pyrefly: ignore
    return model


def untrim(trimmed: nn.Module, model: nn.Module) -> nn.Module:
    """Copy ``model`` with the weights of ``trimmed``, which was once trimmed from it.

    Taps that saw nothing but padding stay what they are in ``model``.
    """
    model = copy.deepcopy(model)
    state = {name: tensor.cpu() for name, tensor in trimmed.state_dict().items()}
    for name, module in trimmed.named_modules():
        if isinstance(module, TrimmedConv2d):
            weight = model.get_parameter(f"{name}.weight").detach().clone()
            weight[:, :, module.taps, module.taps] = state[f"{name}.weight"]
            state[f"{name}.weight"] = weight
    model.load_state_dict(state)
    return model


def _small_maps(model: nn.Module, image_size: int) -> dict[str, int]:
    """Find the side of the map that each 3 × 3 convolution sees, by its name, where it is at most `LARGEST_MAP`."""
    sides = {}
    probe = copy.deepcopy(model).eval()
    for name, module in probe.named_modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.register_forward_pre_hook(lambda _, inputs, name=name: sides.update({name: inputs[0].shape[-1]}))
    with torch.inference_mode():
        probe(torch.zeros(1, 1, image_size, image_size))
    return {name: side for name, side in sides.items() if side <= LARGEST_MAP}
