"""Every configuration that ships can be read, and its model can be built."""

import re
from pathlib import Path

import pytest

from torchcram.training.build import build_model, build_task
from torchcram.training.presets import PRESETS, from_yaml, resolve
from torchcram.training.run_config import RunConfig


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_its_model(name):
    config = resolve(name)
    model = build_model(config, build_task(config))
    assert len(model.blocks) == config.model.layers
    assert sum(parameter.numel() for parameter in model.parameters()) > 10_000


def test_every_preset_bears_its_name():
    assert {name: preset().name for name, preset in PRESETS.items()} == {name: name for name in PRESETS}


def write(folder: Path, text: str) -> Path:
    file = folder / "run.yaml"
    file.write_text(text)
    return file


def test_a_file_changes_the_preset_that_it_names(tmp_path):
    config = from_yaml(
        write(tmp_path, "preset: demo\nname: mine\ntraining: {steps: 7}\nmodel: {options: {slots: 8}}\n")
    )
    expected = (
        PRESETS["demo"]()
        .updated("name", "mine")
        .updated("training.steps", 7)
        .updated("model.options", {"slots": 8})
    )
    assert config == expected


def test_a_byte_order_mark_and_words_beyond_ascii_are_read(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_bytes("\ufeff# größer\nseed: 010\n".encode())
    assert from_yaml(file) == RunConfig(seed=10)


def test_a_file_without_a_preset_changes_the_defaults(tmp_path):
    assert from_yaml(write(tmp_path, "seed: 4\n")) == RunConfig(seed=4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("preset: dmo", "unknown preset 'dmo': did you mean 'demo'?"),
        (
            "preset: demo\ntraining: {stesp: 3}",
            "unknown key 'stesp' in TrainingConfig: did you mean 'steps'?",
        ),
        ("training: 5", "training: "),
        ("- a\n- b", "must hold a mapping of configuration keys, got list"),
        ("a: [1", "is not valid YAML"),
        (
            "training: {steps: 3}\nseed: 1\ntraining: {clip: 1}",
            "the key 'training' stands there twice (line 3)",
        ),
        ("training: {steps: true}", "training: steps is neither true nor false"),
        ("", "must hold a mapping of configuration keys, got NoneType"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        from_yaml(write(tmp_path, text))
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_is_no_text_or_not_there_is_said(tmp_path):
    file = tmp_path / "run.yaml"
    with pytest.raises(ValueError, match=r"cannot read the configuration .*No such file"):
        resolve(str(file))
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"is no text file|is not valid YAML"):
        resolve(str(file))


def test_a_name_that_is_neither_preset_nor_file_gets_the_nearest():
    with pytest.raises(
        ValueError,
        match=r"unknown preset 'fulll': did you mean 'full'\? \(a configuration file must end in \.yaml\)",
    ):
        resolve("fulll")
