"""Pictures, figures and numbers of the page by themselves."""

import base64
import io
import warnings

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import image as reader
from matplotlib.font_manager import fontManager

from jaxmia.report import figures, fonts, tables
from jaxmia.report.folder import Measured


def decoded(uri):
    head, data = uri.split(",")
    assert head == "data:image/png;base64"
    return reader.imread(io.BytesIO(base64.b64decode(data)), format="png")


def share(value, low, high, n=60, **more):
    return Measured(value, low, high, n, None, 0.95, "bootstrap", "share", "higher")._replace(**more)


def test_a_picture_keeps_its_pixels():
    image = np.random.default_rng(0).random((12, 7, 3)).astype(np.float32)
    assert np.abs(decoded(figures.picture(image))[..., :3] - image).max() <= 0.5 / 255 + 1e-6
    gray = image[..., :1]
    assert np.abs(decoded(figures.picture(gray))[..., :3] - gray).max() <= 0.5 / 255 + 1e-6


def test_a_large_picture_is_averaged_down():
    image = np.zeros((320, 402, 3), np.float32)
    image[:, 200:] = 1
    small = decoded(figures.picture(image))[..., :3]
    assert small.shape == (80, 100, 3) and abs(small.mean() - 0.5) < 0.01


def test_a_figure_is_drawn_for_both_themes_and_says_what_it_shows():
    rows = [("GMI", "plain", False, share(0.5, 0.4, 0.6)), ("$\\frac{", "", True, share(1.0, 0.9, 1.0))]
    drawing = figures.intervals(rows)
    light, dark = decoded(drawing.light), decoded(drawing.dark)
    assert light.shape == dark.shape and not np.array_equal(light, dark)
    assert light[0, 0, 3] == 0  # the page's own background shows
    assert "GMI, plain: 50" in drawing.text


def test_heat_map_with_classes_not_attacked():
    drawing = figures.heat_map(["a", "b"], ["x", "y", "z"], np.array([[0, 0.5, np.nan], [1, 1, 1]]))
    assert drawing.text == "a: 25 % on average; b: 100 % on average"
    many = figures.heat_map(["a"], [str(i) for i in range(300)], np.random.default_rng(0).random((1, 300)))
    assert decoded(many.light).shape[1] == decoded(drawing.light).shape[1]


def test_curves_with_odd_names_and_values():
    lines = [figures.Line("_hidden", [1.0], [0.0], 0), figures.Line("$x", [1.0, 2.0], [1e4, 1e-4], None)]
    assert "_hidden: 0 to 0" in figures.curves("loss", lines).text
    assert figures.curves("loss", lines[1:]).text.endswith("$x: 1e+04 to 0.0001")


def test_shares_are_percents_with_the_decimals_their_interval_allows():
    assert tables.value(share(0.958, 0.921, 0.979)) == "96\u00a0%"
    assert tables.value(share(0.958, 0.95, 0.966)) == "95.8\u00a0%"
    assert tables.estimate(share(0.0, 0.0, 0.161))["interval"] == "[0,\u00a016]"
    assert tables.estimate(share(0.996, 0.9, 1.0))["value"] == "99.6\u00a0%"


def test_other_values_keep_three_digits_and_their_unit():
    bits = share(7.0712, 6.5, 7.5, unit="bits", n=1200, groups=30)
    parts = tables.estimate(bits)
    assert parts["value"] == "7.07\u00a0bits" and parts["interval"] == "[6.5,\u00a07.5]"
    assert parts["n"] == "n\u00a0=\u00a01,200 in 30 groups" and parts["how"] == "95 % interval, bootstrap"


@pytest.mark.parametrize(
    ("attack", "control", "apart"),
    [
        (share(0.5, 0.4, 0.6), share(0.2, 0.1, 0.3), True),
        (share(0.5, 0.4, 0.6), share(0.2, 0.1, 0.4), False),
        (share(1.0, 0.9, 1.1, stronger="lower"), share(2.0, 1.5, 2.5, stronger="lower"), True),
        (share(2.0, 1.5, 2.5, stronger="lower"), share(1.0, 0.9, 1.1, stronger="lower"), False),
    ],
)
def test_an_attack_beats_a_control_only_with_its_whole_interval(attack, control, apart):
    assert tables.beats(attack, control) is apart


def test_items_of_further_tables():
    assert tables.item(None) == "–" and tables.item(True) == "yes" and tables.item("<b>") == "<b>"
    assert tables.item(1234567) == "1,234,567" and tables.item(0.00001) == "1.0e-05"


def test_pictures_are_stretched_to_full_contrast_and_flat_ones_left_alone():
    faint = np.linspace(0.49, 0.51, 256).reshape(16, 16, 1)
    shown = figures.stretched(faint)
    assert shown.min() == 0 and shown.max() == 1
    np.testing.assert_allclose(np.argsort(shown.ravel(), kind="stable"), np.argsort(faint.ravel(), kind="stable"))
    flat = np.full((4, 4, 3), 0.5)
    assert figures.stretched(flat) is flat


def font_of(character, path):
    """A font with one glyph, a square."""
    pen = TTGlyphPen(None)
    for number, corner in enumerate([(0, 0), (0, 800), (800, 800), (800, 0)]):
        (pen.lineTo if number else pen.moveTo)(corner)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(character): "square"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 0)})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)


def test_names_in_any_script_are_drawn_without_a_warning(tmp_path, monkeypatch, recwarn):
    """As boxes, or in a font that has them, where one is installed."""

    def drawn():
        fonts.covering.cache_clear()
        return figures.heat_map(["\u674e, Zoë"], ["a", "\u674e"], np.array([[0.25, 1.0]]))

    monkeypatch.setattr(fontManager, "ttflist", [font for font in fontManager.ttflist if font.name == fonts.OWN])
    boxes, again = drawn(), drawn()
    assert boxes.light == again.light and boxes.text == "\u674e, Zoë: 62 % on average"
    font_of("\u674e", tmp_path / "squares.ttf")
    fontManager.addfont(tmp_path / "squares.ttf")
    assert fonts.covering.cache_clear() is None and fonts.covering(frozenset("\u674e\u3042")) == ("Squares",)
    squares = drawn()
    assert squares.light != boxes.light and squares.dark != boxes.dark
    assert [str(warning.message) for warning in recwarn] == []
    fonts.covering.cache_clear()


def test_other_warnings_of_a_figure_are_passed_on():
    def draw(theme):
        warnings.warn("of something else", UserWarning, stacklevel=1)
        return figures.Figure()

    with pytest.warns(UserWarning, match="of something else"):
        figures.twice(draw, "")
