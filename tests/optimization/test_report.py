import html.parser
import math
import re
import xml.dom.minidom

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from verdicts import about, between, candidate, curves, verdict

from trimtab.optimization.report import figures, render, svg, write_report

VOID = {"meta"}


class Page(html.parser.HTMLParser):
    """Checks nesting while it reads, and keeps what a test asks about."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def page():
    return Page(render(verdict(), curves(), command="trimtab demo"))


def test_says_the_whole_verdict(page):
    words = page.words
    assert "codelm@2 serves 2.76 × the tokens per second of the baseline" in words
    for name in ("baseline", "control", "int8_only", "depth6-int4", "depth4-ffn768-kv2", "depth3"):
        assert name in words
    assert "quality.retain is 82.1 % at the bad end" in words
    assert "depth4-ffn768-kv2 was more promising" in words
    for figure in ("2.61 to 2.87", "1.032", "1.062 to 1.081", "87.0 %", "0.30 ×", "4,633", "318 MiB"):
        assert figure in words, figure
    for word in (
        "unigram",
        "bigram",
        "trigram",
        "trimtab demo",
        "AMD EPYC",
        "2026-11-24",
        "codelm-4ac01d9b2f10",
    ):
        assert word in words, word
    assert "interval lies above it" in words


def test_is_one_file_that_fetches_nothing(page):
    text = render(verdict(), curves())
    policy = [value for tag, name, value in page.attributes if tag == "meta" and name == "content"]
    assert "default-src 'none'; style-src 'unsafe-inline'" in policy
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & set(page.tags)
    assert not {name for _, name, _ in page.attributes} & {
        "src",
        "href",
        "srcset",
        "action",
        "onload",
        "xlink:href",
    }
    assert "url(" not in text
    assert "@import" not in text
    assert not re.search(r"https?://", text)
    assert "prefers-color-scheme: dark" in text


def test_what_a_verdict_says_is_never_markup():
    evil = '</style><script>alert("1")</script><img src=x onerror=1>&"\''
    made = candidate(evil, "candidate", 5, rate=900, perplexity=30.0, steps=(evil,), reason=evil)
    nasty = verdict(
        name=evil,
        candidates=(*verdict().candidates, made),
        ngrams={evil: 70.0},
        run=evil,
        created=evil,
        recipe_digest=evil,
        hardware=replace(verdict().hardware, processor=evil),
    )
    text = render(nasty, {evil: curves()["baseline"]}, baseline_label=evil, command=evil, notes=(evil,))
    page = Page(text)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert page.words.count('alert("1")') >= 8
    assert (
        "script"
        not in Page(
            render(replace(nasty, feasible=False, winner=None, reasons=(evil,), nearest={evil: evil}))
        ).tags
    )


def test_plots_are_well_formed_and_drawn_inside():
    text = render(verdict(), curves())
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(pictures) == 2 + 4
    for picture in pictures:
        root = xml.dom.minidom.parseString(picture).documentElement  # noqa: S318 -- our own
        _, _, width, height = map(float, root.getAttribute("viewBox").split())
        assert root.getElementsByTagName("title")
        for d in (path.getAttribute("d") for path in root.getElementsByTagName("path")):
            numbers = [float(number) for number in re.findall(r"-?\d+\.?\d*", d)]
            assert all(0 <= x <= width for x in numbers[::2])
            assert all(0 <= y <= height for y in numbers[1::2])
        assert "nan" not in picture


def test_infeasible_says_why_and_what_would_do():
    page = Page(
        render(verdict(feasible=False, winner=None, reasons=("too big",), nearest={"slo.memory": "318 MiB"}))
    )
    assert "No candidate holds every limit" in page.words
    assert "too big" in page.words
    assert "nearest feasible slo.memory 318 MiB" in page.words
    assert "winner" not in page.words


def test_noise_is_never_hidden():
    winner = replace(verdict().winner, speedup={1: about(1.0), 16: between(1.4, 1.01, 2.87)})
    words = Page(render(verdict(winner=winner))).words
    assert "does not stand clear" in words
    assert "codelm@2 replaces the baseline, and is not proven faster" in words
    assert "serves 1.4" not in words
    assert "No A/A gate was run" in Page(render(verdict(noise=None))).words


@pytest.mark.parametrize("concurrency", [1, 4, 40])
def test_the_concurrency_told_is_the_one_measured(concurrency):
    ratios = {level: about(2.5 + level / 100) for level in sorted({1, concurrency})}
    winner = replace(verdict().winner, speedup=ratios, speedup_over_int8=ratios)
    words = Page(render(verdict(winner=winner))).words
    plural = "s" if concurrency > 1 else ""
    assert f"At {concurrency} concurrent request{plural} on" in words
    assert f"tokens/s at {concurrency} concurrent" in words
    assert f"serves {2.5 + concurrency / 100:.2f} ×" in words
    assert ("tokens/s, one at a time" in words) == (concurrency > 1)
    assert words.count("at 16 concurrent") == 1  # the plot, of rows that were measured at 16


def test_little_is_enough():
    """No training, one concurrency, nothing measured but the baseline, no n-grams: still a page."""
    base = verdict().baseline
    base = replace(base, speed=replace(base.speed, loads=base.speed.loads[:1]))
    page = Page(
        render(verdict(baseline=base, controls=(), candidates=(), winner=None, feasible=False, ngrams={}))
    )
    assert "Training" not in page.words
    assert "Tokens/s at 1 " in page.words
    assert Page(
        render(
            verdict(baseline=replace(base, quality=None, speed=None), controls=(), candidates=(), winner=None)
        )
    )


def test_a_control_may_win():
    winner = replace(verdict().winner, candidate="int8_only")
    words = Page(render(verdict(winner=winner))).words
    assert "int8_only winner" in words


def test_a_curve_may_have_gaps():
    curve = [{"tokens": 10, "loss": math.nan, "validation_loss": None}, {"tokens": 20, "loss": 3.0}]
    assert "train 3.00" in Page(render(verdict(), {"m": curve})).words
    assert "Training" not in Page(render(verdict(), {"m": []})).words


def test_writes_whole(tmp_path):
    path = tmp_path / "report.html"
    write_report(path, verdict(), curves())
    assert path.read_text(encoding="utf-8") == render(verdict(), curves())
    assert list(tmp_path.iterdir()) == [path]


spread = st.floats(-1e6, 1e6)


@given(st.lists(spread, min_size=1, max_size=20), st.booleans())
def test_axes_hold_their_data(values, zero):
    if zero:
        values = [abs(value) for value in values]
    axis = svg.linear(values, 100, 500, zero=zero)
    assert axis.low <= min(values) <= max(values) <= axis.high
    assert 2 <= len(axis.ticks) <= 12
    assert all(99.99 <= axis(value) <= 500.01 for value in values)


@given(st.lists(st.floats(1, 1e5), min_size=1, max_size=20))
def test_logarithmic_axes_hold_their_data(values):
    axis = svg.logarithmic(values, 0, 100)
    assert all(-0.01 <= axis(value) <= 100.01 for value in values)
    assert axis.ticks


@given(st.lists(st.tuples(st.floats(80, 600), st.floats(80, 300)), min_size=1, max_size=6))
def test_labels_stay_inside(points):
    labels = svg.Labels(svg.Box(0, 0, 760, 400), [])
    for x, y in points:
        placed = str(labels.place("candidate", x, y, "label"))
        assert 0 <= float(re.search(r' x="([\d.]+)"', placed)[1]) <= 760


def test_labels_keep_apart():
    labels = svg.Labels(svg.Box(0, 0, 760, 400), [])
    places = {
        re.search(r' x="[\d.]+" y="[\d.]+"', str(labels.place("same", 300, 200, "label")))[0]
        for _ in range(4)
    }
    assert len(places) == 4


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.5, "1,234"),
        (999.4, "999"),
        (24.83, "24.8"),
        (1.0, "1.00"),
        (0.0312, "0.031"),
        (0.00041, "0.00041"),
        (0, "0.000"),
        (None, "–"),
    ],
)
def test_numbers(value, text):
    assert figures.number(value) == text


def test_times_and_percent():
    assert figures.times(2.756) == "2.76\N{NO-BREAK SPACE}×"
    assert figures.times(1.0321) == "1.032\N{NO-BREAK SPACE}×"
    assert figures.percent(0.0004) == "0.04 %"
    assert figures.percent(0.87) == "87.0 %"
    assert figures.interval_of(about(100, 0.1)) == "90.0 to 110"
