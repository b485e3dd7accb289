"""ResNet-18 (He et al. 2015, https://arxiv.org/abs/1512.03385) for one channel and ten classes."""

from torch import nn
from torchvision.models import resnet18


def build_model(num_classes: int) -> nn.Module:
    """Build torchvision's ``resnet18`` with ``conv1`` for one channel and ``fc`` for ``num_classes``, weights random.

    Input (N, 1, H, W) float32, output logits (N, num_classes).
    """
    model = resnet18()
    model.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    model.fc = nn.Linear(model.fc.in_features, num_classes)
    return model
