"""The parameters of a run: ``params.yaml``, read and checked in one place."""

import difflib
import sys
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from src.pipeline.process import UserError, exit_code, first_line

PARAMS_FILE = Path("params.yaml")
WEIGHTS_SUFFIXES = (".safetensors", ".pth")
NETWORKS = {"resnet18": "ResNet-18", "resnet34": "ResNet-34", "resnet50": "ResNet-50"}  # as papers write them
DATASETS = ("mnist", "sample", "fashion_mnist", "kmnist")
LIMITS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}  # pydantic's names, in words

Real = Annotated[float, Field(allow_inf_nan=False)]


def _check_weights(value: str) -> str:
    if value in ("imagenet", "torchvision", "random") or value.endswith(WEIGHTS_SUFFIXES):
        return value
    raise PydanticCustomError("weights", "should be imagenet, torchvision, random, or a file (.safetensors, .pth)")


def _check_dataset(value: str) -> str:
    if value in DATASETS or "/" in value or "\\" in value:
        return value
    raise PydanticCustomError("dataset", "should be mnist, sample, fashion_mnist, kmnist, or a path with a / in it")


class Params(BaseModel):
    """One run's parameters, with the values that each may take. ``params.yaml`` says what each is for."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    dataset: Annotated[str, AfterValidator(_check_dataset)]
    offline_fallback: bool
    validation_size: Annotated[Real, Field(ge=0, le=0.5)]
    network: Literal["resnet18", "resnet34", "resnet50"]
    weights: Annotated[str, AfterValidator(_check_weights)]
    conv1_init: Literal["sum", "mean", "new"]
    image_size: Annotated[int, Field(ge=28, le=512)]
    augment: bool
    max_rotation: Annotated[Real, Field(ge=0, le=180)]
    max_shift: Annotated[Real, Field(ge=0, le=14)]
    max_scaling: Annotated[Real, Field(ge=0, lt=1)]
    elastic: Annotated[Real, Field(ge=0, le=5)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    epochs: Annotated[int | Real, Field(gt=0, le=10_000)]
    batch_size: Annotated[int, Field(ge=3, le=60_000)]  # from 3 on, evened out, no batch is a single image
    optimizer: Literal["adam", "adamw"]
    lr: Annotated[Real, Field(gt=0, le=1)]
    weight_decay: Annotated[Real, Field(ge=0, le=1)]
    schedule: Literal["one_cycle", "constant"]
    label_smoothing: Annotated[Real, Field(ge=0, lt=1)]
    ema_decay: Annotated[Real, Field(ge=0, lt=1)]
    tta: Literal[1, 5, 9]
    precision: Literal["auto", "fp32", "bf16"]
    device: Literal["auto", "cpu", "cuda", "xpu", "mps"]
    threads: Annotated[int, Field(ge=0, le=1024)]
    checkpoint_minutes: Annotated[Real, Field(gt=0, le=1440)]
    launcher: str  # dvc.yaml reads it


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read ``path`` as DVC does, by ruamel.yaml as YAML 1.2, so that `dvc.lock` and the run mean the same.

    Raises:
        UserError: the file is missing or not a YAML mapping, or a key is unknown, missing, or has a value that it may
            not take. The message is one line that names each key, its value and what is allowed.
    """
    try:
        values = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"can't read {path}: {error.strerror}") from error
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {error.problem}") from error
    except (YAMLError, ValueError, LookupError, RecursionError) as error:  # ruamel raises many kinds for odd values
        raise UserError(f"{path} is not valid YAML: {first_line(error)}") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise UserError(f"{path} must be a mapping of parameter names to values")
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        by_key = {problem["loc"][:1]: problem for problem in error.errors(include_url=False)}  # a union gives several
        problems = list(by_key.values())
        unknown = [problem for problem in problems if problem["type"] == "extra_forbidden"]
        # A misspelt name is also a missing one: to say it once is enough.
        raise UserError(f"{path}: {'; '.join(map(_describe, unknown or problems))}") from error


def _describe(problem: ErrorDetails) -> str:
    """Turn one of pydantic's errors into a few words."""
    if not problem["loc"]:
        return "a name is not valid Unicode"
    key, value = str(problem["loc"][0]), problem["input"]
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, Params.model_fields, n=1)
        allowed = f"did you mean {near[0]!r}?" if near else f"allowed are {', '.join(Params.model_fields)}"
        return f"unknown parameter {key!r}, {allowed}"
    if problem["type"] == "missing":
        return f"parameter {key!r} is missing"
    if value is None:
        return f"{key} is empty"
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    limits = [
        f"{word} {getattr(limit, name)}"
        for limit in Params.model_fields[key].metadata
        for name, word in LIMITS.items()
        if hasattr(limit, name)
    ]
    if problem["type"].startswith(("greater_than", "less_than")):
        return f"{key} = {shown}: must be {' and '.join(limits)}"
    spelling = "; write true or false" if problem["type"] == "bool_type" else ""  # YAML 1.2 has no yes, no, on, off
    return f"{key} = {shown}: {problem['msg'][0].lower()}{problem['msg'][1:]}{spelling}"


if __name__ == "__main__":  # for `make repro`: DVC removes a stage's results before the stage can refuse a parameter
    sys.exit(exit_code(load_params))
