"""The reader uses no network, and none of its libraries reports to its maker."""

import pytest
from helpers.offline import require_offline
from helpers.project import slow
from PIL import Image

COMMANDS = [
    slow(("-m", "src.reader.outliers")),
    ("-m", "src.reader.export"),
    slow(("predict.py", "digit.png")),
    ("predict.py", "--model", "models/model.onnx", "digit.png"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_it_asks_no_network_and_leaves_nothing_in_the_users_home(reader, tmp_path_factory, digits, command):
    Image.fromarray(255 - digits[0][0]).resize((140, 140)).save(reader.path / "digit.png")

    require_offline(reader, tmp_path_factory.mktemp("offline"), *command)
