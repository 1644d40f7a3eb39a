"""Models come from folders and GGUF files; what cannot be loaded says what to do."""

from types import SimpleNamespace

import pytest
import torch

from tiny_models import tiny_model
from torchcram.analysis import loading
from torchcram.analysis.loading import load_model, require_memory


def test_too_large_a_model_is_refused_before_loading_with_the_estimate(monkeypatch, tmp_path):
    tiny_model("llama").save_pretrained(tmp_path)
    monkeypatch.setattr(loading.psutil, "virtual_memory", lambda: SimpleNamespace(available=2**10))
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)
    with pytest.raises(
        ValueError, match=r"has [\d,]+ parameters: with statistics it needs about 0\.0 GiB in float32, and 0\.0 GiB are free; .* or --dtype bfloat16"
    ):
        load_model(str(tmp_path))


def test_the_estimate_is_that_of_weights_and_statistics():
    with pytest.raises(ValueError, match=r"huge has 70,000,000,000,000 parameters: with statistics it needs about 195577\.7 GiB in bfloat16"):
        require_memory("huge", 70 * 10**12, torch.bfloat16)
    require_memory("small", 1000, torch.float32)


def test_a_hub_id_without_a_connection_says_what_to_do(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def offline(*arguments, **options):
        raise OSError("We couldn't connect to 'https://huggingface.co' to load the files")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", offline)
    with pytest.raises(ValueError, match=r"cannot load 'someone/model': .* without a connection, download it elsewhere .* and name the folder"):
        load_model("someone/model")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the folder holds no complete model of Transformers"):
        load_model(str(tmp_path))


def test_a_missing_gguf_file_is_refused():
    with pytest.raises(ValueError, match=r"there is no GGUF file nowhere\.gguf"):
        load_model("nowhere.gguf")


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="unknown dtype 'float8': did you mean 'float16'"):
        load_model("anything", dtype="float8")


def test_without_transformers_the_extra_is_named(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("torchcram.strict.import_module", missing)
    with pytest.raises(ImportError, match=r"this needs transformers, which is not installed: pip install 'torchcram\[hf\]'"):
        load_model("anything")
