"""The summary table: its numbers, its names, its alignment, its errors."""

import math

import numpy
import pytest
import torch

from ppl.report import summary


def test_numbers_agree_with_numpy():
    values = torch.randn(501, 2, 3)
    table = summary({"x": values})
    assert len(table) == 6
    flat = values[:, 1, 2].numpy()
    row = table["x[1, 2]"]
    assert row.mean == pytest.approx(flat.mean())
    assert row.sd == pytest.approx(flat.std(ddof=1))
    assert (row.low, row.median, row.high) == pytest.approx(tuple(numpy.quantile(flat, [0.05, 0.5, 0.95])))
    assert row.reference is None and row.error is None


def test_a_scalar_site_has_no_index():
    assert [row.name for row in summary({"x": torch.zeros(3)}).rows] == ["x"]


@pytest.mark.parametrize("values", [torch.tensor([True, False, True, False]), numpy.array([1, 0, 1, 0]), [1, 0, 1, 0]])
def test_any_numbers_are_taken(values):
    assert summary({"x": values})["x"].mean == 0.5


def test_parameters_that_require_gradients_are_taken():
    assert summary({"x": torch.ones(3, requires_grad=True)})["x"].mean == 1.0


def test_reference_gives_the_error_in_standard_deviations():
    table = summary({"x": torch.tensor([1.0, 3.0]), "y": torch.tensor([1.0, 3.0])}, {"x": torch.tensor(1.0)})
    assert table["x"].error == pytest.approx(1 / math.sqrt(2))
    assert table["y"].error is None
    header, x, y = str(table).splitlines()
    assert header.split()[-4:] == ["reference", "error", "/", "sd"]
    assert x.split()[-2:] == ["1.0", "+0.71"]
    assert len(y.split()) == 6


def test_error_of_samples_that_are_all_the_same():
    same = torch.ones(5)
    assert summary({"x": same}, {"x": 1.0})["x"].error == 0.0
    assert summary({"x": same}, {"x": 2.0})["x"].error == -math.inf
    assert "-inf" in str(summary({"x": same}, {"x": 2.0}))


def test_columns_are_aligned():
    table = summary({"a": torch.randn(50) * 1000, "a_long_name": torch.randn(50, 11)}, title="Title")
    title, header, *lines = str(table).splitlines()
    assert title == "Title"
    assert len(lines) == 12
    assert {len(line) for line in lines} == {len(header)}
    assert header.index("mean") + 4 == lines[0].index(lines[0].split()[1]) + len(lines[0].split()[1])


def test_entries_of_a_site_have_as_many_decimals_as_the_sd_needs():
    lines = str(summary({"x": torch.tensor([[0.001], [0.002], [0.003]])})).splitlines()
    assert lines[1].split()[1:3] == ["0.0020", "0.0010"]
    assert str(summary({"x": torch.tensor([1e4, 2e4, 3e4])})).splitlines()[1].split()[1] == "20000"


def test_labels_and_names():
    table = summary({"x": torch.zeros(3, 2), "y": torch.zeros(3)}, labels={"x": ["one", "two"]}, names=["y", "x"])
    assert [row.name for row in table.rows] == ["y", "x[one]", "x[two]"]


def test_one_sample_and_nan_show_as_nan():
    assert math.isnan(summary({"x": torch.ones(1)})["x"].sd)
    assert "nan" in str(summary({"x": torch.tensor([1.0, math.nan])}))


def test_empty():
    assert len(summary({})) == 0
    assert "mean" in str(summary({}))
    assert len(summary({"x": torch.zeros(4, 0)})) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({"x": torch.tensor(1.0)},), r"'x'.*first dim.*\(num_samples, \*site\).*\(\)"),
        (({"x": torch.zeros(0, 2)},), r"'x'.*\(0, 2\)"),
        (({"x": "hello"},), r"'x'.*tensor or an array.*str"),
        (({"x": torch.zeros(3, 2)}, {"x": torch.zeros(3)}), r"'x'.*\(2,\).*\(3,\)"),
        (({"x": torch.zeros(3)}, {"y": torch.zeros(())}), r"reference has sites \['y'\].*\['x'\]"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        summary(*arguments)


def test_bad_labels_names_and_rows():
    with pytest.raises(ValueError, match=r"'x': 1 labels do not fit the last dim of its shape \(2,\)"):
        summary({"x": torch.zeros(3, 2)}, labels={"x": ["one"]})
    with pytest.raises(ValueError, match=r"names has sites \['z'\]"):
        summary({"x": torch.zeros(3)}, names=["z"])
    with pytest.raises(KeyError, match=r"no row 'z'.*x"):
        summary({"x": torch.zeros(3)})["z"]
