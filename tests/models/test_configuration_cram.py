"""The configuration: what is misspelt is named, what is saved comes back."""

import pytest
from transformers import AutoConfig

from tiny_language_models import tiny_config
from torchcram.models.configuration_cram import CRAMConfig


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hiden_size": 32}, r"unknown key 'hiden_size' in CRAMConfig: did you mean 'hidden_size'\?"),
        ({"mixer": "transfomer"}, r"unknown mixer 'transfomer': did you mean 'transformer'\?"),
        ({"mixer_options": {"slot": 3}}, r"unknown option 'slot' of mixer 'cram': did you mean 'slots'\?"),
        ({"mixer_options": {"window": 0}}, "window 0 must be at least 1"),
        ({"hidden_size": 30}, r"d_model 30 is not a multiple of 4 x heads = 16 .*: use 32"),
        ({"routing": "dens"}, r"unknown routing 'dens': did you mean 'dense'\?"),
        ({"reads": "al"}, r"unknown reads 'al': did you mean 'all'\?"),
        ({"max_position_embeddings": 0}, "max_position_embeddings 0 must be above 0"),
        ({"num_hidden_layers": 0}, "num_hidden_layers 0 must be above 0"),
    ],
)
def test_what_cannot_be_is_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=message):
        CRAMConfig(**fields)


def test_a_value_of_the_wrong_type_is_refused():
    with pytest.raises(Exception, match="vocab_size"):
        CRAMConfig(vocab_size="many")


def test_what_is_saved_comes_back(tmp_path):
    config = tiny_config(
        options={"window": 5}, max_position_embeddings=99, threshold_shift=0.5, eos_token_id=3
    )
    config.save_pretrained(tmp_path)
    loaded = CRAMConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert loaded.mixer_options == {"slots": 8, "window": 5}


def test_what_a_tool_has_set_comes_back(tmp_path, caplog):
    """A misspelt field in a file is named; what Transformers itself sets is not."""
    config = tiny_config()
    config.some_tool, config.hiden_size = {"version": 1}, 3
    config.quantization_config = {"quant_method": "torchao"}
    config.save_pretrained(tmp_path)
    with caplog.at_level("WARNING", logger="transformers.torchcram"):
        loaded = AutoConfig.from_pretrained(tmp_path)
    assert (loaded.some_tool, loaded.hiden_size) == ({"version": 1}, 3)
    assert loaded.quantization_config == {"quant_method": "torchao"}
    said = [record.getMessage() for record in caplog.records]
    assert [message.split("'")[1] for message in said] == ["hiden_size", "some_tool"]
    assert said[0].endswith("it is kept as an attribute (did you mean 'hidden_size'?)")
    assert said[1].endswith("no field of CRAMConfig: it is kept as an attribute (no field is like it)")
    assert loaded.to_diff_dict() == config.to_diff_dict()
    assert CRAMConfig.from_dict(config.to_dict(), return_unused_kwargs=True, foo=1)[1] == {"foo": 1}


def test_fields_are_checked_also_when_they_are_changed_on_loading(tmp_path):
    tiny_config().save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path, num_hidden_layers=3).num_hidden_layers == 3
    for changes, message in (
        ({"routing": "dens"}, "unknown routing 'dens': did you mean 'dense'"),
        ({"mixer_options": {"slot": 3}}, "unknown option 'slot' of mixer 'cram'"),
    ):
        with pytest.raises(ValueError, match=message):
            AutoConfig.from_pretrained(tmp_path, **changes)


def test_the_signature_is_what_a_cache_depends_on():
    assert tiny_config().signature() == tiny_config(threshold_shift=1.0, reads="all").signature()
    assert tiny_config().signature() != tiny_config(options={"window": 5}).signature()
