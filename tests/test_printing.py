"""A name with the escapes of a terminal is text wherever it is told."""

import logging

import pytest
import torch
from torch import nn

import gradwatch
from gradwatch.sinks.table import shortened

EVIL = "\x1b[2J\x1b]0;gone\x07\x9b31m\r\ud800"


def test_no_name_is_a_command_to_a_terminal(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential()
    net.add_module(EVIL, nn.Linear(4, 1))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for sinks in ([], [gradwatch.sinks.Console()]):
        with caplog.at_level(logging.INFO), gradwatch.track({EVIL: optimizer}, net, sinks=sinks) as watch:
            for factor in [1.0] * 10 + [0.0] * 10 + [1.0] * 20:
                optimizer.zero_grad()
                (net(torch.randn(2, 4)).square().mean() * factor).backward()
                optimizer.step()
        (incident,) = watch.incidents
        assert repr(watch).endswith(" at step 40; 3 alerts told>")
        told = [repr(watch), *map(str, watch.alerts), str(incident), *caplog.messages, *capsys.readouterr()]
        assert "\\x1b[2J" in "".join(told)
        assert all(character.isprintable() or character == "\n" for said in told for character in said)


def test_a_row_of_a_table_is_one_line_of_text() -> None:
    assert shortened("a\nb\x1b[2J", 80) == "a\\nb\\x1b[2J"
