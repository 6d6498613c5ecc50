"""Pages with figures: what a figure names is text in the page, and large ones stay small."""

from xml.etree import ElementTree

from matplotlib.axes import Axes

from mmm.page import MANY, NARROW, draw_matrix, picture

HOSTILE = "$a$b$ <script>&amp; 그래"


def texts(svg: str) -> list[str | None]:
    found = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    return [element.text for element in found]


def test_names_in_a_figure_are_text_whatever_is_in_them() -> None:
    drawn = picture(lambda axes: axes.barh([HOSTILE], [1.0]), f"Of {HOSTILE}")
    assert HOSTILE in texts(drawn.svg)
    assert "<script" not in drawn.svg
    assert ElementTree.fromstring(drawn.svg).attrib["aria-label"] == f"Of {HOSTILE}"
    assert "http" not in drawn.svg.replace("http://www.w3.org", "")


def test_the_same_figure_is_the_same_text_and_shares_no_name_with_another() -> None:
    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [1, 0], marker="o")

    def names(caption: str) -> set[str]:
        elements = ElementTree.fromstring(picture(draw, caption).svg).iter()
        return {name for one in elements if (name := one.get("id")) and "_" not in name}

    assert picture(draw, "one").svg == picture(draw, "one").svg
    assert names("one")
    assert not names("one") & names("two")


def test_a_figure_says_its_numbers_and_takes_a_row_where_it_is_wide() -> None:
    def draw(axes: Axes) -> None:
        draw_matrix(axes, ["x", "y"], [[0.25, 0.75], [0.0, 1.0]], [["1", "3"], ["0", "7"]])

    narrow, wide = (picture(draw, "", (NARROW[0] * scale, 3.0)) for scale in (1, 2))
    assert {"x", "y", "1", "3", "0", "7"} <= set(texts(narrow.svg))
    assert (narrow.is_wide, wide.is_wide) == (False, True)


def test_many_marks_are_pixels() -> None:
    def size(many: int) -> int:
        def draw(axes: Axes) -> None:
            axes.scatter(range(many), range(many), rasterized=many > MANY)

        return len(picture(draw, "").svg)

    assert size(100 * MANY) < 2 * size(MANY)
