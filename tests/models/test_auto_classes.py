"""The Auto classes find a saved model, whoever is imported first, and nothing is imported before it is asked
for."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Trainer, TrainingArguments, pipeline
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.trainer_pt_utils import LabelSmoother

from fresh_process import run
from tiny_language_models import tiny_config, tokens
from torchcram.models.modeling_cram import CRAMForCausalLM

ORDERS = {
    "torchcram first": "import torchcram\nfrom transformers import AutoModelForCausalLM",
    "Transformers first": "from transformers import AutoModelForCausalLM\nimport torchcram",
    "Trainer first": "from transformers import Trainer, AutoModelForCausalLM\nimport torchcram",
    "between": "import transformers, torchcram\nfrom transformers import AutoModelForCausalLM",
    "configuration alone": "from transformers import AutoModelForCausalLM\nfrom torchcram import CRAMConfig",
}
LOAD = """
import sys
from transformers import AutoConfig, AutoModel
assert "torchcram.models.modeling_cram" not in sys.modules or "CRAMConfig" in globals()
folder = sys.argv[1]
config = AutoConfig.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
assert type(model).__name__ == "CRAMForCausalLM", type(model)
assert type(AutoModel.from_pretrained(folder)).__name__ == "CRAMModel"
assert type(AutoModelForCausalLM.from_config(config)).__name__ == "CRAMForCausalLM"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model with a tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    place = tmp_path_factory.mktemp("saved")
    CRAMForCausalLM(tiny_config()).save_pretrained(place)
    words = Tokenizer(models.WordLevel({f"w{word}": word for word in range(23)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", eos_token="w1").save_pretrained(place)
    return place


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_a_saved_model_is_found_in_any_order_of_imports(order, folder):
    result = run(order + LOAD, str(folder))
    assert result.returncode == 0, result.stderr


def test_torchcram_needs_no_transformers():
    result = run("import sys; sys.modules['transformers'] = None; import torchcram; torchcram.RoutingControl")
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_the_tables_hold_no_more_than_the_model_type():
    program = """
import torchcram
from transformers.models.auto import modeling_auto as tables
import transformers.models.cram as ours
assert ours.CRAMConfig is torchcram.CRAMConfig
for absent in ("LlamaConfig", "__file__"):
    try:
        getattr(ours, absent)
    except AttributeError:
        continue
    raise AssertionError(absent)
held = {name for name in vars(tables) if name.endswith("_NAMES") and "cram" in getattr(tables, name)}
assert held == {"CONFIG_MAPPING_NAMES", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "MODEL_MAPPING_NAMES"}, held
"""
    result = run(program)
    assert result.returncode == 0, result.stderr


# who else asks the tables


def test_pipelines_take_the_model(folder, caplog):
    generator = pipeline("text-generation", model=str(folder))
    with caplog.at_level("ERROR", logger="transformers"):
        (answer,) = generator("w5 w7", max_new_tokens=3, do_sample=False)
    assert "not supported" not in caplog.text
    assert len(answer["generated_text"].split()) >= 3
    assert AutoTokenizer.from_pretrained(folder).pad_token == "w0"


def test_label_smoothing_shifts_the_labels(tmp_path):
    """It predicts the next token, not the token itself."""
    assert "CRAMForCausalLM" in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    model, rows = CRAMForCausalLM(tiny_config()), tokens(4, 8)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        label_smoothing_factor=0.1,
        dataloader_pin_memory=False,
        per_device_eval_batch_size=4,
        disable_tqdm=True,
    )
    data = [{"input_ids": row, "labels": row} for row in rows]
    judged = Trainer(model=model, args=arguments, eval_dataset=data).evaluate()
    with torch.no_grad():
        expected = LabelSmoother(epsilon=0.1)(model(rows), rows, shift_labels=True)
    assert judged["eval_loss"] == pytest.approx(float(expected))
