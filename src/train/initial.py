"""The network as training starts it."""

import torch
from torch import nn

from src.mnist.images import CLASS_NAMES
from src.mnist.manifest import Manifest
from src.pipeline.params import Params
from src.pipeline.seeding import derive_seed
from src.resnet.network import build_model
from src.resnet.weights import load_weights, read_weights


def initial_model(params: Params, manifest: Manifest) -> nn.Module:
    """Build ResNet-18 as training starts it: from the manifest's weights, and for the rest from the seed alone.

    Raises:
        UserError: the weights' file is not the downloaded one, or holds no ResNet-18.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(params.seed, "model"))
        model = build_model(len(CLASS_NAMES))
    if manifest.weights_file:
        manifest.check(manifest.weights_file)
        load_weights(model, read_weights(manifest.weights_file), params.conv1_init)
    return model
