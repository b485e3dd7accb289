"""Fitting the outlier head: digits against drawings of what is none."""

import numpy as np
import torch
import torch.nn.functional as F

from src.reader.head.outlier_head import OutlierHead
from src.sampling.seeding import derive_seed, make_generator

EPOCHS, BATCH_SIZE, LR, WEIGHT_DECAY = 8, 256, 2e-3, 1e-2
STEADY = 0.05  # of the mean standard deviation, added to each feature's: some never change


def fit_head(digits: torch.Tensor, outliers: torch.Tensor, seed: int) -> OutlierHead:
    """Fit a head to features (N, D) of digits and (M, D) of outliers, on the CPU. Its threshold is still 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "outlier head"))
        head = OutlierHead(digits.shape[1])
    std = digits.std(0)
    head.mean, head.std = digits.mean(0), std + STEADY * std.mean()
    features = torch.cat([digits, outliers])
    targets = torch.cat([torch.zeros(len(digits)), torch.ones(len(outliers))])
    optimizer = torch.optim.AdamW(head.parameters(), weight_decay=WEIGHT_DECAY, fused=True)
    steps = -(-len(features) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LR, total_steps=EPOCHS * steps)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(features), generator=make_generator(seed, "outlier batches", epoch))
        for batch in order.split(BATCH_SIZE):
            loss = F.binary_cross_entropy_with_logits(head(features[batch]), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return head.eval()


def set_threshold(head: OutlierHead, digits: torch.Tensor, false_positive_rate: float) -> None:
    """Set the threshold so that at most the share ``false_positive_rate`` of digits, features (N, D), lies above it."""
    with torch.inference_mode():
        scores = head(digits).numpy()
    head.threshold = head.threshold + float(np.quantile(scores, 1 - false_positive_rate, method="higher"))
