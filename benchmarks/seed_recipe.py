"""The tutorial's training loop as it writes it, for comparison: images one by one through PIL, fp32, plain Adam."""

from collections.abc import Iterator

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.models import resnet18

from src.mnist.dataset import Images

BATCH_SIZE = 16


class Digits(Dataset):
    """As ``torchvision.datasets.MNIST`` serves its images: a PIL image from an array, then the transform."""

    def __init__(self, data: Images, image_size: int) -> None:
        self.data = data
        self.transform = transforms.Compose(
            [
                transforms.Resize((image_size, image_size)),
                transforms.ToTensor(),
                transforms.Normalize((0.1307,), (0.3081,)),
            ]
        )

    def __len__(self) -> int:
        return len(self.data.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.data.images[index].numpy())), int(self.data.labels[index])


def batches(data: Images, image_size: int, batch_size: int = BATCH_SIZE) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """One epoch's batches, shuffled: inputs (N, 1, S, S) float32 and labels (N,) int64."""
    yield from DataLoader(Digits(data, image_size), batch_size=batch_size, shuffle=True)


def train(data: Images, image_size: int, device: torch.device) -> Iterator[int]:
    """Train for an epoch; yield the number of images after each step."""
    model = resnet18()
    model.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    model.fc = nn.Linear(model.fc.in_features, 10)
    model = model.to(device).train()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters())
    for inputs, labels in batches(data, image_size):
        inputs, labels = inputs.to(device), labels.to(device)
        optimizer.zero_grad()
        loss = criterion(model(inputs), labels)
        loss.backward()
        optimizer.step()
        loss.item()
        yield len(labels)


def accuracy(model: nn.Module, batches: DataLoader, device: torch.device) -> float:
    """The share of images that the model, in evaluation mode then, gets right."""
    model.eval()
    with torch.no_grad():
        right = sum((model(inputs.to(device)).argmax(1).cpu() == labels).sum().item() for inputs, labels in batches)
    return right / len(batches.dataset)  # pyrefly: ignore
