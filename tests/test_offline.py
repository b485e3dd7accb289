"""Nothing but ``download`` uses a network, and no library reports to its maker."""

import pytest
from helpers.offline import require_offline
from helpers.project import slow


@pytest.mark.parametrize("stage", [slow("train"), slow("evaluate"), "report"])
def test_a_stage_asks_no_network_and_leaves_nothing_in_the_users_home(trained, tmp_path_factory, stage):
    trained.set_params(epochs=0.1)

    require_offline(trained, tmp_path_factory.mktemp("offline"), "-m", f"src.{stage}")
