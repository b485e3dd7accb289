"""``params.yaml`` is read as DVC reads it, and checked before anything runs."""

import json
from pathlib import Path

import pytest
from dvc.utils.serialize import ParseError, parse_yaml
from helpers.project import QUICK, quick_params
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.pipeline.process import UserError
from src.pipeline.params import Params, load_params

in_one_folder = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def params_text(**spellings: str) -> str:
    """All parameters as YAML, some of them spelled as given. JSON is YAML."""
    values = {name: json.dumps(value) for name, value in QUICK.items()} | spellings
    return "".join(f"{name}: {value}\n" for name, value in values.items())


def write_params(folder: Path, content: str | bytes) -> Path:
    file = folder / "params.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def refusal(folder: Path, content: str | bytes) -> str:
    """Read a file that must be refused; return the one line that says why."""
    file = write_params(folder, content)

    with pytest.raises(UserError) as error:
        load_params(file)

    assert "\n" not in str(error.value)
    assert "params.yaml" in str(error.value)
    return str(error.value)


def test_sound_parameters_arrive_as_they_are_written(tmp_path):
    file = write_params(tmp_path, params_text())

    params = load_params(file)

    assert params.model_dump() == QUICK


def test_parameters_cannot_be_changed_once_read():
    params = quick_params(epochs=1)

    with pytest.raises(ValueError, match="frozen"):
        params.epochs = 3


@pytest.mark.parametrize(
    ("name", "spelling", "value", "allowed"),
    [
        ("epochs", "0", "0", "greater than 0"),
        ("epochs", "ten", "'ten'", "valid number"),
        ("epochs", "true", "True", "valid number"),
        ("epochs", "'3'", "'3'", "valid number"),
        ("epochs", ".nan", "nan", "finite number"),
        ("batch_size", "2.5", "2.5", "valid integer"),
        ("batch_size", "2", "2", "greater than or equal to 3"),
        ("image_size", "27", "27", "greater than or equal to 28"),
        ("max_shift", "15", "15", "less than or equal to 14"),
        ("max_scaling", "1", "1", "less than 1"),
        ("ema_decay", "1", "1", "less than 1"),
        ("false_positive_rate", "1", "1", "less than 1"),
        ("weights", "imagenett", "'imagenett'", "imagenet, random, or a file that ends in .safetensors or .pth"),
        ("weights", "true", "True", "valid string"),
        ("conv1_init", "summed", "'summed'", "'sum', 'mean' or 'new'"),
        ("lr", "-0.1", "-0.1", "greater than 0"),
        ("lr", ".nan", "nan", "finite"),
        ("lr", ".inf", "inf", "finite"),
        ("lr", "~", "None", "valid number"),
        ("optimizer", "adma", "'adma'", "'adam' or 'adamw'"),
        ("validation_size", "0.9", "0.9", "less than or equal to 0.5"),
        ("device", "", "None", "'auto', 'cpu', 'cuda', 'xpu' or 'mps'"),
        ("seed", "[1, 2]", "[1, 2]", "valid integer"),
        ("launcher", "5", "5", "valid string"),
    ],
)
def test_an_impossible_value_is_named_with_what_is_allowed(tmp_path, name, spelling, value, allowed):
    line = refusal(tmp_path, params_text(**{name: spelling}))

    assert f"params.yaml: {name} = {value}: " in line
    assert allowed in line


@pytest.mark.parametrize("spelling", ["off", "on", "yes", "no", "y", "0", "1", "'true'", "~", "tRUE"])
def test_what_is_no_boolean_for_dvc_is_refused_with_the_right_spelling(tmp_path, spelling):
    line = refusal(tmp_path, params_text(augment=spelling))

    assert "augment = " in line
    assert "write true or false" in line


@pytest.mark.parametrize(
    ("name", "spelling", "value"),
    [
        ("seed", "010", 10),  # eight for a reader of YAML 1.1
        ("seed", "0o10", 8),
        ("seed", "0x10", 16),
        ("seed", "1_000", 1000),
        ("seed", "+5", 5),
        ("lr", "1e-3", 0.001),  # a string for a reader of YAML 1.1
        ("lr", "1E-3", 0.001),
        ("lr", ".5", 0.5),
        ("lr", "1", 1.0),
        ("augment", "True", True),
        ("augment", "FALSE", False),
        ("launcher", "yes", "yes"),
        ("launcher", "12:30", "12:30"),
    ],
)
def test_an_odd_spelling_means_what_it_means_to_dvc(tmp_path, name, spelling, value):
    text = params_text(**{name: spelling})

    ours = getattr(load_params(write_params(tmp_path, text)), name)

    assert ours == value
    assert ours == parse_yaml(text, "params.yaml")[name]


def test_a_file_that_calls_itself_yaml_1_1_means_what_it_means_to_dvc(tmp_path):
    text = "%YAML 1.1\n---\n" + params_text(augment="off", seed="010")

    ours = load_params(write_params(tmp_path, text))

    dvcs = parse_yaml(text, "params.yaml")
    assert (dvcs["augment"], dvcs["seed"]) == (False, 8)
    assert (ours.augment, ours.seed) == (False, 8)


@pytest.mark.parametrize(
    "spelling",
    [
        "2020-01-01", "2020-13-45", "2020-01-01T99:00:00", "12:30", "1,000", "0x", "0o9", "_1", "1e400",
        "!!int ten", "!!int ''", "!!bool perhaps", "!!binary é", "!!set {1}", "!unknown 1",
    ],
)  # fmt: skip
def test_a_date_or_another_oddity_is_no_number(tmp_path, spelling):
    refusal(tmp_path, params_text(seed=spelling))


def test_an_unknown_parameter_is_named_with_the_nearest_known_one(tmp_path):
    line = refusal(tmp_path, params_text(epocs="5"))

    assert "unknown parameter 'epocs', did you mean 'epochs'?" in line


def test_a_missing_parameter_is_named(tmp_path):
    text = params_text().replace("lr: 0.008\n", "")

    assert "parameter 'lr' is missing" in refusal(tmp_path, text)


def test_a_parameter_that_is_given_twice_is_refused(tmp_path):
    line = refusal(tmp_path, params_text() + "epochs: 2\n")

    assert 'found duplicate key "epochs"' in line


@pytest.mark.parametrize(
    "content",
    [
        "", "# nothing but a comment\n", "- 1\n", "lr", "a: [", "a: " + "[" * 1000, "1: 2", "? [1]\n: 2", "a: \0",
        '"\\ud800": 1', b"\xff\xfe", b"a: \xe9\n", "!!python/object/apply:os.system ['true']",
    ],
)  # fmt: skip
def test_what_is_no_mapping_of_names_is_refused(tmp_path, content):
    refusal(tmp_path, content)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"can't read .*params.yaml: No such file or directory"):
        load_params(tmp_path / "params.yaml")


@in_one_folder
@given(
    name=st.sampled_from(list(QUICK)) | st.text(max_size=20),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ),
)
def test_any_value_of_any_parameter_is_taken_as_dvc_does_or_refused_in_one_line(tmp_path, tries, name, value):
    tries("params.yaml mutated", quick=1, full=1)
    text = json.dumps(QUICK | {name: value})

    check_taken_or_refused(tmp_path, text.encode())


@in_one_folder
@given(name=st.sampled_from(list(QUICK)), spelling=st.text("0123456789+-_.:eExobnftruyN~'\"!&* []{}#,", max_size=12))
def test_any_spelling_of_any_parameter_is_taken_as_dvc_does_or_refused_in_one_line(tmp_path, tries, name, spelling):
    tries("params.yaml mutated", quick=1, full=1)
    text = params_text(**{name: spelling})

    check_taken_or_refused(tmp_path, text.encode())


@in_one_folder
@given(position=st.integers(0, len(params_text()) - 1), noise=st.binary(min_size=1, max_size=3))
def test_any_damaged_byte_is_taken_as_dvc_does_or_refused_in_one_line(tmp_path, tries, position, noise):
    tries("params.yaml mutated", quick=1, full=1)
    content = params_text().encode()

    check_taken_or_refused(tmp_path, content[:position] + noise + content[position + 1 :])


def check_taken_or_refused(folder: Path, content: bytes) -> None:
    """Check that a file gives either DVC's own values of all parameters or one line of error."""
    file = write_params(folder, content)
    try:
        params: Params = load_params(file)
    except UserError as error:
        assert "\n" not in str(error)
        return
    try:
        dvcs = parse_yaml(content.decode(), "params.yaml")
    except ParseError as error:
        raise AssertionError("a file that DVC does not read was taken") from error
    assert params.model_dump() == dvcs
