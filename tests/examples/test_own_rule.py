from examples.own_rule import main


def test_the_rule_fires_once(capsys):
    (alert,) = main()
    assert (alert.rule, alert.severity, alert.state) == ("unbalanced", "warning", "firing")
    assert (alert.module, alert.step) == ("1", 3)
    assert "times that of 0" in alert.message
    assert "unbalanced" in capsys.readouterr().out
