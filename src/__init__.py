"""A reproducible DVC workflow that trains ResNet-18 on MNIST: one module for each stage of dvc.yaml."""
