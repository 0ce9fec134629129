from gradwatch.sinks import Memory
from tests.made_up import alert, record


def test_it_keeps_everything_in_order_also_after_it_is_closed():
    memory = Memory()
    memory.write([record(1), record(2)], [alert(step=2)])
    memory.write([record(3)], [])
    memory.close()
    assert [r.step for r in memory.records] == [1, 2, 3]
    assert [a.step for a in memory.alerts] == [2]
