from hypothesis import given
from hypothesis import strategies as st

from gradwatch.blocks import Steps, optimizer_of
from gradwatch.sinks.ordering import in_order, row_of
from tests.made_up import alert, record


def names(records, alerts):
    entries = []
    for pair, due in in_order(Steps.of(records), alerts):
        entries += [] if pair is None else [f"{optimizer_of(*pair)}{row_of(*pair).step}"]
        entries += [f"{a.optimizer}{a.step}!" for a in due]
    return entries


def test_an_alert_follows_the_record_it_was_raised_on():
    records = [record(1), record(1, optimizer="critic"), record(2)]
    alerts = [alert(step=1, optimizer="critic"), alert(step=2), alert(step=3)]
    assert names(records, alerts) == ["actor1", "critic1", "critic1!", "actor2", "actor2!", "actor3!"]


@given(st.lists(st.booleans(), max_size=12), st.integers(0, 12))
def test_the_order_does_not_depend_on_how_the_run_is_cut_into_batches(fires, cut):
    """Cut between two steps, as the queue does: a record and its alerts are handed over together."""
    records = [record(step) for step in range(1, len(fires) + 1)]
    alerts = [alert(step=step) for step, fired in enumerate(fires, start=1) if fired]
    whole = names(records, alerts)
    first = names(records[:cut], [a for a in alerts if a.step <= cut])
    rest = names(records[cut:], [a for a in alerts if a.step > cut])
    assert first + rest == whole
    assert len(whole) == len(records) + len(alerts)
