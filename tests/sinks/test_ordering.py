from hypothesis import given
from hypothesis import strategies as st

from gradwatch.sinks.ordering import in_order
from tests.made_up import alert, record


def names(pairs):
    entries = []
    for step, due in pairs:
        entries += [] if step is None else [f"{step.optimizer}{step.step}"]
        entries += [f"{a.optimizer}{a.step}!" for a in due]
    return entries


def test_an_alert_follows_the_record_it_was_raised_on():
    records = [record(1), record(1, optimizer="critic"), record(2)]
    alerts = [alert(step=1, optimizer="critic"), alert(step=2), alert(step=3)]
    assert names(in_order(records, alerts)) == ["actor1", "critic1", "critic1!", "actor2", "actor2!", "actor3!"]


@given(st.lists(st.booleans(), max_size=12), st.integers(0, 12))
def test_the_order_does_not_depend_on_how_the_run_is_cut_into_batches(fires, cut):
    """Cut between two steps, as the queue does: a record and its alerts are handed over together."""
    records = [record(step) for step in range(1, len(fires) + 1)]
    alerts = [alert(step=step) for step, fired in enumerate(fires, start=1) if fired]
    whole = names(in_order(records, alerts))
    first = names(in_order(records[:cut], [a for a in alerts if a.step <= cut]))
    rest = names(in_order(records[cut:], [a for a in alerts if a.step > cut]))
    assert first + rest == whole
    assert len(whole) == len(records) + len(alerts)
