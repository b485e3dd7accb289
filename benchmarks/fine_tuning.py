"""A plain fine-tuning loop, for comparison: torchvision's ResNet-18 on MNIST at 28 px, as most people write it.

``Dataset`` and ``DataLoader``, Adam with its default learning rate, batches of 256, fp32, the device that there is. It
starts from the weights that the manifest names, as `train` does. Run as a script, it prints the test accuracy after
each epoch.

usage: python -m benchmarks.fine_tuning SEED
"""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.models import resnet18

from benchmarks.seed_recipe import Digits, accuracy
from src.mnist.dataset import SIDE, load_test_images, load_training_images
from src.mnist.dataset import Manifest, load_manifest
from src.weights.state_dict import read_weights

EPOCHS = 10


def build(manifest: Manifest) -> nn.Module:
    """Input (N, 1, 28, 28) float32, output logits (N, 10)."""
    model = resnet18()
    if manifest.weights_file is not None:
        weights = read_weights(manifest.weights_file)
        kept = {name: tensor for name, tensor in weights.items() if not name.startswith(("conv1.", "fc."))}
        model.load_state_dict(kept, strict=False)
    model.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    model.fc = nn.Linear(model.fc.in_features, 10)
    return model


def main() -> None:
    manifest = load_manifest()
    torch.manual_seed(int(sys.argv[1]))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train = DataLoader(Digits(load_training_images(manifest), SIDE), batch_size=256, shuffle=True)
    test = DataLoader(Digits(load_test_images(manifest), SIDE), batch_size=1000)
    model = build(manifest).to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters())
    for epoch in range(EPOCHS):
        model.train()
        for inputs, labels in train:
            optimizer.zero_grad()
            loss = criterion(model(inputs.to(device)), labels.to(device))
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: test accuracy {accuracy(model, test, device):.2%}", flush=True)


if __name__ == "__main__":
    main()
