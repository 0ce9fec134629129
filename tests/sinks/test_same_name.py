"""An optimizer and a module of one name: every sink tells them apart."""

import json
import socket
import urllib.request

import pytest
import torch
from torch import nn

import gradwatch
from gradwatch.sinks import Console, Jsonl, Prometheus, TensorBoard


class Curves:
    """A writer that remembers the newest value of each curve."""

    def __init__(self):
        self.values, self.texts = {}, {}

    def add_scalar(self, tag, value, step, walltime):
        assert (tag, step) not in self.values
        self.values[tag, step] = value

    def add_text(self, tag, text, step):
        self.texts.setdefault(tag, []).append(text)


@pytest.fixture
def trained(tmp_path, capsys):
    """Of the optimizer ``net`` half the parameters are those of the module ``net``, and their gradient is zero."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    curves = Curves()
    sinks = [
        Jsonl(tmp_path / "run.jsonl", parameters=True),
        Console(),
        TensorBoard(curves, "debug"),
        Prometheus(port),
    ]
    net, head = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD([*net.parameters(), *head.parameters()], lr=0.1)
    with gradwatch.track({"net": optimizer}, {"net": net, "head": head}, sinks=sinks) as watch:
        for _ in range(4):
            net.weight.grad, head.weight.grad = torch.zeros(1, 1), torch.ones(1, 1)
            optimizer.step()
        watch.flush()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            page = answer.read().decode()
    lines = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    return watch, lines, capsys.readouterr().out, curves, page


def test_one_name_for_an_optimizer_and_a_module(trained):
    watch, lines, printed, curves, page = trained
    assert watch["net"].norm_before == 1.0
    assert watch["net"].modules["net"].norm_before == 0.0
    assert {(alert.optimizer, alert.module) for alert in watch.alerts} == {("net", "net")}

    step = [line for line in lines if line["kind"] == "step"][-1]
    assert (step["optimizer"], step["norm_before"], step["modules"]["net"]["norm_before"]) == ("net", 1.0, 0.0)
    assert {(line["optimizer"], line["module"]) for line in lines if line["kind"] == "alert"} == {("net", "net")}

    assert "zero at net, step 3 of net" in printed
    assert "net step 4: norm 1, not clipped (net: 0, head: 1)" in printed

    assert curves.values["debug/net_grad_norm_BEFORE_clip", 4] == 1.0
    assert curves.values["debug/net.net_grad_norm_BEFORE_clip", 4] == 0.0
    assert "zero at net, step 3 of net" in curves.texts["alerts/net"][0]

    (whole,) = [line for line in page.splitlines() if line.startswith("gradwatch_grad_norm_before{")]
    (part,) = [
        line
        for line in page.splitlines()
        if line.startswith("gradwatch_module_grad_norm_before{") and 'module="net"' in line
    ]
    assert ('optimizer="net"' in whole, whole.rsplit(" ", 1)[1]) == (True, "1.0")
    assert ('optimizer="net"' in part, part.rsplit(" ", 1)[1]) == (True, "0.0")
