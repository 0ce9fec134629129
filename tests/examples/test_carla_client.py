"""As far as the real client of CARLA goes without a server; and what is said where even that is missing."""

import math
import re
import socket
import sys
from pathlib import Path

import numpy as np
import pytest

from examples.carla_td3 import train
from examples.carla_td3.env.carla import ServerError, find_server, handshake
from examples.carla_td3.env.carla.route import plan, plan_any
from tests.examples.carla_fake_server import nothing, refusal, served, version
from tests.examples.carla_signatures import describe, record

FORK = Path(__file__).with_name("carla_town.xodr").read_text(encoding="utf-8")


@pytest.fixture
def carla():
    return pytest.importorskip("carla", reason='the client of CARLA is missing: pip install "gradwatch[carla]"')


@pytest.fixture
def patience(monkeypatch):
    monkeypatch.setattr(handshake, "PATIENCE", 0.3)


def said(port, capsys, tmp_path):
    """The one sentence of the command line."""
    command = ["--env", "carla", "--port", str(port), "--prometheus-port", "0", "--log-dir", str(tmp_path)]
    assert train.main(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("--env carla ")
    assert err.endswith(".\n")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    return err


def test_without_the_client_the_command_says_how_to_get_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "carla", None)
    assert "pip install carla==0.9.16" in said(2000, capsys, tmp_path)


def test_nobody_at_the_port_is_told_with_the_command_that_starts_a_server(carla, capsys, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        # Bound, but nobody listens.
        words = said(port, capsys, tmp_path)
    assert f"at 127.0.0.1:{port} (Connection refused)" in words
    assert "docker run --rm --runtime=nvidia --net=host" in words
    assert f"carlasim/carla:0.9.16 bash CarlaUE4.sh -RenderOffScreen -nosound -carla-rpc-port={port}'" in words


def test_a_name_that_nobody_has_is_told_of(carla):
    with pytest.raises(ServerError, match=r"found no CARLA server at no\.such\.host\.invalid:2000 \("):
        find_server("no.such.host.invalid", 2000)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (version("0.9.13"), "found CARLA 0.9.13 at .*but the client is 0.9.16: pip install carla==0.9.13"),
        (refusal, "refuses to say its version: "),
        (nothing, "nobody answers"),
        (lambda request: None, "the connection is closed at once"),
        # The real client would end the process at this one.
        (lambda request: b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers is no CARLA server"),
    ],
    ids=["wrong version", "refusal", "silence", "lost connection", "something else"],
)
def test_what_is_no_server_to_drive_on_is_told_at_once(carla, patience, capsys, tmp_path, answer, why):
    with served(answer) as port:
        words = said(port, capsys, tmp_path)
    assert re.search(why, words)
    assert f"127.0.0.1:{port}" in words


def test_a_server_that_hangs_up_after_its_first_answer_is_told_of(carla, patience):
    answers = iter([version("0.9.16")])
    lost = pytest.raises(ServerError, match=r"refuses to say its version: time-out of 300ms")
    with served(lambda request: next(answers, nothing)(request) or None) as port, lost:
        find_server("127.0.0.1", port)


def test_a_server_of_the_clients_version_is_found(carla, patience):
    with served(version(carla.Client("127.0.0.1", 1).get_client_version())) as port:
        find_server("127.0.0.1", port)


def test_the_record_that_the_stand_in_is_held_against_is_that_of_the_client(carla):
    assert describe(carla) == record()


def test_a_route_follows_the_lanes_of_a_real_map_and_turns_by_chance(carla):
    fork = carla.Map("fork", FORK)
    ends = set()
    for seed in range(8):
        route = plan(fork, carla.Location(x=5.0, y=1.0), 150.0, np.random.default_rng(seed))
        assert route.length >= 150.0
        assert route.points[0] == pytest.approx([5.0, 1.75], abs=0.01)
        ends.add(tuple(np.round(route.points[-1])))
        for s in (3.0, 80.0, 140.0):
            (x, y), heading = route.ahead(s - 2.0, 1, 2.0)[0], np.interp(s, route.arc, route.headings)
            # Beside the route, the real map's own waypoint is as far away as the route says.
            x, y = x - 0.8 * math.sin(heading), y + 0.8 * math.cos(heading)
            place = route.locate(x, y, near=s)
            waypoint = fork.get_waypoint(carla.Location(x=x, y=y)).transform
            assert place.lateral == pytest.approx(0.8, abs=0.02)
            assert math.hypot(waypoint.location.x - x, waypoint.location.y - y) == pytest.approx(0.8, abs=0.02)
            assert place.s == pytest.approx(s, abs=0.05)
            assert place.heading == pytest.approx(math.radians(waypoint.rotation.yaw), abs=0.01)
        turned = route.points[(route.points[:, 0] > 100) & (route.points[:, 1] > -20) & (route.points[:, 1] < 1.7)]
        # The lane lies outside the arc of the road, of 20 m around (100, -20).
        assert np.hypot(turned[:, 0] - 100, turned[:, 1] + 20) == pytest.approx(21.75, abs=0.01)
    # Straight on, or to the left, which is where y falls.
    assert ends == {(155.0, 2.0), (122.0, -44.0)}


def test_where_the_road_ends_before_the_route_another_start_is_taken(carla):
    fork = carla.Map("fork", FORK)
    chance = np.random.default_rng(0)
    starts = [carla.Transform(carla.Location(x=x, y=1.75)) for x in (95.0, 5.0)]
    assert plan(fork, starts[0].location, 180.0, chance) is None
    start, route = plan_any(fork, starts, 180.0, chance)
    assert start is starts[1]
    assert route.length >= 180.0
    with pytest.raises(ServerError, match="From none of the 1 spawn points of fork the road goes on for 180 m"):
        plan_any(fork, starts[:1], 180.0, chance)
