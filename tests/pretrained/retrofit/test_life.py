"""From one call to a saved model; interrupted anywhere and taken up again."""

import json

import pytest
import torch
import transformers
from typer.testing import CliRunner

from tiny_models import CharTokenizer, documents, tiny_model
from torchcram.cli import app
from torchcram.pretrained.retrofit import closed_stages, life, making, maturing, unread
from torchcram.pretrained.retrofit.certificate import load_certificate
from torchcram.pretrained.retrofit.install import is_retrofitted, remove, retrofit_of
from torchcram.pretrained.retrofit.plan import FEWEST, JUDGED, ROUTE, SELECT, plan_for, set_aside
from torchcram.pretrained.retrofit.settings import RetrofitSettings
from torchcram.pretrained.texts import Window

NEAR = RetrofitSettings(sinks=2, window=5, kept=3)


class Tokenizer(CharTokenizer):
    def save_pretrained(self, folder):
        (folder / "tokenizer.json").write_text("{}")


def make(out=None, *, model=None, **changes):
    given = {"reads": 0.25, "minutes": 0.05, "context": 48, "settings": NEAR, "show_progress": False}
    return life.retrofit(
        model or tiny_model("llama"),
        Tokenizer(),
        changes.pop("texts", documents()),
        out=out,
        **{**given, **changes},
    )


def with_few_windows(patch, **more):
    """However fast the machine is, a making takes the same few windows; more where a thousand minutes are
    given.
    """

    def planned(**given):
        plan = plan_for(**given)
        few = {"fit": 12 if given["minutes"] > 100 else 8, "refit": 4, "route": 4, "judged": 2}
        return plan.model_copy(update=few | more | ({} if given["needed"] else {"certify": 0}))

    patch.setattr(making, "plan_for", planned)
    patch.setattr("torchcram.pretrained.retrofit.router_fit.STEPS", 40)


def with_a_short_teaching(patch):
    """Whatever the clock says, there is time for a short distillation and some documents."""
    with_few_windows(patch, distil=4, certify=6)
    patch.setattr("torchcram.pretrained.retrofit.certify.LEVELS", (0.6, 0.3))


def without_one_cache(model, *args, **options):
    unread.give_up(model, [1])
    return unread.Unread(layers=(1,), price=0.1, before=1.0, after=0.5)


@pytest.fixture(autouse=True)
def few_windows(monkeypatch):
    with_few_windows(monkeypatch)


@pytest.fixture
def briefly(monkeypatch):
    with_a_short_teaching(monkeypatch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A making that nobody disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        with_few_windows(patch)
        return make(tmp_path_factory.mktemp("closed") / "whole")


@pytest.fixture(scope="module")
def whole_teaching(tmp_path_factory):
    """One with a distillation and a certificate."""
    with pytest.MonkeyPatch.context() as patch:
        with_a_short_teaching(patch)
        patch.setattr(maturing, "choose_unread", without_one_cache)
        return make(tmp_path_factory.mktemp("taught") / "whole", risk=0.5)


@torch.no_grad()
def test_a_model_is_made_saved_and_loaded(tmp_path):
    untouched, model = tiny_model("llama"), tiny_model("llama")
    made = life.retrofit(
        model,
        Tokenizer(),
        documents(),
        minutes=0.05,
        context=48,
        settings=NEAR,
        out=tmp_path / "made",
        show_progress=False,
    )
    assert made.model is model
    assert made.judged["all"].divergence == 0
    assert made.judged["routed"].divergence < made.judged["none"].divergence
    assert made.judged["routed"].reads == pytest.approx(0.25, abs=0.1)
    assert {path.name for path in tmp_path.iterdir()} == {"made"}
    loaded = transformers.AutoModelForCausalLM.from_pretrained(made.folder)
    ids = torch.arange(3, 43)[None]
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    assert retrofit_of(loaded).settings.price == retrofit_of(model).control.price > 0
    card = (made.folder / "README.md").read_text()
    assert f"| nothing is read | 0.0% | {made.judged['none'].divergence:.4f} |" in card
    told = json.loads((made.folder / "judged.json").read_text())
    assert told["judged"]["none"]["divergence"] == made.judged["none"].divergence
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(remove(model)(ids).logits, untouched(ids).logits)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "stage"),
    [
        *((closed_stages, name) for name in ("acquire", "refit", "fit_routers", "price_for")),
        *((making, name) for name in ("judge", "save_retrofit")),
    ],
)
def test_what_was_interrupted_goes_on_and_ends_the_same(module, stage, whole, tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, stage, stop)
        model = tiny_model("llama")
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "parts", model=model)
    assert not is_retrofitted(model)
    assert not (tmp_path / "parts").exists()
    # The plan of the beginning holds, however fast the machine is now.
    again = make(tmp_path / "parts", minutes=1000.0) if stage == "judge" else make(tmp_path / "parts")
    assert not (tmp_path / "parts.making").exists()
    plans = [json.loads((made.folder / "judged.json").read_text())["plan"] for made in (whole, again)]
    assert plans[0] == plans[1]
    for name, found in whole.judged.items():
        assert again.judged[name].divergence == pytest.approx(found.divergence, rel=1e-3, abs=1e-6)


def test_a_folder_of_another_retrofit_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(making, "judge", lambda *args, **options: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "made")
    with pytest.raises(ValueError, match=r"holds another retrofit \(reads differ\)"):
        make(tmp_path / "made", reads=0.5)
    (tmp_path / "made").mkdir()
    with pytest.raises(ValueError, match="made exists: choose another folder"):
        make(tmp_path / "made")


def test_two_processes_never_make_the_same_model(tmp_path, monkeypatch):
    refused = []

    def meanwhile(*args, **kwargs):
        with pytest.raises(
            ValueError, match=r"another process is at .*made\.making: wait until it has ended"
        ):
            make(tmp_path / "made")
        refused.append(True)
        raise KeyboardInterrupt

    monkeypatch.setattr(closed_stages, "acquire", meanwhile)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "made")
    assert refused == [True]


def test_a_damaged_stage_is_told(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(
            closed_stages, "fit_routers", lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "made")
    (tmp_path / "made.making" / "acquire.safetensors").write_bytes(b"\x00" * 30)
    with pytest.raises(ValueError, match=r"acquire\.safetensors is damaged .* delete it"):
        make(tmp_path / "made")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"reads": 1.5}, "reads 1.5 must lie in"),
        ({"context": 7}, "context 7 holds nothing beyond the near tokens"),
        ({"minutes": 0.0}, "minutes 0.0 must be above 0"),
        ({"texts": ["short"]}, "too short"),
        ({"settings": RetrofitSettings(sinks=2, window=5, kept=3, kind="slots")}, "slots has no closed form"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_cannot_be_is_told(changes, told):
    model = tiny_model("llama")
    with pytest.raises(ValueError, match=told):
        make(model=model, **changes)
    assert not is_retrofitted(model)


def test_a_tokenizer_of_another_model_is_refused():
    class Larger(CharTokenizer):
        def __call__(self, text, **options):
            return {"input_ids": [1000 + number for number in super().__call__(text)["input_ids"]]}

    with pytest.raises(ValueError, match="tokenizer of another model"):
        life.retrofit(tiny_model("llama"), Larger(), documents(), context=48, settings=NEAR)


def test_attention_that_is_not_understood_is_refused(monkeypatch):
    model = tiny_model("llama")
    monkeypatch.setattr("torchcram.pretrained.retrofit.block.score_scale", lambda module, family: 0.9)
    with pytest.raises(ValueError, match="differs from the untouched one"):
        make(model=model)
    assert not is_retrofitted(model)


def test_minutes_buy_windows():
    windows = [torch.arange(5)] * 300

    def plan(minutes, seconds=1.0):
        return plan_for(minutes=minutes, seconds=seconds, fit=windows, select=windows, test=windows)

    assert plan(0.01).fit == FEWEST
    assert FEWEST < plan(4.0).fit < plan(6.0).fit < 300
    assert plan(1e6).fit == 300
    assert plan(6.0, seconds=1.4).fit < plan(6.0).fit
    assert (plan(4.0).select, plan(4.0).route, plan(4.0).judged) == (SELECT, ROUTE, JUDGED)
    with pytest.raises(ValueError, match="3 windows to fit on"):
        plan_for(minutes=1.0, seconds=1.0, fit=windows[:3], select=windows, test=windows)


def test_more_minutes_buy_a_distillation_and_documents():
    windows = [torch.arange(5)] * 300

    def plan(minutes, **documents):
        return plan_for(minutes=minutes, seconds=1.0, fit=windows, select=windows, test=windows, **documents)

    assert plan(10.0).distil == 0 == plan(10.0).certify
    assert 0 < plan(20.0).distil < plan(60.0).distil
    # A step costs five passes: most of what the closed form leaves.
    assert 5 * plan(60.0).distil == pytest.approx(60 * 60 * 0.7, rel=0.15)
    asked = plan(60.0, documents=windows, needed=19)
    assert asked.certify == 75
    assert asked.distil < plan(60.0).distil
    assert plan(2.0, documents=windows, needed=19).certify == 29
    assert plan(2.0, documents=windows[:20], needed=19).certify == 20
    assert plan(1e5, documents=windows, needed=19).certify == 200


def test_documents_are_set_aside_as_a_whole():
    windows = [Window(document=number % 10, start=number, ids=torch.arange(4)) for number in range(40)]
    left, aside = set_aside(windows, 200)
    assert len(aside) == 5
    assert not {one.document for one in left} & {one.document for one in aside}
    assert len({one.document for one in aside}) == 5
    assert len(left) == 20
    assert set_aside(windows, 0) == (windows, [])
    assert len(set_aside(windows, 2)[1]) == 2


@torch.no_grad()
def test_a_taught_model_comes_with_its_certificate(tmp_path, briefly):
    made = make(tmp_path / "made", risk=0.5)
    assert {path.name for path in made.folder.iterdir()} >= {
        *("certificate.json", "metrics.jsonl", "consolidation.png", "README.md", "judged.json")
    }
    certificate = load_certificate(made.folder)
    assert certificate == made.certificate
    assert certificate.documents == 6
    loaded = transformers.AutoModelForCausalLM.from_pretrained(made.folder)
    assert retrofit_of(loaded).settings.price == certificate.price
    ids = torch.arange(3, 43)[None]
    assert torch.equal(loaded(ids).logits, made.model(ids).logits)
    lines = [json.loads(line) for line in (made.folder / "metrics.jsonl").read_text().splitlines()]
    assert sum(line["kind"] == "train" for line in lines) == 4
    assert (made.folder / "consolidation.png").read_bytes().startswith(b"\x89PNG")
    card = (made.folder / "README.md").read_text()
    assert certificate.told() in card
    assert f"| nothing is read | {made.matured.before.none:.4f} | {made.matured.after.none:.4f} |" in card
    assert made.matured.after.no_worse(made.matured.before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "stage"),
    [
        (maturing, "consolidate"),
        (maturing, "fit_and_price"),
        (maturing, "choose_unread"),
        (making, "certify"),
    ],
)
def test_a_teaching_that_was_interrupted_ends_the_same(
    module, stage, whole_teaching, tmp_path, briefly, monkeypatch
):
    whole = whole_teaching
    monkeypatch.setattr(maturing, "choose_unread", without_one_cache)
    with monkeypatch.context() as patch:
        patch.setattr(module, stage, lambda *args, **options: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "parts", risk=0.5)
    assert not (tmp_path / "parts").exists()
    again = make(tmp_path / "parts", risk=0.5)
    assert retrofit_of(again.model).settings.unread == (1,) == again.matured.unread
    plans = [json.loads((made.folder / "judged.json").read_text())["plan"] for made in (whole, again)]
    assert plans[0] == plans[1]
    assert again.certificate.price == pytest.approx(whole.certificate.price, rel=1e-3)
    assert again.matured.after.none == pytest.approx(whole.matured.after.none, rel=1e-3)


def test_too_few_documents_for_a_risk_are_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(closed_stages, "acquire", None)
    with pytest.raises(ValueError, match=r"takes 99 documents .* and 12 can be set aside"):
        make(tmp_path / "made", risk=0.01)
    with pytest.raises(ValueError, match=r"risk 1\.5 must lie in \(0, 1\)"):
        make(risk=1.5)
    assert list(tmp_path.iterdir()) == []


def test_the_command_makes_a_model(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "torchcram.pretrained.loading.load_model", lambda name, dtype: (tiny_model("gpt2"), Tokenizer())
    )
    text = tmp_path / "texts"
    text.mkdir()
    for number, document in enumerate(documents()):
        (text / f"{number}.txt").write_text(document)
    told = CliRunner().invoke(
        app,
        [
            *("retrofit", "some/model", str(text), "--out", str(tmp_path / "made"), "--reads", "0.5"),
            *("--minutes", "0.05", "--context", "48", "--set", "window=5", "--set", "sinks=2"),
            *("--set", "kept=3", "--quiet"),
        ],
    )
    assert told.exit_code == 0, told.output
    assert told.stdout.strip() == str(tmp_path / "made")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "made")
    assert retrofit_of(loaded).settings.window == 5
