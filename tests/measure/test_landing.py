"""What lands on the host is what the device had when it was taken, however late it lands."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

import gradwatch
from gradwatch.blocks import AFTER, BEFORE
from gradwatch.measure import landing
from gradwatch.measure.landing import Board
from gradwatch.records import StepRecord
from tests.measure.elsewhere import treat_as_elsewhere
from tests.reference import gradient_norm

CPU = torch.device("cpu")


def board(columns: int = 3) -> Board:
    return Board(CPU, columns)


def write(board: Board, side: int, *norms: float) -> None:
    board.side(side).copy_(torch.tensor(norms, dtype=torch.float64))


def test_a_row_is_what_it_was_when_it_was_taken() -> None:
    mine = board()
    write(mine, BEFORE, 1.0, 2.0, 3.0)
    write(mine, AFTER, 0.5, 1.0, 1.5)
    noted = torch.tensor([7.0], dtype=torch.float64)
    assert [mine.note(torch.tensor(6.0)), mine.note(noted)] == [0, 1]
    noted.fill_(9.0)
    ticket = mine.take()
    write(mine, BEFORE, 9.0, 9.0, 9.0)
    mine.note(torch.tensor(9.0))
    mine.send()
    assert ticket.side(BEFORE).tolist() == [1.0, 2.0, 3.0]
    assert ticket.side(AFTER).tolist() == [0.5, 1.0, 1.5]
    assert (ticket.note(0), ticket.note(1)) == (6.0, 7.0)


def test_a_full_ring_sends_itself_and_the_next_rows_land_apart() -> None:
    mine = board(1)
    tickets = []
    for step in range(2 * Board.ROWS + 1):
        write(mine, BEFORE, float(step))
        tickets.append(mine.take())
    assert [ticket.copy.started for ticket in tickets] == [True] * (2 * Board.ROWS) + [False]
    mine.send()
    assert [float(ticket.side(BEFORE)[0]) for ticket in tickets] == [float(step) for step in range(len(tickets))]
    assert len({id(ticket.copy) for ticket in tickets}) == 3


def test_sending_nothing_starts_nothing() -> None:
    mine = board()
    mine.send()
    ticket = mine.take()
    assert not ticket.copy.started


def test_rows_with_other_numbers_of_notes_land_side_by_side() -> None:
    mine = board(2)
    write(mine, BEFORE, 1.0, 2.0)
    mine.note(torch.tensor(3.0))
    old = mine.take()
    for number in (4.0, 5.0, 6.0):
        mine.note(torch.tensor(number))
    new, bare = mine.take(), mine.take()
    mine.send()
    assert old.side(BEFORE).tolist() == new.side(BEFORE).tolist() == bare.side(BEFORE).tolist() == [1.0, 2.0]
    assert (old.note(0), [new.note(place) for place in range(3)]) == (3.0, [4.0, 5.0, 6.0])


# Whole loops by way of a board: gradients in CPU memory, treated as a device's.


def two_optimizers() -> tuple[list[float], list[StepRecord]]:
    torch.manual_seed(3)
    actor, critic = nn.Linear(4, 2), nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizers = {
        "actor": torch.optim.SGD(actor.parameters(), lr=0.1),
        "critic": torch.optim.Adam(critic.parameters(), lr=0.1),
    }
    with gradwatch.track(optimizers, {"a": actor, "c": critic}) as watch:
        truth = []
        for _ in range(Board.ROWS + 3):
            for optimizer in optimizers.values():
                optimizer.zero_grad()
            critic(actor(torch.randn(8, 4))).square().mean().mul(30).backward()
            for name, module in (("critic", critic), ("actor", actor)):
                truth.append(gradient_norm(module.parameters()))
                torch.nn.utils.clip_grad_norm_(module.parameters(), 0.5)
                truth.append(gradient_norm(module.parameters()))
                optimizers[name].step()
    return truth, watch.history


@pytest.fixture
def as_device(monkeypatch: pytest.MonkeyPatch) -> None:
    treat_as_elsewhere(monkeypatch)


@pytest.mark.usefixtures("as_device")
def test_records_by_way_of_the_ring_are_true() -> None:
    truth, records = two_optimizers()
    assert [n for r in records for n in (r.norm_before, r.norm_after)] == pytest.approx(truth, rel=1e-6)
    assert [r.optimizer for r in records] == ["critic", "actor"] * (Board.ROWS + 3)
    assert all(r.clips[0].norm_returned == pytest.approx(r.norm_before, rel=1e-5) for r in records)


def simple_loop(see: Callable[[gradwatch.Watch, int], None], steps: int = 20) -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    with gradwatch.track(optimizer) as watch:
        for step in range(1, steps + 1):
            optimizer.zero_grad()
            (weight * step).sum().backward()
            optimizer.step()
            see(watch, step)


@pytest.mark.usefixtures("as_device")
def test_reading_brings_everything_up_to_the_last_step() -> None:
    def see(watch: gradwatch.Watch, step: int) -> None:
        assert watch["optimizer"].norm_before == step

    simple_loop(see)


@pytest.mark.usefixtures("as_device")
def test_the_norms_of_many_clip_calls_land() -> None:
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(20)]
    optimizer = torch.optim.SGD(parameters, lr=0.0)
    with gradwatch.track(optimizer) as watch:
        for step in range(3):
            for number, parameter in enumerate(parameters):
                parameter.grad = torch.tensor([number + 100.0 * step])
                torch.nn.utils.clip_grad_norm_(parameter, 50.0)
            optimizer.step()
    for step, record in enumerate(watch.history):
        assert [clip.norm_returned for clip in record.clips] == [n + 100.0 * step for n in range(20)]


@pytest.mark.usefixtures("as_device")
def test_records_come_by_themselves_block_by_block() -> None:
    memory = gradwatch.sinks.Memory()
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    with gradwatch.track(optimizer, sinks=[memory]) as watch:
        for _ in range(Board.ROWS + 1):
            (weight * 2).sum().backward()
            optimizer.step()
        assert len(watch._verdicts.history()) == Board.ROWS
    assert [record.step for record in memory.records] == list(range(1, Board.ROWS + 2))


def test_a_device_seldom_used_holds_up_the_records_of_others_for_a_block_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    treat_as_elsewhere(monkeypatch, lambda gradient: len(gradient) > 1)
    often, seldom = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1))
    optimizers = {name: torch.optim.SGD([p], lr=0.0) for name, p in (("often", often), ("seldom", seldom))}
    alerts: list[int] = []
    with gradwatch.track(optimizers, on_alert=lambda alert: alerts.append(alert.step)):
        (seldom * 2).sum().backward()
        optimizers["seldom"].step()
        for step in range(1, 2 * Board.ROWS):
            optimizers["often"].zero_grad()
            (often * (math.nan if step == 1 else 1.0)).sum().backward()
            optimizers["often"].step()
        assert alerts[:1] == [1]


@pytest.mark.usefixtures("as_device")
def test_an_alert_that_reads_the_watch_finds_every_record_once() -> None:
    seen: list[int] = []
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    with gradwatch.track(optimizer, on_alert=lambda _: seen.append(len(watch.history))) as watch:
        for step in range(20):
            optimizer.zero_grad()
            (weight * (math.nan if step == 5 else 1.0)).sum().backward()
            optimizer.step()
    assert [record.step for record in watch.history] == list(range(1, 21))
    assert seen


@pytest.mark.usefixtures("as_device")
def test_what_a_fused_optimizer_found_decides_when_it_has_landed() -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.0, fused=True)
    with gradwatch.track(optimizer) as watch:
        for found in (0.0, 1.0):
            optimizer.grad_scale, optimizer.found_inf = torch.tensor(8.0), torch.tensor(found)  # type: ignore[attr-defined]
            weight.grad = torch.tensor([24.0])
            optimizer.step()
    taken, left_out = watch.history
    assert (taken.norm_before, taken.norm_after, taken.loss_scale, taken.skipped) == (3.0, 3.0, 8.0, False)
    assert (left_out.norm_before, left_out.loss_scale, left_out.skipped) == (3.0, 8.0, True)
    assert math.isnan(left_out.norm_after)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_on_a_cuda_device_no_step_waits() -> None:
    weight = nn.Parameter(torch.zeros(64, 64, device="cuda"))
    optimizer = torch.optim.Adam([weight], lr=0.01, fused=True)
    with gradwatch.track(optimizer) as watch:
        for step in range(40):
            if step == 2:  # what is made once, such as a plan's indices, may wait
                torch.cuda.set_sync_debug_mode("error")
            try:
                (weight + 1).square().sum().backward()
                torch.nn.utils.clip_grad_norm_([weight], 1.0)
                optimizer.step()
                optimizer.zero_grad()
            finally:
                if step in (1, 39):
                    torch.cuda.set_sync_debug_mode("default")
        torch.cuda.set_sync_debug_mode("default")
        assert watch.health().internal_errors == 0
    assert len(watch.history) == 40
    assert watch["optimizer"].norm_after == pytest.approx(1.0, rel=1e-4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_graph_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    weight = nn.Parameter(torch.zeros(8, device="cuda"))
    optimizer = torch.optim.SGD([weight], lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        (weight + 1).square().sum().backward()
        optimizer.step()

    with gradwatch.track(optimizer) as watch:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        graph.replay()
        assert watch.health().internal_errors == 0
    assert len(watch.history) == 3
    assert "captured in a CUDA graph" in caplog.text


def test_a_block_that_has_not_landed_holds_up_those_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    treat_as_elsewhere(monkeypatch)
    landed: list[bool] = []
    monkeypatch.setattr(landing.HostCopy, "ready", lambda self: self.started and bool(landed))

    def see(watch: gradwatch.Watch, step: int) -> None:
        if step == 2 * Board.ROWS:
            assert len(watch._verdicts.history()) == 0
            landed.append(True)
        if step == 2 * Board.ROWS + 1:
            assert len(watch._verdicts.history()) >= 2 * Board.ROWS

    simple_loop(see, 2 * Board.ROWS + 2)
