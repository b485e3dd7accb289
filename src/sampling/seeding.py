"""Stateless randomness: a generator depends on the seed and on what it is for, never on what others have drawn."""

import hashlib

import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Derive a 63-bit seed for one purpose, such as ``derive_seed(0, "augment", epoch, step)``.

    SHA-256 keeps the streams of neighbouring seeds, epochs and steps unrelated.
    """
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def make_generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Make a CPU generator for one purpose: the same draws on every device."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))
