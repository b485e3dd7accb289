"""The recipes that are measured: what each changes of ``params.yaml``, and how a result says what it was made with."""

from collections.abc import Mapping

from src.pipeline.params import Params

SHORT = {"batch_size": 192, "augment": False, "label_smoothing": 0.1, "validation_size": 0.0}
RECIPES: dict[str, dict[str, object]] = {
    "default": {},
    "accuracy": {"epochs": 20},  # the lowest loss at the end in benchmarks/sweep.json
    # Few images, just enough for 99% of held-out ones by benchmarks/sweep.json, and a margin.
    "fastest": {"epochs": 0.4, "lr": 0.003} | SHORT,
    "fastest-from-random": {"epochs": 1, "lr": 0.004, "optimizer": "adamw", "weight_decay": 0.1} | SHORT,
}
NO_PART_OF_A_RECIPE = {
    *("weights", "seed", "device", "threads"),  # a result names them, or its machine, by themselves
    *("offline_fallback", "checkpoint_minutes", "launcher", "false_positive_rate"),  # no accuracy depends on them
}


def fastest(weights: str) -> dict[str, object]:
    """The fastest recipe from these weights, a value of the parameter."""
    return RECIPES["fastest-from-random" if weights == "random" else "fastest"]


def parameters(params: Params, overrides: Mapping[str, object]) -> dict[str, object]:
    """All that a recipe is, with these defaults: a result is of them, whatever the defaults become."""
    return params.model_dump(exclude=NO_PART_OF_A_RECIPE) | overrides


def changes(recipe: Mapping[str, object], since: Mapping[str, object]) -> str:
    """What a recipe changes of another, in Markdown."""
    changed = {name: value for name, value in recipe.items() if value != since.get(name)}
    return ", ".join(f"`{name}={value}`" for name, value in changed.items()) or "the defaults"
