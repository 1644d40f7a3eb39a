"""The house has stairs that lead one way only: a file may import, also inside its functions, from files above
its own and from nowhere else.

``ORDER`` is the only place that holds the order. Circles cannot exist while this passes.

It is long because it lists every file of the package, in the one order that imports obey.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import torchcram

ORDER = (
    # words everybody uses
    "after_import",
    "strict",
    "strict_yaml",
    "types",
    "accounting",
    # maths without parameters
    "ops",
    "ops.init",
    "ops.kernels",
    "ops.collective",
    "ops.rms_norm",
    "ops.silu_gate",
    "ops.scan.reference",
    "ops.scan.triton",
    "ops.scan.chunked",
    "ops.scan",
    "ops.ct_ode",
    "ops.routed_attention.reference",
    "ops.routed_attention.packing",
    "ops.routed_attention.gathered",
    "ops.routed_attention.tiled",
    "ops.routed_attention.rows",
    "ops.routed_attention.triton",
    "ops.routed_attention.dense",
    "ops.routed_attention.choice",
    "ops.routed_attention",
    "ops.routing",
    "ops.selection",
    # a run's folder, and what everything that takes long has in common
    "runs",
    "runs.failure",
    "runs.clock",
    "runs.interruption",
    "runs.progress",
    "runs.source",
    "runs.environment",
    "runs.files",
    "runs.tensor_file",
    "runs.lock",
    "runs.metrics",
    "runs.run_dir",
    "runs.trackers",
    # the drawing kit that all products share
    "report",
    "report.wording",
    "report.markdown",
    "report.style",
    "report.page",
    "report.records",
    "report.fits",
    "report.drawing",
    "report.maps",
    "report.consolidation_curve",
    "report.training_axis",
    "report.read_rates",
    "report.plots",
    "report.certificate",
    "report.story",
    "report.tables",
    "report.html",
    "report.text_routes",
    # conformal calibration, which knows no model
    "calibration",
    "calibration.rule",
    "calibration.curve",
    "calibration.choice",
    "calibration.splits",
    # the paper's nouns
    "memory",
    "memory.feed_forward",
    "memory.budget",
    "memory.working",
    "memory.episodic",
    "memory.semantic",
    "memory.familiarity",
    "memory.consolidation",
    "memory.surprise",
    "memory.exploration",
    "memory.recall",
    "memory.router",
    "memory.gumbel_router",
    "memory.residual",
    "memory.block",
    "memory.observed",
    "memory.phases",
    "memory.consolidator",
    # peers behind the same protocol
    "baselines",
    "baselines.two_way",
    "baselines.static",
    "baselines.transformer",
    "baselines.ssm",
    "baselines.static_hybrid",
    "baselines.activated",
    "baselines.seqboat",
    "baselines.mixture_of_depths",
    "baselines.static_router",
    "baselines.encoder",
    "baselines.grud",
    "baselines.mtand",
    "mixers",
    # whole models
    "models",
    "models.checks",
    "models.read_out",
    "models.sequence",
    "models.encoder",
    "models.configuration_cram",
    "models.outputs",
    "models.cache",
    "models.offloading",
    "models.decoder_layer",
    "models.pretrained_model",
    "models.rows",
    "models.keywords",
    "models.cram_model",
    "models.generation",
    "models.documents",
    "models.read_budget",
    "models.modeling_cram",
    "models.auto_classes",
    "models.trainer_checks",
    "models.consolidation_callback",
    # what is learned
    "tasks",
    "tasks.base",
    "tasks.oscillator",
    "tasks.srcd_config",
    "tasks.srcd_oracle",
    "tasks.srcd",
    "tasks.transfer",
    "tasks.built_in",
    "tasks.published",
    "tasks.text",
    # doing things
    "training",
    "training.run_config",
    "training.build",
    "training.presets",
    "training.acquisition",
    "training.checkpoint",
    "training.distributed",
    "training.frozen",
    "training.exposures",
    "training.ledger",
    "training.training_progress",
    "training.evaluate",
    "training.thresholds",
    "training.trainer",
    "training.summary",
    "training.loop",
    "training.stopping",
    # fair clocks
    "bench",
    "bench.timing",
    # products, each with its own figures and page
    "pretrained",
    "pretrained.plain",
    "pretrained.store",
    "pretrained.texts",
    "pretrained.sites",
    "pretrained.capture",
    "pretrained.local_attention",
    "pretrained.token_classes",
    "pretrained.loading",
    "pretrained.analysis",
    "pretrained.analysis.settings",
    "pretrained.analysis.analysis_progress",
    "pretrained.analysis.study",
    "pretrained.analysis.redundancy",
    "pretrained.analysis.moments",
    "pretrained.analysis.ridge",
    "pretrained.analysis.controls",
    "pretrained.analysis.mlp_probe",
    "pretrained.analysis.state_probe",
    "pretrained.analysis.site_sums",
    "pretrained.analysis.gather",
    "pretrained.analysis.site_probes",
    "pretrained.analysis.layer_figures",
    "pretrained.analysis.scoring",
    "pretrained.analysis.layerwise",
    "pretrained.analysis.harm",
    "pretrained.analysis.refit",
    "pretrained.analysis.prefixes",
    "pretrained.analysis.alone",
    "pretrained.analysis.judged",
    "pretrained.analysis.routed",
    "pretrained.analysis.measure",
    "pretrained.analysis.plan",
    "pretrained.analysis.findings",
    "pretrained.analysis.analyze",
    "pretrained.analysis.checkpoints",
    "pretrained.analysis.figures",
    "pretrained.analysis.layer_plots",
    "pretrained.analysis.story",
    "pretrained.analysis.checkpoints_page",
    "pretrained.analysis.page",
    "pretrained.retrofit",
    "pretrained.retrofit.processes",
    "pretrained.retrofit.reach",
    "pretrained.retrofit.parts",
    "pretrained.retrofit.entries",
    "pretrained.retrofit.gist",
    "pretrained.retrofit.kept",
    "pretrained.retrofit.reference",
    "pretrained.retrofit.attention",
    "pretrained.retrofit.alignment",
    "pretrained.retrofit.families",
    "pretrained.retrofit.evidence",
    "pretrained.retrofit.semantic",
    "pretrained.retrofit.router",
    "pretrained.retrofit.control",
    "pretrained.retrofit.memory",
    "pretrained.retrofit.cache",
    "pretrained.retrofit.block",
    "pretrained.retrofit.settings",
    "pretrained.retrofit.install",
    "pretrained.retrofit.lessons",
    "pretrained.retrofit.gradients",
    "pretrained.retrofit.moments",
    "pretrained.retrofit.closed_form",
    "pretrained.retrofit.keeper_fit",
    "pretrained.retrofit.acquire",
    "pretrained.retrofit.router_fit",
    "pretrained.retrofit.judge",
    "pretrained.retrofit.refit",
    "pretrained.retrofit.recalls",
    "pretrained.retrofit.course",
    "pretrained.retrofit.distil",
    "pretrained.retrofit.snapshot",
    "pretrained.retrofit.consolidate",
    "pretrained.retrofit.unread",
    "pretrained.retrofit.drift",
    "pretrained.retrofit.certificate",
    "pretrained.retrofit.certify",
    "pretrained.retrofit.quantizer",
    "pretrained.retrofit.saving",
    "pretrained.retrofit.stages",
    "pretrained.retrofit.closed_stages",
    "pretrained.retrofit.maturing",
    "pretrained.retrofit.teaching_figure",
    "pretrained.retrofit.plan",
    "pretrained.retrofit.card",
    "pretrained.retrofit.making",
    "pretrained.retrofit.life",
    "pretrained.rivals",
    "pretrained.rivals.contender",
    "pretrained.rivals.retrofitted",
    "pretrained.rivals.ablations",
    "pretrained.rivals.near_alone",
    "pretrained.rivals.router_alone",
    "pretrained.rivals.layers",
    "pretrained.rivals.linear_layers",
    "pretrained.rivals.dropped_layers",
    "pretrained.rivals.dropped_entries",
    "pretrained.rivals.table",
    "pretrained.judging",
    "pretrained.judging.exam",
    "pretrained.judging.needles",
    "pretrained.judging.pairs",
    "pretrained.judging.variables",
    "pretrained.judging.talks",
    "pretrained.judging.haystack",
    "pretrained.judging.retrieval",
    "pretrained.judging.by_position",
    "pretrained.judging.speed",
    "pretrained.judging.frontier",
    "pretrained.judging.tables",
    "pretrained.judging.kept",
    "pretrained.judging.material",
    "pretrained.judging.parts",
    "pretrained.judging.verdict",
    "series",
    "series.splits",
    "series.activity",
    "series.comparison",
    "series.side_heads",
    "series.task",
    "series.summary_features",
    "series.history",
    "series.physionet",
    "series.comparison.problems",
    "series.comparison.scores",
    "series.comparison.boosting",
    "series.comparison.neural",
    "series.comparison.methods",
    "series.comparison.patient",
    "series.comparison.tuning",
    "series.comparison.study",
    "series.comparison.table",
    "series.comparison_figures",
    "series.comparison_page",
    "series.values",
    "series.times",
    "series.long_frame",
    "series.panel",
    "series.targets",
    "series.arguments",
    "series.encoding",
    "series.fitted",
    "series.duration",
    "series.reading",
    "series.learning",
    "series.base_estimator",
    "series.estimators",
    "bench.measurement",
    "bench.setting",
    "bench.drawn_router",
    "bench.recurrent_layer",
    "bench.training_step",
    "bench.decoding",
    "bench.generating",
    "bench.questions",
    "bench.run",
    "bench.page",
    "bench.table",
    "reproduce",
    "reproduce.claim",
    "reproduce.readme",
    "reproduce.tuning",
    "reproduce.methods",
    "reproduce.claims.ablations",
    "reproduce.claims.drift_override",
    "reproduce.claims.frontier",
    "reproduce.claims.new_patterns",
    "reproduce.claims.recurrence",
    "reproduce.claims.static_routing",
    "reproduce.claims.transition",
    "reproduce.claims.unseen_tasks",
    "reproduce.claims",
    "reproduce.plan",
    "reproduce.worker",
    "reproduce.effort",
    "reproduce.sweep_progress",
    "reproduce.sweep",
    "reproduce.ray_executor",
    "reproduce.lower_bound",
    "reproduce.saved_work",
    "reproduce.run_figures",
    "reproduce.results",
    "reproduce.records",
    "reproduce.status",
    "reproduce.headline",
    "reproduce.claim_figures",
    "reproduce.claim_page",
    "reproduce.results_page",
    "reproduce.reproduction",
    "cli.options",
    "cli.train",
    "cli.evaluate",
    "cli.calibrate",
    "cli.report",
    "cli.tasks",
    "cli.bench",
    "cli.reproduce",
    "cli.analyze",
    "cli.retrofit",
    "cli.judge",
    "cli",
    "__main__",
)

PACKAGE = Path(torchcram.__file__).parent
RANK = {name: rank for rank, name in enumerate(ORDER)}


def module_name(file: Path) -> str:
    """Return the dotted name below torchcram: "" for the package itself, "ops.scan" for
    ops/scan/__init__.py."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def internal_imports(source: str, known: set[str]) -> set[str]:
    """Return the modules of torchcram that the source imports, anywhere in it, also by name:
    import_module("torchcram.x")."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they lead"
            # "from torchcram.ops import routing" imports torchcram.ops.routing where that is a module.
            found |= {
                f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in known else str(node.module)
                for alias in node.names
            }
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in {
            "import_module",
            "__import__",
        }:
            found |= {
                argument.value
                for argument in node.args
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
            }
    return {
        name.removeprefix("torchcram").removeprefix(".")
        for name in found
        if name == "torchcram" or name.startswith("torchcram.")
    }


def forbidden(name: str, imports: set[str]) -> set[str]:
    """Return those imports that lead upwards: to the module's own line, to a line below it, or to the
    package's public face."""
    return {imported for imported in imports if imported not in RANK or RANK[imported] >= RANK[name]}


KNOWN = {"torchcram" if name == "" else f"torchcram.{name}" for name in FILES}


def test_every_file_has_a_line():
    assert set(FILES) - {""} - set(ORDER) == set()


def test_every_line_has_a_file():
    assert set(ORDER) - set(FILES) == set()
    assert len(set(ORDER)) == len(ORDER)


@pytest.mark.parametrize("name", [name for name in FILES if name in RANK])
def test_a_file_imports_only_from_lines_above(name: str):
    assert forbidden(name, internal_imports(FILES[name].read_text(), KNOWN)) == set()


def test_the_package_itself_imports_nothing_heavy_at_once():
    top_level = ast.parse(FILES[""].read_text()).body
    eager = [ast.unparse(node) for node in top_level if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [
        line
        for line in eager
        if line.split()[1].split(".")[0] in {"torch", "torchcram", "accelerate", "matplotlib", "scipy"}
    ] == ["from torchcram.after_import import after_import"]
    loaded = "import sys, torchcram; print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", FILES)
def test_importing_a_file_only_defines_things(name: str):
    """No prints, no seeds, no reads of the environment: at module level stand definitions and values,
    never a bare call. The package itself says what is to be done once Transformers has been imported."""
    body = ast.parse(FILES[name].read_text()).body
    calls = [
        ast.unparse(node)
        for node in body
        if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)
        if name != "" or not ast.unparse(node).startswith("after_import(")
    ]
    loops = [
        ast.unparse(node)
        for node in body
        if isinstance(node, ast.For | ast.While | ast.With | ast.Try | ast.Delete)
    ]
    assert calls + loops == []


@pytest.mark.parametrize(
    ("source", "imports"),
    [
        ("import torchcram.cli", {"cli"}),
        ("import torchcram", {""}),
        ("from torchcram.ops.scan import scan", {"ops.scan"}),
        ("from torchcram.memory import block", {"memory.block"}),
        ("def late():\n    from torchcram.cli import main", {"cli"}),
        ("from importlib import import_module\nimport_module('torchcram.cli')", {"cli"}),
        ("import torch\nimport torchcramped", set()),
    ],
)
def test_the_reader_of_imports_misses_none(source: str, imports: set[str]):
    assert internal_imports(source, {"torchcram.memory.block", "torchcram.memory"}) == imports


def test_the_order_forbids_what_it_should():
    assert forbidden("memory.block", {"types", "ops.scan", "memory.router"}) == set()
    assert forbidden("memory.block", {"memory.block", "cli", "", "unknown"}) == {
        "memory.block",
        "cli",
        "",
        "unknown",
    }
