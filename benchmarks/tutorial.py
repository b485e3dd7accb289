"""The tutorial recipe, for comparison: ResNet-18 on MNIST resized to 224 px, as a beginner's tutorial trains it.

Images one by one through PIL, batches of 16, fp32, Adam with its default learning rate.
"""

from collections.abc import Iterator

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.models import resnet18

from src.images.dataset import Images

BATCH_SIZE = 16
SETTINGS = {  # of ours, for the same work
    "image_size": 224,
    "batch_size": BATCH_SIZE,
    "lr": 0.001,
    "schedule": "constant",
    "augment": False,
    "ema_decay": 0.0,
    "validation_size": 0.0,
}


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
        return self.transform(Image.fromarray(self.data.images[index])), int(self.data.labels[index])


def train(data: Images, image_size: int, device: torch.device) -> Iterator[int]:
    """Train torchvision's ResNet-18, for one channel and ten classes, for an epoch; yield the images of each step."""
    model = resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    model.to(device).train()
    optimizer = torch.optim.Adam(model.parameters())
    for inputs, labels in DataLoader(Digits(data, image_size), batch_size=BATCH_SIZE, shuffle=True):
        training_step(model, optimizer, inputs.to(device), labels.to(device)).item()
        yield len(labels)


def training_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, inputs: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Take a step; return its loss."""
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(inputs), labels)
    loss.backward()
    optimizer.step()
    return loss
