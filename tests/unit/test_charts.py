import re
from xml.etree import ElementTree

import pytest

from tfmm.charts import Axis, interval_bar, line_chart


def points(svg: str) -> list[list[tuple[float, float]]]:
    found = []
    for path in ElementTree.fromstring(svg).iter("path"):
        if path.get("fill") == "none":
            pairs = re.findall(r"([\d.]+) ([\d.]+)", path.get("d") or "")
            found.append([(float(x), float(y)) for x, y in pairs])
    return found


def test_higher_values_stand_higher_and_later_ones_to_the_right():
    (line,) = points(line_chart("t", Axis("x"), "y", {"model": [(0, 0), (0.5, 0.5), (1, 1)]}))
    (x0, y0), (x1, y1), (x2, y2) = line
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert y0 - y1 == pytest.approx(y1 - y2)
    assert x2 > x0
    assert y2 < y0


def test_on_a_logarithmic_axis_equal_ratios_take_equal_room():
    axis = Axis("k", (1.0, 10.0, 100.0), is_log=True)
    assert axis.place(10) - axis.place(1) == pytest.approx(axis.place(100) - axis.place(10))


def test_an_axis_of_one_tick_has_a_place_for_it():
    assert Axis("k", (10.0,), is_log=True).place(10) > 0


def test_the_model_is_drawn_last_and_names_are_escaped():
    svg = line_chart("<t>", Axis("&"), "y", {"model": [(0, 0)], "a<b": [(1, 1)]})
    names = [title.text for title in ElementTree.fromstring(svg).iter("title")]
    assert names == ["a<b", "model"]


def test_an_interval_stays_within_its_bar():
    svg = ElementTree.fromstring(interval_bar(0.5, -0.2, 1.4, mark=0.25))
    paths = {path.get("class"): path.get("d") for path in svg.iter("path")}
    assert paths["interval"] == "M0.0 7H110.0"
    assert paths["mark"].startswith("M27.5 ")
    assert "mark" not in interval_bar(0.5, 0.4, 0.6, mark=None)
