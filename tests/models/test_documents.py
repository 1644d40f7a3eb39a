"""Documents as users pass them, and what is said of those that are none."""

import re

import pytest
import torch

from tiny_language_models import left_padded, tokens
from torchcram.models.documents import Documents, Predictions, document_judge, load_documents
from torchcram.types import Route


def test_batches_may_be_ids_or_mappings():
    ids, mask = left_padded(tokens(3, 6), [6, 4, 2])
    plain, masked = load_documents([tokens(2, 5), {"input_ids": ids, "attention_mask": mask}])
    assert plain.real.all()
    assert plain.tokens.shape == (2, 5)
    assert torch.equal(masked.real, mask.bool())
    assert torch.equal(masked.rows(torch.tensor([2])).tokens, ids[2:])


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "there are no documents to calibrate on: pass batches of token ids"),
        (torch.ones(2, 3).long(), "batches is one Tensor: pass a list of batches, [batch]"),
        ({"input_ids": torch.ones(2, 3).long()}, "batches is one dict: pass a list of batches, [batch]"),
        ("text", "batches is one str: pass a list of batches, [batch]"),
        ([torch.ones(3).long()], "batch 0 is torch.int64 [3]: token ids are integers, [documents, tokens]"),
        ([torch.ones(2, 3)], "batch 0 is torch.float32 [2, 3]: token ids are integers"),
        ([torch.ones(2, 0).long()], "batch 0 is torch.int64 [2, 0]: token ids are integers"),
        ([{"ids": 1}], "batch 0 has no 'input_ids', only ids"),
        ([{}], "batch 0 has no 'input_ids', only nothing"),
        (
            [torch.ones(1, 2).long(), {"input_ids": [[1, 2]]}],
            "batch 1 holds its token ids as list: pass a tensor (return_tensors='pt')",
        ),
        (
            [{"input_ids": torch.ones(2, 3).long(), "attention_mask": torch.ones(2, 4)}],
            "batch 0 has an attention_mask [2, 4] for input_ids [2, 3]",
        ),
    ],
)
def test_what_are_no_documents_is_named(batches, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        load_documents(batches)


def test_losses_and_reads_are_shares_of_the_real_tokens():
    documents = Documents(
        tokens=torch.zeros(2, 4).long(), real=torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]]).bool()
    )

    def predict(batch, control):
        """Two layers; below a shift of 0 the last two tokens are answered otherwise, and only the second
        layer reads, at the last token."""
        routes = torch.full((len(batch.tokens), 2, 4), int(Route.EPISODIC), dtype=torch.uint8)
        answers = torch.zeros_like(batch.tokens)
        if control.threshold_shift < 0:
            routes[:, 0], routes[:, 1, :3], answers[:, 2:] = int(Route.SEMANTIC), int(Route.WORKING), 1
        return Predictions(tokens=answers, routes=routes)

    judge = document_judge(documents, predict, most_cautious=5.0)
    every = torch.arange(2)
    silent, skipping = judge(5.0, every), judge(-1.0, every)
    assert silent.losses.tolist() == silent.skipped.tolist() == [0.0, 0.0]
    assert skipping.losses.tolist() == [0.5, 1.0]
    assert skipping.skipped.tolist() == [0.75, 0.5]
    assert skipping.reads.tolist() == [0.25, 0.5]
    assert silent.routes != skipping.routes
    assert judge(-1.0, torch.tensor([1])).losses.tolist() == [1.0]
