"""``params.yaml`` is read as DVC reads it, and checked before anything runs."""

import json
import re
from pathlib import Path

import pytest
from dvc.utils.serialize import parse_yaml
from helpers.project import QUICK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.pipeline.params import Params, load_params
from src.pipeline.process import UserError


def params_text(**spellings: str) -> str:
    """All parameters as YAML, some of them spelled as given. JSON is YAML."""
    values = {name: json.dumps(value) for name, value in QUICK.items()} | spellings
    return "".join(f"{name}: {value}\n" for name, value in values.items())


def load(folder: Path, content: str | bytes) -> Params:
    file = folder / "params.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_params(file)


def refusal(folder: Path, content: str | bytes) -> str:
    """Load what must be refused; return the one line that says why."""
    with pytest.raises(UserError) as error:
        load(folder, content)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("name", "taken", "refused", "limits"),
    [
        ("validation_size", [0, 0.5], [-0.1, 0.6], "at least 0 and at most 0.5"),
        ("image_size", [28, 512], [27, 513], "at least 28 and at most 512"),
        ("seed", [0, 2**32 - 1], [-1, 2**32], "at least 0 and below 4294967296"),
        ("epochs", [0.01, 10_000], [0, 10_001], "above 0 and at most 10000"),
        ("batch_size", [3, 60_000], [2, 60_001], "at least 3 and at most 60000"),
        ("lr", [1e-9, 1], [0, 7.0], "above 0 and at most 1"),
        ("ema_decay", [0, 0.9999], [-0.1, 1], "at least 0 and below 1"),
    ],
)
def test_a_value_beyond_a_limit_is_named_with_both_limits(tmp_path, name, taken, refused, limits):
    for value in taken:
        assert load(tmp_path, params_text(**{name: str(value)})).model_dump()[name] == value
    for value in refused:
        line = refusal(tmp_path, params_text(**{name: str(value)}))
        assert line.endswith(f"params.yaml: {name} = {value}: must be {limits}")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (params_text(epochs="true"), ": epochs = True: .*number"),
        (params_text(epochs="'3'"), ": epochs = '3': .*number"),
        (params_text(batch_size="2.5"), ": batch_size = 2.5: .*integer"),
        (params_text(weights="imagenett"), ": weights = 'imagenett': .*torchvision, random, .*.safetensors, .pth"),
        (params_text(conv1_init="summed"), ": conv1_init = 'summed': .*'sum', 'mean' or 'new'"),
        (params_text(lr=".nan"), ": lr = nan: .*finite"),
        (params_text(augment="off"), ": augment = 'off': .*true or false"),
        (params_text(launcher=""), ": launcher is empty"),
        (params_text(lr="7.0", epochs="0", seed="-1"), ": seed = -1: .*; epochs = 0: .*; lr = 7.0: "),
        (params_text().replace("epochs:", "epocs:"), ": unknown parameter 'epocs', .*'epochs'.$"),
        (params_text(zzz="5"), ": unknown parameter 'zzz', .*dataset, offline_fallback"),
        (params_text().replace("lr: 0.004\n", ""), ": parameter 'lr' is missing$"),
        (params_text() + "epochs: 2\n", f', line {len(QUICK) + 1}: .*duplicate key "epochs"'),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(tmp_path, content, named):
    assert re.search(f"params.yaml{named}", refusal(tmp_path, content))


@pytest.mark.parametrize(
    ("name", "spelling", "value"),
    [
        ("seed", "010", 10),  # eight for a reader of YAML 1.1
        ("seed", "0x10", 16),
        ("lr", "1e-3", 0.001),  # a string for a reader of YAML 1.1
        ("lr", "1", 1.0),
        ("launcher", "yes", "yes"),
    ],
)
def test_an_odd_spelling_means_what_it_means_to_dvc(tmp_path, name, spelling, value):
    text = params_text(**{name: spelling})

    assert load(tmp_path, text).model_dump()[name] == parse_yaml(text, "params.yaml")[name] == value


@pytest.mark.parametrize(
    "content",
    [
        "", "- 1\n", "a: [", "a: " + "[" * 1000, "1: 2", "? [1]\n: 2", "a: \0", '"\\ud800": 1', b"\xff\xfe",
        *[params_text(seed=oddity) for oddity in ("2020-01-01", "2020-13-45", "1e400", "!!int ten", "!unknown 1")],
    ],
)  # fmt: skip
def test_what_is_no_mapping_of_names_or_holds_an_oddity_of_yaml_is_refused_in_one_line(tmp_path, content):
    refusal(tmp_path, content)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"can't read .*params.yaml: No such file or directory"):
        load_params(tmp_path / "params.yaml")


SPELLINGS = st.text("0123456789+-_.:eExobnftruyN~'\"!&* []{}#,", max_size=12)


@settings(max_examples=75, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(list(QUICK)), spelling=SPELLINGS)
def test_any_spelling_is_taken_as_dvc_takes_it_or_refused_in_one_line(tmp_path, name, spelling):
    text = params_text(**{name: spelling})
    try:
        params = load(tmp_path, text)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert params.model_dump() == parse_yaml(text, "params.yaml")
