"""The recipes that are measured: what each changes of ``params.yaml``."""

RECIPES: dict[str, dict[str, object]] = {
    "default": {},
    # As few images as it takes to pass 99% on the test set.
    "fastest": {
        "epochs": 1, "batch_size": 128, "validation_size": 0.0, "max_rotation": 8.0, "max_scaling": 0.05,
        "max_shift": 1.0,
    },
}  # fmt: skip
