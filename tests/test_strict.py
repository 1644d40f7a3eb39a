"""A configuration refuses what it does not understand, and says what it would have understood."""

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from torchcram.strict import LATER, StrictConfig, nearest_hint, optional, require_choice


class Inner(StrictConfig):
    width: int = Field(4, ge=1)
    rate: float = 0.5


class Outer(StrictConfig):
    inner: Inner = Inner()
    name: str = "demo"
    flag: bool = False
    pair: tuple[int, int] = (1, 2)

    @model_validator(mode="after")
    def _no_wide_flag(self) -> "Outer":
        if self.flag and self.inner.width > 100:
            raise ValueError(f"width {self.inner.width} is too wide for a flag")
        return self


def test_the_nearest_name_is_suggested():
    assert nearest_hint("lenght", ["length", "width"]) == "did you mean 'length'?"


def test_without_a_near_name_all_are_listed_in_order():
    assert nearest_hint("zzz", ["width", "length"]) == "valid: length, width"


@given(st.sampled_from(["working", "episodic", "semantic"]))
def test_a_valid_choice_is_returned(value: str):
    assert require_choice("memory", value, ["working", "episodic", "semantic"]) == value


def test_an_invalid_choice_names_itself_and_the_nearest():
    with pytest.raises(ValueError, match=r"unknown memory 'semantik': did you mean 'semantic'\?"):
        require_choice("memory", "semantik", iter(["working", "semantic"]))


@given(st.integers(1, 10**6), st.floats(-1e6, 1e6), st.text(), st.tuples(st.integers(), st.integers()))
def test_dumping_and_parsing_gives_the_same_configuration(width, rate, name, pair):
    config = Outer(inner=Inner(width=width, rate=rate), name=name, pair=pair)
    again = Outer.parse(config.model_dump(mode="json"))
    assert again == config
    assert again.digest() == config.digest()


def test_a_configuration_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Outer().name = "other"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param({"nmae": "x"}, r"unknown key 'nmae' in Outer: did you mean 'name'\?", id="unknown key"),
        pytest.param(
            {"zzz": 1},
            r"unknown key 'zzz' in Outer: valid: flag, inner, name, pair",
            id="unknown key, nothing near",
        ),
        pytest.param({3: 1}, "unknown key 3 in Outer", id="key that is no string"),
        pytest.param(
            {"inner": {"widht": 4}},
            r"^inner: unknown key 'widht' in Inner: did you mean 'width'\?",
            id="unknown key below",
        ),
        pytest.param(
            {"inner": {"width": "four"}}, r"^inner\.width: .*integer.*\(got 'four'\)", id="wrong type"
        ),
        pytest.param(
            {"inner": {"width": 0}},
            r"^inner\.width: .*greater than or equal to 1 \(got 0\)",
            id="out of range",
        ),
        pytest.param(
            {"inner": {"rate": float("nan")}}, r"^inner\.rate: .*finite.*got nan", id="not a number"
        ),
        pytest.param({"inner": {"rate": float("inf")}}, r"^inner\.rate: .*finite.*got inf", id="infinite"),
        pytest.param(
            {"flag": True, "inner": {"width": 101}},
            "^width 101 is too wide for a flag$",
            id="impossible combination",
        ),
        pytest.param({"pair": [1]}, r"^pair\.1: .*required", id="short tuple"),
    ],
)
def test_bad_data_is_an_error_that_says_where_and_what(data, message):
    with pytest.raises(ValueError, match=message) as caught:
        Outer.parse(data)
    assert not isinstance(caught.value, ValidationError)


def test_every_problem_gets_its_line():
    with pytest.raises(ValueError, match="width") as caught:
        Outer.parse({"inner": {"width": 0, "rate": "fast"}, "flag": "perhaps"})
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "inner.width",
        "inner.rate",
        "flag",
    ]


@given(st.integers(1, 10**6))
def test_updating_changes_one_field_and_leaves_the_original(width: int):
    before = Outer(name="kept")
    after = before.updated("inner.width", width)
    assert after == Outer(inner=Inner(width=width), name="kept")
    assert before == Outer(name="kept")


def test_updating_can_replace_a_whole_group():
    assert Outer().updated("inner", {"rate": 0.25}).inner == Inner(rate=0.25)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        pytest.param(
            "inner.widht", 3, r"unknown key 'widht' in Inner: did you mean 'width'\?", id="unknown leaf"
        ),
        pytest.param(
            "iner.width",
            3,
            r"unknown key 'iner' in 'iner\.width': did you mean 'inner'\?",
            id="unknown group",
        ),
        pytest.param(
            "name.first",
            "x",
            r"'name\.first' does not name a field: 'name' holds the value 'demo'",
            id="below a value",
        ),
        pytest.param(
            "name.a.b",
            "x",
            r"'name\.a\.b' does not name a field: 'name' holds the value 'demo'",
            id="far below a value",
        ),
        pytest.param("inner.width", 0, r"inner\.width: .*greater than or equal to 1", id="out of range"),
        pytest.param("", 1, "unknown key ''", id="empty path"),
    ],
)
def test_a_bad_update_is_an_error(path, value, message):
    with pytest.raises(ValueError, match=message):
        Outer().updated(path, value)


def test_the_digest_tells_configurations_apart_and_is_stable():
    assert Outer().digest() == Outer().digest()
    assert Outer().digest() != Outer(flag=True).digest()
    assert Outer().digest() != Outer(inner=Inner(width=5)).digest()
    assert len(Outer().digest()) == 12
    assert set(Outer().digest()) <= set(string.hexdigits.lower())
    # A literal, since runs are recognised by it: equal settings must have equal digests in every later
    # version and process.
    assert Inner().digest() == "ef913072fa51"


def test_a_later_field_counts_only_once_it_is_used():
    class Old(StrictConfig):
        width: int = 3

    class New(Old):
        depth: int = Field(1, json_schema_extra=LATER)

    class Whole(StrictConfig):
        part: New = New()

    assert New().digest() == Old().digest() == New(depth=1).digest()
    assert len({Old().digest(), New(depth=2).digest(), New(depth=3).digest(), New(width=4).digest()}) == 4
    assert Whole(part=New()).digest() != Whole(part=New(depth=2)).digest()


def test_an_optional_package_that_is_absent_names_its_extra():
    assert optional("json.decoder", extra="none").JSONDecoder
    with pytest.raises(
        ImportError,
        match=r"this needs no_such_package, which is not installed: pip install 'torchcram\[sklearn\]'",
    ):
        optional("no_such_package.base", extra="sklearn")


class Numbers(StrictConfig):
    count: int = 1
    rates: dict[str, float] = Field(default_factory=dict)
    pairs: tuple[tuple[int, int], ...] = ()
    anything: dict[str, Any] = Field(default_factory=dict)
    switch: bool | None = None
    inner: Outer = Outer()


@pytest.mark.parametrize(
    "data", [{"count": True}, {"rates": {"a": False}}, {"pairs": [[0, True]]}, {"inner": {"pair": [1, True]}}]
)
def test_true_is_no_number(data):
    """pydantic takes it for 1."""
    with pytest.raises(ValueError, match=r"(count|rates|pairs|pair) is neither true nor false"):
        Numbers.parse(data)


def test_true_is_true_where_it_is_asked_for():
    data = {"switch": True, "anything": {"a": [True]}, "inner": {"flag": True}}
    config = Numbers.parse(data)
    assert (config.switch, config.anything, config.inner.flag) == (True, {"a": [True]}, True)
    assert Numbers.parse({"count": 1}).count == 1
