"""What a configuration file seems to say is what it says."""

import math

import pytest

from torchcram.strict_yaml import load_yaml


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("010", 10),
        ("-07", -7),
        ("1_000", 1000),
        ("0", 0),
        ("1:10", "1:10"),
        ("1:10.5", "1:10.5"),
        ("1e-3", 0.001),
        ("1.0e-3", 0.001),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("3.", 3.0),
        (".inf", math.inf),
        ("2026-01-01", "2026-01-01"),
        ("=", "="),
        ("0x10", "0x10"),
        ("true", True),
        ("off", False),
        ("~", None),
        ("", None),
        ("'010'", "010"),
        ("- [1, 02]\n- {a: 1e-2}", [[1, 2], {"a": 0.01}]),
        ('{"learning_rate": 1e-05, "steps": [[0, 256]]}', {"learning_rate": 1e-5, "steps": [[0, 256]]}),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}", {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}}),
    ],
)
def test_values_mean_what_they_look_like(text, meaning):
    value = load_yaml(text)
    assert (value, type(value)) == (meaning, type(meaning))


def test_not_a_number_is_one():
    assert math.isnan(load_yaml(".nan"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", r"the key 'a' stands there twice \(line 3\)"),
        ("a:\n  b: 1\n  'b': 1", r"the key 'b' stands there twice \(line 3\)"),
        ("{a: 1, a: 1}", r"the key 'a' stands there twice \(line 1\)"),
        ("[1, 2", r"expected .*\(line 1\)"),
        ("a: b: c", r"mapping values are not allowed here \(line 1\)"),
        ("!!python/object/apply:os.getcwd []", r"could not determine a constructor .*\(line 1\)"),
        ("a: 1\n---\nb: 2", r"but found another document \(line 2\)"),
        ("\0", "special characters are not allowed"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_yaml(text)
    assert len(str(caught.value).splitlines()) == 1
