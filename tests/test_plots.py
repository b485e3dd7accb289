"""DVC's page of plots, opened in a real browser."""

import csv
import re
import shutil
from collections import Counter

import pytest
from helpers.browser import (
    bring_libraries,
    libraries,
    marks,
    numbers,
    show,
)
from helpers.project import Project
from PIL import Image

PICTURES = ("learning_curves", "confusion_matrix", "mistakes", "reliability")
CURVES = {  # after the first epoch and after the second
    "train/loss": (0.9, 0.5),
    "validation/loss": (0.8, 0.4),
    "test/loss": (0.7, 0.3),
    "train/accuracy": (0.75, 0.85),
    "validation/accuracy": (0.76, 0.86),
    "test/accuracy": (0.77, 0.87),
}


@pytest.fixture(scope="module")
def shown(trained_once, tmp_path_factory):
    """A copy of a run that had two epochs, by its curves."""
    project = trained_once.copy(tmp_path_factory.mktemp("shown"))
    for curve, (first, second) in CURVES.items():
        metric = curve.partition("/")[2]
        file = project.path / f"metrics/train/plots/metrics/{curve}.tsv"
        file.write_text(f"step\t{metric}\n1\t{first}\n2\t{second}\n")
    return project


@pytest.fixture(scope="module")
def plots(shown, tmp_path_factory):
    """The folder that ``dvc plots show`` writes, with the libraries of its page."""
    folder = tmp_path_factory.mktemp("plots")
    shown.run("dvc", "plots", "show", "--out", str(folder))
    if not shutil.which("npm"):
        pytest.skip("needs npm, for vega")
    if error := bring_libraries(folder):
        pytest.skip(f"needs npm's registry, for vega: {error}")
    return folder


@pytest.fixture(scope="module")
def opened(browser, plots):
    """The page of plots, opened."""
    return show(browser, plots / "index.html")


@pytest.fixture(scope="module")
def page(opened):
    """The page of plots as the browser shows it: its HTML."""
    return opened.content


def table(project: Project, name: str) -> list[dict[str, str]]:
    """The rows of a table of ``evaluate``'s."""
    return list(csv.DictReader(project.read(f"metrics/evaluate/{name}.csv").splitlines()))


@pytest.mark.slow
def test_the_page_is_drawn_without_an_error(opened):
    assert opened.errors == []


@pytest.mark.slow
def test_an_error_on_the_page_would_have_been_noticed(browser, plots):
    content = (plots / "index.html").read_text()
    content = content.replace("npm/vega-lite", "npm/no").replace("static/workspace", "static/no")
    (plots / "broken.html").write_text(content)

    seen = "\n".join(show(browser, plots / "broken.html").errors)

    assert re.search(r"npm/no\S* does not load", seen)
    assert "no_metrics_report_mistakes.png does not load" in seen
    assert "TypeError" in seen


def test_the_page_needs_the_libraries_that_these_tests_bring(shown, tmp_path):
    shown.run("dvc", "plots", "show", "--out", str(tmp_path))

    needed = libraries((tmp_path / "index.html").read_text())

    assert [package.partition("@")[0] for package in needed] == ["vega", "vega-lite", "vega-embed"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metric", "label"), [("loss", "mean cross-entropy per image"), ("accuracy", "share of images classified right")]
)
def test_one_plot_shows_the_curves_of_all_sets(page, metric, label):
    drawn = marks(page, "filename", "epoch", label)

    for name in ("train", "validation", "test"):
        first, _ = CURVES[f"{name}/{metric}"]
        assert (f"{name}/{metric}.tsv", "1", str(first)) in drawn


@pytest.mark.slow
@pytest.mark.parametrize("curve", CURVES)
def test_each_curve_has_a_plot_of_its_own(page, curve):
    metric = curve.partition("/")[2]
    first, _ = CURVES[curve]

    assert f"Title text 'metrics/train/plots/metrics/{curve}.tsv'" in page
    assert (1, first) in numbers(page, "epoch", metric)


@pytest.mark.slow
def test_the_confusion_matrix_shows_how_often_each_class_was_taken_for_each(page, shown):
    cells = {
        (actual, predicted): int(count) for actual, predicted, count in marks(page, "actual", "predicted", "xy_count")
    }

    pairs = Counter((row["actual"], row["predicted"]) for row in table(shown, "predictions"))
    assert {pair: count for pair, count in cells.items() if count} == pairs


@pytest.mark.slow
def test_the_plot_of_the_classes_shows_three_scores_of_each(page, shown):
    drawn = {(digit, measure): float(score) for digit, measure, score in marks(page, "class", "measure", "score")}

    written = {
        (row["class"], measure): float(row[measure])
        for row in table(shown, "classes")
        for measure in ("precision", "recall", "f1")
    }
    assert len(written) == 30
    assert drawn == pytest.approx(written)


@pytest.mark.slow
def test_the_plot_of_the_classes_tells_its_scores_apart_without_colour(page):
    shapes = {}
    for label, shape in re.findall(r'aria-label="class: \d; score: [\d.]+; measure: (\w+)"[^>]* d="(.+?)"', page):
        shapes.setdefault(label, set()).add(shape)

    assert shapes.keys() == {"precision", "recall", "f1"}
    assert len(set.union(*shapes.values())) == 3


@pytest.mark.slow
def test_the_plot_of_the_calibration_shows_each_bin(page, shown):
    drawn = numbers(page, "confidence", "accuracy")

    written = [(float(row["confidence"]), float(row["accuracy"])) for row in table(shown, "calibration")]
    assert sorted(drawn) == [pytest.approx(point) for point in sorted(written)]


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
def test_the_page_shows_each_picture(page, name):
    assert page.count(f'<img src="static/workspace_metrics_report_{name}.png"') == 1


def test_plots_diff_puts_the_pictures_of_two_commits_side_by_side(trained):
    file = trained.path / "metrics/report/reliability.png"
    before = file.read_bytes()
    Image.open(file).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(file)
    trained.commit("another picture")

    trained.run("dvc", "plots", "diff", "HEAD~1", "HEAD", "--out", "diff")

    page = trained.read("diff/index.html")
    for name in PICTURES:
        assert f'<img src="static/HEAD_metrics_report_{name}.png"' in page
        assert f'<img src="static/HEAD~1_metrics_report_{name}.png"' in page
    assert (trained.path / "diff/static/HEAD_metrics_report_reliability.png").read_bytes() == file.read_bytes()
    assert (trained.path / "diff/static/HEAD~1_metrics_report_reliability.png").read_bytes() == before
