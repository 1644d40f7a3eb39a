"""The judge as a whole: text by position, the exam, speed; kept, taken up, shown."""

import json
from dataclasses import asdict

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from retrofitted import KEPT, SINKS, WINDOW, make_retrofitted
from tiny_models import documents, random_windows, tiny_model
from torchcram.cli import app
from torchcram.pretrained.judging import kept, material, parts, verdict
from torchcram.pretrained.judging.by_position import judge_by_position, prices, ways_of
from torchcram.pretrained.judging.speed import cache_bytes, measure_speed, untouched
from torchcram.pretrained.judging.tables import print_results
from torchcram.pretrained.retrofit.install import memories
from torchcram.pretrained.retrofit.judge import Setting, judge

CONTEXT = 400


def verdict_of(model, tokenizer, out=None, **changes):
    given = {
        "texts": documents(20, 500),
        "context": CONTEXT,
        "windows": 2,
        "papers": 1,
        "show_progress": False,
    }
    return verdict.judge(model, tokenizer, out=out, **{**given, **changes})


def test_blocks_add_up_to_the_whole(model):
    windows = [*random_windows(2, seed=1, tokens=24), *random_windows(1, seed=2, tokens=17)]
    ways = ways_of(model, {0.5: 0.1})
    stretches = judge_by_position(model, windows, ways, block=10)
    whole = {each.way: each for each in stretches if (each.start, each.end) == (0, 24)}
    plain = judge(model, windows, {"as saved": Setting(), "no reads": Setting(reads="none")})
    for name, expected in plain.items():
        found = whole[name]
        assert (found.divergence, found.loss_change, found.agreement, found.reads) == (
            expected.divergence, expected.loss_change, expected.agreement, expected.reads,
        )  # fmt: skip
    parts = [each for each in stretches if each.way == "no reads" and each.start % 10 == 0][1:]
    assert [(each.start, each.end) for each in parts] == [(0, 10), (10, 20), (20, 24)]
    tokens = [30, 27, 8]
    assert sum(each.divergence * count for each, count in zip(parts, tokens, strict=True)) == pytest.approx(
        65 * whole["no reads"].divergence
    )
    predicted = [30, 26, 6]
    assert sum(
        each.loss_change * count for each, count in zip(parts, predicted, strict=True)
    ) == pytest.approx(62 * whole["no reads"].loss_change)
    assert whole["all reads"].divergence == whole["all reads"].loss_change == 0


@torch.no_grad()
def test_the_loss_is_that_of_the_model(model):
    (ids,) = random_windows(1, seed=3)
    found = judge_by_position(model, [ids], ways_of(model, {}))
    expected = model(input_ids=ids[None], labels=ids[None]).loss
    (saved,) = [each for each in found if each.way == "as saved"]
    assert saved.loss == pytest.approx(float(expected), rel=1e-5)


def test_prices_buy_their_shares(model):
    windows = random_windows(6, seed=4, tokens=60)
    price_of = prices(model, windows, shares=(0.5, 0.2))
    found = judge_by_position(model, windows, ways_of(model, price_of))
    reads = {each.way: each.reads for each in found}
    assert reads["50% reads"] == pytest.approx(0.5, abs=0.05)
    assert reads["20% reads"] == pytest.approx(0.2, abs=0.05)


@torch.no_grad()
def test_the_untouched_model_comes_and_goes():
    plain, model = tiny_model("llama"), make_retrofitted(price=1e3)
    ids = torch.arange(3, 43)[None]
    ours = model(ids).logits
    with untouched(model):
        assert torch.equal(model(ids).logits, plain(ids).logits)
    with pytest.raises(RuntimeError, match="on purpose"), untouched(model):
        raise RuntimeError("on purpose")
    assert torch.equal(model(ids).logits, ours)
    assert not torch.equal(ours, plain(ids).logits)
    assert len(memories(model)) == 2


def test_speed_is_measured_with_both():
    model = make_retrofitted(price=0.0, unread=(1,))
    ids = torch.randint(3, 60, (2, 300), generator=torch.Generator().manual_seed(0))
    speed = measure_speed(model, ids, steps=2, rounds=2)
    entry = 2 * 2 * 2 * 8 * 4
    assert speed.untouched_cache_bytes == 2 * 300 * entry
    # What is kept stands beside the whole of a layer that reads.
    assert speed.cache_bytes == (300 + KEPT + SINKS + WINDOW + KEPT) * entry
    assert speed.reads == 0.5
    assert min(speed.tokens_per_second, speed.untouched_tokens_per_second, speed.prefill_ratio) > 0
    assert speed.ratio > 0
    assert cache_bytes(model(ids).past_key_values) == speed.cache_bytes


def test_a_judgement_is_kept_taken_up_and_shown(model, tokenizer, tmp_path, monkeypatch):
    (tmp_path / kept.FILE).write_text('{"plan": {"fit": 3}}')
    found = verdict_of(model, tokenizer, tmp_path)
    told = json.loads((tmp_path / kept.FILE).read_text())
    assert told["plan"] == {"fit": 3}
    assert told["text"]["found"] == [asdict(each) for each in found.text]
    assert told["retrieval"]["found"] == [asdict(each) for each in found.retrieval]
    assert {each.task for each in found.retrieval} == set(parts.TASKS)
    assert {each.way for each in found.retrieval} == {"as saved", "25% reads", "10% reads", "no reads"}
    console = Console(record=True, width=120)
    found.show(console)
    shown = console.export_text()
    for words in ("several keys", "0-256", "tokens/s", "worst task first", "0 of 4"):
        assert words in shown

    def refuse(*args, **kwargs):
        raise AssertionError("judged anew")

    with monkeypatch.context() as patch:
        for name in ("judge_by_position", "examine", "measure_speed", "prices"):
            patch.setattr(parts, name, refuse)
        assert verdict_of(model, tokenizer, tmp_path) == found
        with pytest.raises(AssertionError, match="judged anew"):
            verdict_of(make_retrofitted(price=0.4), tokenizer, tmp_path)
        with pytest.raises(AssertionError, match="judged anew"):
            verdict_of(model, tokenizer, tmp_path, papers=2)


def test_what_was_interrupted_goes_on_with_its_parts(model, tokenizer, tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(parts, "examine", stop)
        with pytest.raises(KeyboardInterrupt):
            verdict_of(model, tokenizer, tmp_path)
    told = json.loads((tmp_path / kept.FILE).read_text())
    assert set(told) == {"prices", "text"}
    monkeypatch.setattr(parts, "judge_by_position", stop)
    again = verdict_of(model, tokenizer, tmp_path, speed=False)
    assert [asdict(each) for each in again.text] == told["text"]["found"]


def test_without_text_there_is_an_exam(model, tokenizer):
    found = verdict_of(model, tokenizer, texts=(), speed=False)
    assert found.text == []
    assert {each.way for each in found.retrieval} == {"as saved", "no reads"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"context": 7}, "context 7 holds nothing beyond the near tokens"),
        ({"context": 100}, "too short for the facts of an exam"),
        ({"papers": 0}, "papers 0 must be above 0"),
        ({"texts": ["short"]}, "too short"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_cannot_be_judged_is_told(changes, told, model, tokenizer, tmp_path):
    with pytest.raises(ValueError, match=told):
        verdict_of(model, tokenizer, tmp_path, **changes)
    assert not (tmp_path / kept.FILE).exists()


def test_an_untouched_model_is_refused(tokenizer):
    with pytest.raises(ValueError, match="is not retrofitted"):
        verdict_of(tiny_model("llama"), tokenizer)


def test_a_damaged_file_is_told(model, tokenizer, tmp_path):
    (tmp_path / kept.FILE).write_text("{")
    with pytest.raises(ValueError, match="delete it, and judge again"):
        verdict_of(model, tokenizer, tmp_path)


def test_the_command_judges(model, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("torchcram.pretrained.loading.load_model", lambda name, dtype: (model, tokenizer))
    (tmp_path / "text.txt").write_text("\n".join(documents(20, 900)))
    arguments = ["--context", str(CONTEXT), "--windows", "1", "--papers", "1", "--no-speed", "--quiet"]
    place = tmp_path / "verdict"
    with pytest.warns(UserWarning, match="only 1 documents"):
        told = CliRunner().invoke(
            app, ["judge", "some/model", str(tmp_path / "text.txt"), "--out", str(place), *arguments]
        )
    assert told.exit_code == 0, told.output
    assert "worst task first" in told.stdout
    assert (place / "judged.json").is_file()


@pytest.mark.slow
def test_rivals_are_judged_drawn_and_taken_up(model, tokenizer, tmp_path, monkeypatch):
    given = {
        "papers": 1, "windows": 1, "speed": False, "rivals": True, "fit_texts": documents(20, 900, seed=5),
    }  # fmt: skip
    monkeypatch.setattr(parts, "examine", lambda *args, **kwargs: [])
    found = verdict_of(model, tokenizer, tmp_path, **given)
    assert (tmp_path / "frontier.png").read_bytes().startswith(b"\x89PNG")
    console = Console(record=True, width=120)
    print_results(found.rivals, console)
    assert "near alone" in console.export_text()
    monkeypatch.setattr(parts, "compare", lambda *args, **kwargs: pytest.fail("judged anew"))
    assert verdict_of(model, tokenizer, tmp_path, **given).rivals == found.rivals
    with pytest.raises(ValueError, match="rivals are judged on text"):
        verdict_of(model, tokenizer, texts=(), rivals=True)


def test_what_is_judged_sets_no_budget(model, tokenizer):
    """With text of its own to fit on, all other text is judged; else a part of it is held out."""

    def dealt(fit_texts):
        return material.deal(
            model, tokenizer, documents(20, 900), fit_texts, tokens=CONTEXT, windows=100, seed=0
        )

    alone, helped = dealt(()), dealt(documents(20, 900, seed=5))
    assert len(helped.test) > 5 * len(alone.test)
    for text in (alone, helped):
        judged = {tuple(ids.tolist()) for ids in text.test}
        assert not judged & {tuple(ids.tolist()) for ids in [*text.fit, *text.select]}
        assert len(text.select) == material.SELECT
