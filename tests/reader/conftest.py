"""The reader of pictures, made of the sample's model."""

from pathlib import Path

import pytest
from helpers.project import Project, made_once


@pytest.fixture(scope="session")
def reader_once(trained_once: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of `trained_once` whose reader of pictures was made. Read it only; `reader` is for changing."""

    def make(path: Path) -> Project:
        project = trained_once.copy(path)
        project.run("dvc", "repro", "src/reader/dvc.yaml")
        return project

    return made_once(tmp_path_factory, "reader", make)


@pytest.fixture
def reader(reader_once: Project, tmp_path: Path) -> Project:
    """A copy of `reader_once` to do things with."""
    return reader_once.copy(tmp_path)
