"""The recipes that are measured: what each changes of ``params.yaml``."""

SHORT = {"batch_size": 128, "augment": False, "validation_size": 0.0}
RECIPES: dict[str, dict[str, object]] = {
    "default": {},
    # As few images as it takes to pass 99% on the test set, chosen by benchmarks/sweep.json.
    "fastest": {"epochs": 0.6, "lr": 0.002} | SHORT,
    "fastest-from-random": {"epochs": 1, "lr": 0.004} | SHORT,
}


def fastest(weights: str) -> dict[str, object]:
    """The fastest recipe from these weights, a value of the parameter."""
    return RECIPES["fastest-from-random" if weights == "random" else "fastest"]
