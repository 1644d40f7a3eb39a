"""Models come from folders and GGUF files; what cannot be loaded says what to do."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tiny_models import tiny_model
from torchcram.pretrained import loading
from torchcram.pretrained.loading import load_model, require_memory
from torchcram.pretrained.sites import find_sites


def test_too_large_a_model_is_refused_before_loading_with_the_estimate(monkeypatch, tmp_path):
    tiny_model("llama").save_pretrained(tmp_path)
    monkeypatch.setattr(loading.psutil, "virtual_memory", lambda: SimpleNamespace(available=2**10))
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)
    with pytest.raises(
        ValueError,
        match=(
            r"has [\d,]+ parameters: with statistics it needs about 0\.0 GiB in float32, and 0\.0 GiB "
            r"are free; .* or --dtype bfloat16"
        ),
    ):
        load_model(str(tmp_path))


def test_the_estimate_is_that_of_weights_and_statistics():
    with pytest.raises(
        ValueError,
        match=(
            r"huge has 70,000,000,000,000 parameters: with statistics it needs about 195577\.7 GiB in "
            r"bfloat16"
        ),
    ):
        require_memory("huge", 70 * 10**12, torch.bfloat16)
    require_memory("small", 1000, torch.float32)


def test_a_hub_id_without_a_connection_says_what_to_do(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def offline(*arguments, **options):
        raise OSError("We couldn't connect to 'https://huggingface.co' to load the files")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", offline)
    with pytest.raises(
        ValueError,
        match=(
            r"cannot load 'someone/model': .* without a connection, download it elsewhere .* and name "
            r"the folder"
        ),
    ):
        load_model("someone/model")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the folder holds no complete model of Transformers"):
        load_model(str(tmp_path))


def write_gguf(path):
    """Write a llama of one layer with random weights and a byte tokenizer, as converters do."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(64)
    letters = [*(chr(code) for code in range(33, 95)), "AB", "CD"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(letters)
    writer.add_token_types([1] * 64)
    writer.add_token_merges(["A B", "C D"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    shapes = {"token_embd": (64, 32), "output_norm": (32,), "output": (64, 32)}
    block = {
        "attn_norm": (32,),
        "ffn_norm": (32,),
        "attn_q": (32, 32),
        "attn_k": (16, 32),
        "attn_v": (16, 32),
        "attn_output": (32, 32),
    }
    block |= {"ffn_gate": (48, 32), "ffn_up": (48, 32), "ffn_down": (32, 48)}
    generator = np.random.default_rng(0)
    for name, shape in (shapes | {f"blk.0.{name}": shape for name, shape in block.items()}).items():
        writer.add_tensor(f"{name}.weight", generator.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_is_a_model_with_its_tokenizer(tmp_path):
    write_gguf(tmp_path / "tiny.gguf")
    model, tokenizer = load_model(str(tmp_path / "tiny.gguf"))
    (site,) = find_sites(model)
    assert (site.heads, site.head_size, site.width) == (4, 8, 32)
    assert next(model.parameters()).dtype == torch.float32
    assert len(tokenizer("ABC", add_special_tokens=False)["input_ids"]) >= 1


@pytest.mark.parametrize("left", [0, 3, 10, 30, 200, 12_000, 25_000, -5])
def test_a_gguf_file_that_is_cut_off_is_refused(tmp_path, left):
    """Its reader raises another error in every part of the file."""
    file = tmp_path / "tiny.gguf"
    write_gguf(file)
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(
        ValueError, match=r"cannot load '.*tiny\.gguf': the file is cut off or damaged"
    ) as caught:
        load_model(str(file))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_whose_files_are_cut_off_is_refused(tmp_path, name):
    tiny_model("gpt2").save_pretrained(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"the folder holds no complete model of Transformers"):
        load_model(str(tmp_path))


def test_a_missing_gguf_file_is_refused():
    with pytest.raises(ValueError, match=r"there is no GGUF file nowhere\.gguf"):
        load_model("nowhere.gguf")


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="unknown dtype 'flot16': did you mean 'float16'"):
        load_model("anything", dtype="flot16")


def test_without_transformers_the_extra_is_named(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("torchcram.strict.import_module", missing)
    with pytest.raises(
        ImportError, match=r"this needs transformers, which is not installed: pip install 'torchcram\[hf\]'"
    ):
        load_model("anything")
