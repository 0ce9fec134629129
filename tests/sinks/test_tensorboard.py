import html
import math
import re
import sys
import threading

import pytest

from gradwatch.errors import MissingExtraError, SinkError
from gradwatch.records import Cause, GroupNorms, Health, RunInfo
from gradwatch.sinks import TensorBoard
from tests.made_up import alert, record, run_info

pytest.importorskip("tensorboard")


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


def write(target, *batches, prefix="debug"):
    sink = TensorBoard(target, prefix)
    sink.open(run_info(), Health)
    for records, alerts in batches:
        sink.write(records, alerts)
    sink.close()


def test_both_norms_the_ratio_and_the_modules(tmp_path):
    write(tmp_path, ([record(7, before=4.0, after=1.0)], []))
    events = read(tmp_path)
    for tag, value in {
        "debug/actor_grad_norm_BEFORE_clip": 4.0,
        "debug/actor_grad_norm_AFTER_clip": 1.0,
        "debug/actor_grad_clip_ratio": 0.25,
        "debug/mlp_grad_norm_BEFORE_clip": 4.0,
        "debug/mlp_grad_norm_AFTER_clip": 1.0,
        "alerts/actor_critical": 0.0,
    }.items():
        (scalar,) = events.Scalars(tag)
        assert (scalar.step, scalar.value) == (7, value), tag


@pytest.mark.parametrize(("options", "head"), [({}, "gradwatch"), ({"prefix": "run/gradients"}, "run/gradients")])
def test_tags_begin_with_the_prefix(tmp_path, options, head):
    write(tmp_path, ([record(7, before=4.0, after=1.0)], [alert(step=7)]), **{"prefix": "gradwatch", **options})
    events = read(tmp_path)
    values = {tag: events.Scalars(tag)[0].value for tag in events.Tags()["scalars"]}
    assert values == {
        f"{head}/actor/norm_before": 4.0,
        f"{head}/actor/norm_after": 1.0,
        f"{head}/actor/clip_ratio": 0.25,
        f"{head}/actor/mlp/norm_before": 4.0,
        f"{head}/actor/mlp/norm_after": 1.0,
        f"{head}/actor/critical": 1.0,
        f"{head}/actor/warning": 0.0,
    }
    (said,) = events.Tensors(f"{head}/actor/alerts")
    assert said.step == 7


def test_alerts_count_from_the_step_at_which_they_fire(tmp_path):
    records = [record(step) for step in (1, 2, 3, 4)]
    write(tmp_path, (records, [alert(step=2), alert("resolved", step=4)]))
    events = read(tmp_path)
    assert [s.value for s in events.Scalars("alerts/actor_critical")] == [0.0, 1.0, 1.0, 0.0]
    texts = [event.tensor_proto.string_val[0].decode() for event in events.Tensors("alerts/actor")]
    assert "CRITICAL zero at mlp, step 2 of actor" in texts[0]


@pytest.mark.filterwarnings("ignore:html5lib's sanitizer is deprecated:DeprecationWarning")
@pytest.mark.parametrize("state", ["firing", "explained", "resolved"])
def test_the_text_tab_shows_the_words_that_every_sink_has(tmp_path, state):
    from tensorboard.plugin_util import markdown_to_safe_html

    names = "actor_mlp, __init__, _a, b_, *c*, `d`, \\e, [f](g), <h>, [0].weight, -7.5e+12 < 1e-7"
    said = alert(
        state,
        message=f"odd names: {names}",
        cause=Cause("unknown", "__x__", {"odd": f"names: {names}"}, "Look *there*."),
    )
    write(tmp_path, ([record(1)], [said]))
    (event,) = read(tmp_path).Tensors("alerts/actor")
    text = event.tensor_proto.string_val[0].decode()
    assert "odd names: actor_mlp" in text
    shown = re.sub("</?p>", "", markdown_to_safe_html(text))
    assert html.unescape(shown) == str(said)


def test_nan_is_written_as_it_is(tmp_path):
    write(tmp_path, ([record(1, math.nan, math.nan)], []))
    assert math.isnan(read(tmp_path).Scalars("debug/actor_grad_norm_BEFORE_clip")[0].value)


def test_a_writer_that_is_given_is_used_and_left_open():
    class Writer:
        def __init__(self):
            self.scalars, self.texts = [], []

        def add_scalar(self, tag, value, step, walltime):
            self.scalars.append((tag, value, step))

        def add_text(self, tag, text, step):
            self.texts.append((tag, step))

    writer = Writer()
    write(writer, ([record(3)], [alert(step=3)]))
    assert ("debug/actor_grad_norm_AFTER_clip", 1.0, 3) in writer.scalars
    assert writer.texts == [("alerts/actor", 3)]


def test_the_writer_of_torch_is_one(tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    writer = tensorboard.SummaryWriter(str(tmp_path))
    write(writer, ([record(3, 4.0, 1.0)], [alert(step=3)]))
    # Still open, and the user's.
    writer.add_scalar("mine", 1.0, 3)
    writer.close()
    events = read(tmp_path)
    (scalar,) = events.Scalars("debug/actor_grad_norm_BEFORE_clip")
    assert (scalar.step, scalar.value) == (3, 4.0)
    assert scalar.wall_time == pytest.approx(1_700_000_003.0)
    assert events.Scalars("mine")


def test_steps_and_alerts_stand_at_the_time_of_the_step(tmp_path):
    write(tmp_path, ([record(3)], [alert(step=3)]))
    events = read(tmp_path)
    assert events.Scalars("debug/actor_grad_clip_ratio")[0].wall_time == 1_700_000_003.0
    (said,) = events.Tensors("alerts/actor")
    assert (said.step, said.wall_time) == (3, 1_700_000_003.0)


def test_all_scalars_of_a_step_are_one_event(tmp_path):
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    write(tmp_path, ([record(1), record(2)], []))
    (file,) = tmp_path.iterdir()
    steps = [event.step for event in LegacyEventFileLoader(str(file)).Load() if event.HasField("summary")]
    assert steps == [1, 2]


def test_alerts_of_one_optimizer_do_not_count_for_another(tmp_path):
    warning = alert(severity="warning", rule="growth", module=None)
    records = [record(1), record(1, optimizer="critic")]
    write(tmp_path, (records, [warning, alert(), alert(module="cnn")]))
    events = read(tmp_path)
    for tag, value in {"actor_critical": 2.0, "actor_warning": 1.0, "critic_critical": 0.0}.items():
        assert events.Scalars(f"alerts/{tag}")[0].value == value, tag


def test_an_explanation_that_comes_late_does_not_fire_again(tmp_path):
    write(tmp_path, ([record(1), record(2)], [alert(), alert("resolved", 2), alert("explained", 2)]))
    assert [s.value for s in read(tmp_path).Scalars("alerts/actor_critical")] == [1.0, 0.0]


def test_an_explanation_does_not_end_what_fires(tmp_path):
    write(tmp_path, ([record(1), record(2)], [alert(), alert("explained", 2)]))
    assert [s.value for s in read(tmp_path).Scalars("alerts/actor_critical")] == [1.0, 1.0]


def test_two_curves_never_share_a_tag(tmp_path):
    modules = {"actor": GroupNorms(7.0, 7.0), "encoder": GroupNorms(2.0, 2.0), "mlp": GroupNorms(3.0, 3.0)}
    run = RunInfo("r", 0, 0.0, "", "", "", ("actor", "critic"), {"actor": tuple(modules), "critic": ("encoder",)})
    sink = TensorBoard(tmp_path, "debug")
    sink.open(run, Health)
    sink.write(
        [record(modules=modules), record(optimizer="critic", modules={"encoder": GroupNorms(9.0, 9.0)})], []
    )
    sink.close()
    events = read(tmp_path)
    values = {
        tag: [scalar.value for scalar in events.Scalars(f"debug/{tag}_grad_norm_BEFORE_clip")]
        for tag in ("actor", "actor.actor", "actor.encoder", "critic.encoder", "mlp")
    }
    assert values == {
        "actor": [5.0],
        "actor.actor": [7.0],
        "actor.encoder": [2.0],
        "critic.encoder": [9.0],
        "mlp": [3.0],
    }


def test_nor_does_a_module_that_is_called_what_another_is_written_as(tmp_path):
    modules = {"actor": GroupNorms(7.0, 7.0), "actor.actor": GroupNorms(2.0, 2.0)}
    sink = TensorBoard(tmp_path, "debug")
    sink.open(run_info(tuple(modules)), Health)
    sink.write([record(modules=modules)], [])
    sink.close()
    events = read(tmp_path)
    for tag, value in {"actor": 5.0, "actor.actor": 7.0, "actor.actor.actor": 2.0}.items():
        assert [scalar.value for scalar in events.Scalars(f"debug/{tag}_grad_norm_BEFORE_clip")] == [value]


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)
    with pytest.raises(MissingExtraError, match=r"needs the package 'tensorboard'.*gradwatch\[tensorboard\]"):
        TensorBoard(tmp_path).open(run_info(), Health)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match=r"folder '.*file.*' cannot be written .*: give a folder"):
        TensorBoard(tmp_path / "file" / "runs").open(run_info(), Health)


def test_each_batch_is_on_disk_when_write_returns_and_no_thread_is_begun(tmp_path):
    sink, threads = TensorBoard(tmp_path, "debug"), threading.active_count()
    sink.open(run_info(), Health)
    sink.write([record(1), record(2, 0.25)], [alert()])
    assert [scalar.value for scalar in read(tmp_path).Scalars("debug/actor_grad_norm_BEFORE_clip")] == [5.0, 0.25]
    assert threading.active_count() == threads
    sink.close()


def test_two_sinks_opened_in_one_second_write_a_file_each(tmp_path):
    for step in (1, 2):
        write(tmp_path, ([record(step)], []))
    assert len(list(tmp_path.iterdir())) == 2


def test_modules_that_change_in_between_keep_their_own_curves(tmp_path):
    more = {"mlp": GroupNorms(2.0, 1.0), "head": GroupNorms(3.0, 1.5)}
    write(tmp_path, ([record(1), record(2, modules=more), record(3)], []))
    events = read(tmp_path)
    curves = {
        name: [(s.step, s.value) for s in events.Scalars(f"debug/{name}_grad_norm_BEFORE_clip")]
        for name in ("mlp", "head")
    }
    assert curves == {"mlp": [(1, 5.0), (2, 2.0), (3, 5.0)], "head": [(2, 3.0)]}
