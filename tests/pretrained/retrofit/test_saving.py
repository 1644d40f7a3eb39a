"""Saved, loaded by Transformers' own classes, and taken out again."""

import json

import pytest
import torch
import transformers

from retrofitted import SUPPORTED, make_retrofitted
from tiny_models import tiny_model
from torchcram.pretrained.retrofit.install import is_retrofitted, remove, retrofit_of
from torchcram.pretrained.retrofit.saving import base_digest, load_adapter, save_adapter, save_retrofit


@pytest.fixture(autouse=True)
def no_warnings_of_names(monkeypatch):
    transformers.logging.set_verbosity_error()


@torch.no_grad()
@pytest.mark.parametrize("family", SUPPORTED)
def test_a_saved_model_is_loaded_by_the_auto_class(family, ids, tmp_path):
    model = make_retrofitted(family, price=0.25, unread=(1,))
    folder = save_retrofit(model, None, tmp_path / "model")
    loaded, loading = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    assert loaded.config.model_type == tiny_model(family).config.model_type
    assert json.loads((folder / "config.json").read_text())["architectures"] == [type(model).__name__]
    state = loaded.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    # Sums may round otherwise where a file's tensors lie at other addresses.
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits, rtol=1e-5, atol=1e-5)
    assert retrofit_of(loaded).settings == retrofit_of(model).settings
    assert retrofit_of(loaded).control.price == 0.25
    again = save_retrofit(loaded, None, tmp_path / "again")
    twice = transformers.AutoModelForCausalLM.from_pretrained(again).state_dict()
    assert all(torch.equal(value, twice[name]) for name, value in state.items())
    assert torch.equal(remove(loaded)(ids).logits, tiny_model(family)(ids).logits)
    plain = loaded.config.to_dict()
    assert "quantization_config" not in plain


def test_only_safetensors_are_written_and_nothing_is_left_beside_them(tmp_path):
    save_retrofit(make_retrofitted(), None, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert names == {"config.json", "generation_config.json", "model.safetensors"}


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
    model = make_retrofitted()

    def full(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(model, "save_pretrained", full)
    with pytest.raises(OSError, match="no space left"):
        save_retrofit(model, None, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_never_overwritten(tmp_path):
    with pytest.raises(ValueError, match="exists: choose another folder"):
        save_retrofit(make_retrofitted(), None, tmp_path)


def test_memories_stay_in_full_precision_when_the_model_is_loaded_in_half(tmp_path):
    folder = save_retrofit(make_retrofitted(), None, tmp_path / "model")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    kinds = {name: value.dtype for name, value in loaded.state_dict().items()}
    assert {kind for name, kind in kinds.items() if ".cram." in name} == {torch.float32}
    assert {kind for name, kind in kinds.items() if ".cram." not in name} == {torch.bfloat16}
    assert torch.isfinite(loaded(torch.arange(3, 40)[None]).logits).all()


@torch.no_grad()
def test_the_adapter_alone_makes_the_same_model(ids, tmp_path):
    model = make_retrofitted()
    save_adapter(model, tmp_path / "adapter")
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter.safetensors",
        "retrofit.json",
    }
    loaded = load_adapter(tiny_model("llama"), tmp_path / "adapter")
    assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_an_adapter_of_another_model_is_refused(tmp_path):
    save_adapter(make_retrofitted(), tmp_path)
    other = tiny_model("llama")
    with torch.no_grad():
        other.lm_head.weight[0, 0] += 1
    with pytest.raises(ValueError, match="made for other weights than these"):
        load_adapter(other, tmp_path)
    assert not is_retrofitted(other)


def test_a_damaged_adapter_is_refused_and_the_model_stays_untouched(tmp_path, ids):
    save_adapter(make_retrofitted(), tmp_path)
    (tmp_path / "adapter.safetensors").write_bytes(b"\x00" * 20)
    model = tiny_model("llama")
    with pytest.raises(ValueError, match="is damaged"):
        load_adapter(model, tmp_path)
    assert not is_retrofitted(model)
    with pytest.raises(ValueError, match="holds no adapter"):
        load_adapter(model, tmp_path / "nowhere")


def test_an_adapter_of_another_format_is_refused(tmp_path):
    save_adapter(make_retrofitted(), tmp_path)
    description = json.loads((tmp_path / "retrofit.json").read_text())
    description["settings"]["format"] = 99
    (tmp_path / "retrofit.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match="saved in format 99"):
        load_adapter(tiny_model("llama"), tmp_path)


@torch.no_grad()
def test_an_adapter_from_before_entries_were_kept_loads_as_it_was(tmp_path, ids):
    model = make_retrofitted(kept=0)
    save_adapter(model, tmp_path)
    description = json.loads((tmp_path / "retrofit.json").read_text())
    description["settings"] = {**description["settings"], "format": 1}
    del description["settings"]["kept"]
    (tmp_path / "retrofit.json").write_text(json.dumps(description))
    loaded = load_adapter(tiny_model("llama"), tmp_path)
    assert retrofit_of(loaded).settings.kept == 0
    assert retrofit_of(loaded).settings.format == 2
    assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_the_digest_is_of_the_untouched_weights():
    assert base_digest(make_retrofitted()) == base_digest(tiny_model("llama"))
    assert base_digest(tiny_model("gpt2")) != base_digest(tiny_model("llama"))


def test_a_quantized_model_is_refused():
    model = tiny_model("llama")

    class Quantizer:
        class quantization_config:  # noqa: N801
            quant_method = "bitsandbytes"

    model.hf_quantizer = Quantizer()
    from torchcram.pretrained.retrofit.install import install
    from torchcram.pretrained.retrofit.settings import RetrofitSettings

    with pytest.raises(ValueError, match=r"is quantized \(bitsandbytes\)"):
        install(model, RetrofitSettings())
