"""``params.yaml`` is checked before anything runs."""

import re

import pytest
import yaml
from conftest import TRIES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.pipeline.errors import UserError
from src.pipeline.params import PARAMS_FILE, Params, load_params

DEFAULTS = yaml.safe_load(PARAMS_FILE.read_text())


def load(tmp_path, text: str | bytes) -> Params:
    file = tmp_path / "params.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_params(file)


def message(tmp_path, text: str | bytes) -> str:
    with pytest.raises(UserError) as error:
        load(tmp_path, text)
    assert "\n" not in str(error.value)
    return str(error.value)


def changed(**values: object) -> str:
    return yaml.safe_dump(DEFAULTS | values)


def test_the_committed_parameters_are_sound():
    assert load_params().model_dump() == DEFAULTS


def test_parameters_cannot_be_changed_once_read():
    with pytest.raises(ValueError, match="frozen"):
        load_params().epochs = 3


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("epochs", 0, "greater than or equal to 1"),
        ("epochs", "ten", "valid integer"),
        ("epochs", 2.5, "valid integer"),
        ("epochs", True, "valid integer"),
        ("lr", -0.1, "greater than 0"),
        ("lr", float("nan"), "finite"),
        ("lr", float("inf"), "finite"),
        ("optimizer", "adma", "'adam' or 'adamw'"),
        ("augment", "yes please", "valid boolean"),
        ("validation_size", 0.9, "less than or equal to 0.5"),
        ("device", None, "'auto', 'cpu' or 'cuda'"),
        ("seed", [1, 2], "valid integer"),
    ],
)
def test_an_impossible_value_is_named_with_what_is_allowed(tmp_path, key, value, allowed):
    text = message(tmp_path, changed(**{key: value}))
    assert f"{key} = {value!r}: " in text
    assert allowed in text


def test_an_unknown_key_is_named_with_the_nearest_known_one(tmp_path):
    assert "unknown parameter 'epocs', did you mean 'epochs'?" in message(tmp_path, changed(epocs=5))


def test_a_missing_key_is_named(tmp_path):
    text = yaml.safe_dump({key: value for key, value in DEFAULTS.items() if key != "lr"})
    assert "parameter 'lr' is missing" in message(tmp_path, text)


@pytest.mark.parametrize(
    "text", ["", "- 1\n", "lr", "a: [", b"\xff\xfe", "!!python/object/apply:os.system ['true']", "1: 2", "? [1]\n: 2"]
)
def test_what_is_no_mapping_of_names_is_one_clear_line(tmp_path, text):
    assert "params.yaml" in message(tmp_path, text)


def test_a_number_may_be_written_as_dvc_reads_it(tmp_path):
    assert load(tmp_path, re.sub("^lr: .*", "lr: 1e-3", changed(), flags=re.M)).lr == 1e-3


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.sampled_from(sorted(Params.model_fields)) | st.text(max_size=20),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ),
)
def test_any_value_for_any_key_is_taken_or_refused_in_one_line(tmp_path, key, value):
    TRIES["params.yaml mutated"] += 1
    text = changed(**{key: value})
    try:
        assert getattr(load(tmp_path, text), key) == yaml.safe_load(text)[key]
    except UserError as error:
        assert "\n" not in str(error)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, len(PARAMS_FILE.read_bytes()) - 1), byte=st.binary(min_size=1, max_size=3))
def test_any_damaged_byte_is_taken_or_refused_in_one_line(tmp_path, position, byte):
    TRIES["params.yaml mutated"] += 1
    content = PARAMS_FILE.read_bytes()
    try:
        load(tmp_path, content[:position] + byte + content[position + 1 :])
    except UserError as error:
        assert "\n" not in str(error)
