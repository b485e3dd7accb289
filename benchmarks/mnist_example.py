"""The network and settings of PyTorch's own ``mnist`` example, for comparison: what a user would pick instead.

Source of the settings: https://github.com/pytorch/examples/tree/main/mnist (two convolutions, dropout, Adadelta at 1.0
with a factor of 0.7 an epoch, batches of 64). Run as a script, it prints the test accuracy after each epoch.
"""

import sys

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.seed_recipe import Digits, accuracy
from src.mnist.dataset import SIDE, load_test_images, load_training_images
from src.mnist.dataset import load_manifest

EPOCHS = 14


def build() -> nn.Module:
    """Input (N, 1, 28, 28) float32, output logits (N, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25),
        nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10),
    )  # fmt: skip


def main() -> None:
    manifest = load_manifest()
    torch.manual_seed(int(sys.argv[1]))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train = DataLoader(Digits(load_training_images(manifest), SIDE), batch_size=64, shuffle=True)
    test = DataLoader(Digits(load_test_images(manifest), SIDE), batch_size=1000)
    model = build().to(device)
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    for epoch in range(EPOCHS):
        model.train()
        for inputs, labels in train:
            optimizer.zero_grad()
            F.cross_entropy(model(inputs.to(device)), labels.to(device)).backward()
            optimizer.step()
        schedule.step()
        print(f"epoch {epoch + 1}: test accuracy {accuracy(model, test, device):.2%}", flush=True)


if __name__ == "__main__":
    main()
