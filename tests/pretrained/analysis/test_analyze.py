"""From a model and text to summary, plan and details; interrupted analyses go on; bad days end in words."""

import json
import math
import signal

import pytest
import torch

import torchcram
from tiny_models import CharTokenizer, documents, tiny_model
from torchcram.pretrained.analysis import gather as gathering
from torchcram.pretrained.analysis.analyze import analyze, fingerprint
from torchcram.pretrained.analysis.gather import KeptPass
from torchcram.pretrained.analysis.measure import STAGES
from torchcram.pretrained.sites import find_sites
from torchcram.pretrained.store import Store

FIELDS = {
    *(
        "explained_variance_by_layer",
        "redundant_share",
        "replace_best",
        "replaced_looks_at",
        "drop_same",
        "drop_best",
    ),
    *("routed", "base_loss", "fit_tokens", "seconds", "forward_seconds"),
}


TIMES = ("seconds", "forward_seconds", "cost", "environment")


def without_times(content):
    return json.dumps({key: value for key, value in content.items() if key not in TIMES})


def windows_kept(folder):
    store = Store(folder, identity=json.loads((folder / "analysis.json").read_text()))
    return store.load("gather-fit", KeptPass).done


def test_the_summary_has_the_promised_fields(finished):
    summary = finished.summary
    assert set(summary) == FIELDS
    assert json.loads((finished.path / "summary.json").read_text()) == summary
    assert len(summary["explained_variance_by_layer"]) == 2
    assert set(summary["redundant_share"]) == {"explained", "cosine", "centred_cosine", "closeness"}
    assert (
        set(summary["replace_best"]) == set(summary["drop_same"]) == set(summary["drop_best"]) == {"1", "2"}
    )
    assert {record["policy"] for record in summary["routed"]} == {
        "oracle",
        "predicted_error",
        "predicted_harm",
        "predicted_harm_dropped",
    }
    assert all(set(record) == {"policy", "skip_rate", "loss_change"} for record in summary["routed"])
    assert summary["fit_tokens"] >= 1600
    assert summary["base_loss"] > 0
    assert 0 < summary["forward_seconds"] < summary["seconds"] * 10
    assert summary["drop_same"]["2"] == pytest.approx(summary["drop_best"]["2"])


def test_the_plan_names_layers_and_tokens_with_predicted_costs(finished):
    plan = finished.plan
    assert plan["layers"]["predicted_loss_change"] <= plan["allowed_loss_change"]
    assert set(plan["layers"]["replace"]) <= {0, 1}
    assert sorted(plan["layers"]["ranking"]) == [0, 1]
    if plan["tokens"] is not None:
        assert plan["tokens"]["predicted_loss_change"] <= plan["allowed_loss_change"]
        assert set(plan["tokens"]["skip_rate_by_layer"]) == {"0", "1"}


def test_the_details_hold_every_measure_of_every_layer(finished):
    layers = finished.details["layers"]
    assert [row["layer"] for row in layers] == [0, 1]
    for row in layers:
        assert set(row["controls"]) == {"token", "previous", "position", "mean", "shuffled"}
        assert len(row["explained_variance_by_head"]) == 4
        assert row["controls"]["mean"] <= 0
        assert row["controls"]["shuffled"] < 0.1
        assert 0 <= row["cca_bound"] <= 1
        assert -1 <= row["block_influence_cosine"] <= 1
        assert row["rank_curve"]["32"] == pytest.approx(row["explained_variance"])
        assert row["dropped_alone"]["divergence"] > 0
    assert finished.details["text"]["test"]["documents"] == 3
    assert finished.details["judged"]["variants"].keys() == {
        f"{kind}-{size}" for kind in ("replace", "plain", "drop_same", "drop_best") for size in (1, 2)
    }


def test_sums_are_gone_once_all_is_done_and_a_second_call_computes_nothing(finished, small, monkeypatch):
    assert not list(finished.path.glob("stages/gather-*"))
    monkeypatch.setattr("torchcram.pretrained.analysis.gather.gather", None)
    again = analyze(tiny_model("gpt2"), CharTokenizer(), documents(), settings=small, out=finished.path)
    assert again.summary == finished.summary


def test_the_model_is_left_as_it_was_also_in_training_mode(small):
    model = tiny_model("gpt2", resid_pdrop=0.5)
    model.train()
    before = (
        [sorted(vars(module)) for module in model.modules()],
        [module.training for module in model.modules()],
        model.config.to_dict(),
    )
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    found = torchcram.analyze(
        model,
        CharTokenizer(),
        documents(),
        settings=small.updated("skip_rates", [0.5]).updated("replace", [1]).updated("mlp_width", 0),
    )
    assert (
        [sorted(vars(module)) for module in model.modules()],
        [module.training for module in model.modules()],
        model.config.to_dict(),
    ) == before
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert found.path is None
    assert found.details["layers"][0]["explained_variance_mlp"] is None or math.isnan(
        found.details["layers"][0]["explained_variance_mlp"]
    )


def test_an_interrupted_analysis_goes_on_and_ends_with_the_same_figures(
    finished, small, tmp_path, monkeypatch
):
    monkeypatch.setattr(gathering, "KEEP_EVERY", 7)
    taken = gathering._take_in
    calls = []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 18:
            raise KeyboardInterrupt
        taken(*arguments, **options)

    monkeypatch.setattr(gathering, "_take_in", interrupted)
    run = {"settings": small, "out": tmp_path / "run", "name": "tiny"}
    with pytest.raises(KeyboardInterrupt):
        analyze(tiny_model("gpt2"), CharTokenizer(), documents(), **run)
    assert windows_kept(tmp_path / "run") == 14
    again = analyze(tiny_model("gpt2"), CharTokenizer(), documents(), **run)
    # 17 windows were taken in before the interruption, the 3 that were not kept are taken in again.
    assert again.summary["explained_variance_by_layer"] == pytest.approx(
        finished.summary["explained_variance_by_layer"], rel=1e-9
    )
    assert again.summary["replace_best"] == pytest.approx(finished.summary["replace_best"], abs=1e-5)


def test_ctrl_c_waits_for_the_window_and_keeps_it(small, tmp_path, monkeypatch):
    taken = gathering._take_in

    def interrupted(*arguments, **options):
        if options["state"].done == 4:
            signal.raise_signal(signal.SIGINT)
        taken(*arguments, **options)

    monkeypatch.setattr(gathering, "_take_in", interrupted)
    with pytest.raises(KeyboardInterrupt):
        analyze(tiny_model("gpt2"), CharTokenizer(), documents(), settings=small, out=tmp_path / "run")
    assert windows_kept(tmp_path / "run") == 5


def test_an_analysis_that_stops_after_every_stage_ends_with_the_very_same_findings(
    finished, small, tmp_path, monkeypatch
):
    keep, kept = Store.keep, []

    def keep_and_stop(self, stage, content, **options):
        keep(self, stage, content, **options)
        kept.append(stage)
        if stage in STAGES:
            raise KeyboardInterrupt

    monkeypatch.setattr(Store, "keep", keep_and_stop)
    run = {"settings": small, "out": tmp_path / "run", "name": "tiny"}
    for stages in range(1, len(STAGES) + 1):
        with pytest.raises(KeyboardInterrupt):
            analyze(tiny_model("gpt2"), CharTokenizer(), documents(), **run)
        assert [stage for stage in kept if stage in STAGES] == list(STAGES[:stages])
    again = analyze(tiny_model("gpt2"), CharTokenizer(), documents(), **run)
    assert without_times(again.details) == without_times(finished.details)
    assert without_times(again.summary) == without_times(finished.summary)
    assert again.plan == finished.plan


def test_another_model_text_or_setting_in_the_folder_is_refused(finished, small):
    other = tiny_model("gpt2")
    with torch.no_grad():
        other.transformer.wte.weight += 1
    for model, texts, settings, what in (
        (other, documents(), small, "model differ"),
        (tiny_model("gpt2"), documents(seed=1), small, "text differ"),
        (tiny_model("gpt2"), documents(), small.updated("harm_tokens", 200), "settings differ"),
    ):
        with pytest.raises(
            ValueError,
            match=rf"holds another analysis \({what}\): choose another folder with --out, or delete it",
        ):
            analyze(model, CharTokenizer(), texts, settings=settings, out=finished.path)


def test_two_analyses_never_write_the_same_folder(small, tmp_path, monkeypatch):
    refused = []

    def start() -> None:
        analyze(tiny_model("gpt2"), CharTokenizer(), documents(), settings=small, out=tmp_path / "run")

    def meanwhile(*arguments, **options):
        with pytest.raises(ValueError, match=r"another process is at .*run: wait until it has ended"):
            start()
        refused.append(True)
        raise KeyboardInterrupt

    monkeypatch.setattr(gathering, "_take_in", meanwhile)
    with pytest.raises(KeyboardInterrupt):
        start()
    assert refused == [True]


def test_a_folder_of_something_else_is_refused(small, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match=r"exists and is no analysis \(it has no analysis\.json\)"):
        analyze(tiny_model("gpt2"), CharTokenizer(), documents(), settings=small, out=tmp_path)


def test_fewer_tokens_than_the_probe_needs_are_refused(small):
    with pytest.raises(
        ValueError,
        match=(
            r"64 fit tokens are too few for probes with 32 inputs|fit tokens are too few for probes "
            r"with 32 inputs: give at least 64"
        ),
    ):
        analyze(tiny_model("gpt2"), CharTokenizer(), documents(), settings=small.updated("tokens", 30))


def test_a_context_longer_than_the_models_is_refused(small):
    with pytest.raises(
        ValueError, match="the context of 128 tokens is longer than the model's 64: use --context 64"
    ):
        analyze(tiny_model("gpt2"), CharTokenizer(), documents(), settings=small.updated("context", 128))


def test_a_model_that_cannot_be_run_layer_by_layer_is_refused_before_any_work(small, monkeypatch):
    model = tiny_model("llama")
    layer = model.model.layers[1]
    # As a model would that passes something past the list of layers.
    model.model.norm.register_forward_hook(
        lambda module, args, out: out + (0 if vars(layer).get("forward") else 5.0)
    )
    monkeypatch.setattr("torchcram.pretrained.analysis.measure.gather_all", None)
    with pytest.raises(ValueError, match="hands more than hidden states from layer to layer"):
        analyze(model, CharTokenizer(), documents(), settings=small)


def test_a_buffer_that_is_nearly_the_window_is_refused(small):
    assert [small.updated("local_reach", reach).reach for reach in (0, 4, None)] == [0, 4, 1]
    with pytest.raises(
        ValueError,
        match=r"local_reach 5 lets a probe see up to 11 of a window's 32 tokens, .*: use 4 or less",
    ):
        small.updated("local_reach", 5)


def test_an_overflow_in_half_precision_is_said(small):
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight *= 1e4
        model.model.layers[1].self_attn.v_proj.weight *= 1e5
    with pytest.raises(
        FloatingPointError,
        match=r"the attention of layer 1 overflows in float16: load the model in float32 \(--dtype float32\)",
    ):
        analyze(model.half(), CharTokenizer(), documents(), settings=small)


def test_a_hybrid_is_analysed_in_its_attention_layers_alone(small):
    found = analyze(
        tiny_model("jamba"),
        CharTokenizer(),
        documents(),
        settings=small.updated("skip_rates", [0.5]).updated("replace", [1]),
    )
    assert [row["layer"] for row in found.details["layers"]] == [1, 3]


def test_another_checkpoint_has_another_fingerprint():
    one, other = tiny_model("gpt2"), tiny_model("gpt2")
    assert fingerprint(one) == fingerprint(other)
    with torch.no_grad():
        other.transformer.h[1].attn.c_proj.weight += 1e-3
    assert fingerprint(one) != fingerprint(other)


def test_statistics_of_copied_layers_are_alike():
    """Two layers with the same weights in the same place of the same computation have the same heads:
    sites are not mixed up."""
    model = tiny_model("llama")
    sites = find_sites(model)
    assert [site.name for site in sites] == ["model.layers.0.self_attn", "model.layers.1.self_attn"]
    assert sites[0].module is model.model.layers[0].self_attn
