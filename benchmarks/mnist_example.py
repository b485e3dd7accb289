"""The network and settings of PyTorch's own ``mnist`` example, for comparison: what a user would pick instead.

Source of the settings: https://github.com/pytorch/examples/tree/main/mnist (two convolutions, dropout, Adadelta at 1.0
with a factor of 0.7 an epoch, batches of 64). It prints the test accuracy after each epoch.

usage: python -m benchmarks.mnist_example SEED
"""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.tutorial import Digits, training_step
from src.images.dataset import SIDE, load_images, load_manifest

EPOCHS = 14


def main() -> None:
    torch.manual_seed(int(sys.argv[1]))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train, test = (Digits(load_images(load_manifest(), part), SIDE) for part in ("train", "test"))
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25),
        nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10),
    ).to(device)  # fmt: skip
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    for epoch in range(EPOCHS):
        model.train()
        for inputs, labels in DataLoader(train, batch_size=64, shuffle=True):
            training_step(model, optimizer, inputs.to(device), labels.to(device))
        schedule.step()
        model.eval()
        with torch.no_grad():
            batches = DataLoader(test, batch_size=1000)
            right = sum((model(inputs.to(device)).argmax(1).cpu() == labels).sum().item() for inputs, labels in batches)
        print(f"epoch {epoch + 1}: test accuracy {right / len(test):.2%}", flush=True)


if __name__ == "__main__":
    main()
