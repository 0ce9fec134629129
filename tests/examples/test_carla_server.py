"""CARLA's world on the stand-in: taken over, shared, and given back on every way out."""

import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from examples.carla_td3.env.carla import CarlaEnv, Server, ServerError, environment, server
from tests.examples import carla_like
from tests.examples.carla_fixtures import simulation

FORWARD = np.array([0.0, 0.5], dtype=np.float32)


@pytest.fixture
def world(monkeypatch):
    # A car of the stand-in stands on its wheels at once.
    monkeypatch.setattr(environment, "SETTLE", 2)
    return simulation(monkeypatch)


def as_it_was(simulated):
    settings = simulated.settings
    assert (settings.synchronous_mode, settings.fixed_delta_seconds) == (False, None)
    assert not simulated.traffic.synchronous
    assert [actor for actor in simulated.actors.values() if actor.attributes["role_name"] == server.ROLE] == []


def test_the_world_is_synchronous_while_it_is_driven_in_and_is_given_back(world):
    simulated, address = world
    env = CarlaEnv(Server(*address), vehicles=3)
    env.reset()
    assert (simulated.settings.synchronous_mode, simulated.settings.fixed_delta_seconds) == (True, 0.05)
    assert simulated.traffic.synchronous
    assert len(simulated.cars()) == 4
    assert env._image.frame == simulated.frame
    sensors = [actor for actor in simulated.actors.values() if actor not in simulated.cars()]
    assert [sensor.parent for sensor in sensors] == 3 * [env._car]
    env.close()
    as_it_was(simulated)
    assert [sensor._callback for sensor in sensors] == 3 * [None]
    # A Traffic Manager that waits for ticks would hang in a world that makes them itself.
    assert simulated.told[-2:] == ["traffic synchronous False", "world synchronous False"]
    env.close()
    env.reset()
    env.close()
    as_it_was(simulated)


def test_what_is_not_ours_stays_and_what_a_killed_run_left_goes(world):
    simulated, address = world
    library = simulated.world.get_blueprint_library()
    start = simulated.world.get_map().get_spawn_points()[0]
    for role in ("somebody's", server.ROLE):
        blueprint = library.find("vehicle.audi.tt")
        blueprint.set_attribute("role_name", role)
        simulated.world.spawn_actor(blueprint, start)
        start = simulated.world.get_map().get_spawn_points()[40]
    env = CarlaEnv(Server(*address), vehicles=3)
    env.reset()
    assert len(simulated.cars()) == 5
    env.close()
    assert [car.attributes["role_name"] for car in simulated.cars()] == ["somebody's"]


def test_another_town_is_left_for_town01(monkeypatch):
    monkeypatch.setattr(environment, "SETTLE", 2)
    simulated, address = simulation(monkeypatch, "Carla/Maps/Town10HD")
    with CarlaEnv(Server(*address), vehicles=0) as env:
        env.reset()
        assert simulated.town == "Carla/Maps/Town01"


def test_a_seed_loads_the_town_again_and_an_episode_without_one_does_not(world):
    simulated, address = world
    with CarlaEnv(Server(*address), vehicles=1) as env:
        env.reset(seed=1)
        env.reset()
        env.reset(seed=2)
    assert simulated.told.count("loaded") == 2


class Stop(BaseException):
    """What Ctrl-C raises, wherever the program is."""


def test_an_interrupt_after_any_call_leaves_nothing_behind(world, monkeypatch):
    simulated, address = world
    calls = ("Client.", "World.", "TrafficManager.", "Vehicle.", "Sensor.")
    left = [0]

    def interrupt(name):
        if name.startswith(calls):
            left[0] -= 1
            if left[0] == 0:
                raise Stop

    monkeypatch.setattr(carla_like, "after", interrupt)
    interrupted = 0
    while not left[0] > 0:
        left[0] = interrupted = interrupted + 1
        env = CarlaEnv(Server(*address), vehicles=2)
        try:
            with env:
                env.reset(seed=1)
                env.step(FORWARD)
                calls_made = interrupted - left[0]
                left[0] = 1_000_000
                raise Stop
        except Stop:
            as_it_was(simulated)
    assert calls_made == interrupted - 1 > 30


def test_a_server_that_is_lost_is_told_in_one_sentence_and_not_waited_for(world):
    simulated, address = world
    env = CarlaEnv(Server(*address), vehicles=1)
    env.reset()
    simulated.gone_at = simulated.frame
    with pytest.raises(ServerError, match=r"^The CARLA server at nowhere:\d+ is lost \(time-out.*\.$") as lost:
        env.step(FORWARD)
    assert "docker run" in str(lost.value)
    env.close()


def test_what_cannot_be_given_back_is_told_and_the_rest_is_given_back(world, monkeypatch):
    simulated, address = world
    env = CarlaEnv(Server(*address), vehicles=1)
    env.reset()
    monkeypatch.setattr(simulated, "actors", _Locked(simulated.actors))
    with pytest.raises(ServerError, match="could not be given back"):
        env.close()
    assert not simulated.settings.synchronous_mode


class _Locked(dict):
    def pop(self, key):
        raise RuntimeError("nothing can be destroyed now")


def test_a_world_that_is_taken_over_halfway_is_given_back_at_once(world, monkeypatch):
    simulated, address = world
    env = CarlaEnv(Server(*address), vehicles=1)

    def fail(name):
        if name == "World.apply_settings" and simulated.settings.synchronous_mode:
            raise RuntimeError("time-out")

    with monkeypatch.context() as patch:
        patch.setattr(carla_like, "after", fail)
        with pytest.raises(ServerError, match="time-out"):
            env.reset()
    as_it_was(simulated)
    with env:
        env.reset()


def test_more_vehicles_than_the_town_has_room_for_are_told_of(world):
    simulated, address = world
    with (
        CarlaEnv(Server(*address), vehicles=400) as env,
        pytest.raises(ServerError, match=r"^The town has room for \d+ vehicles, not 400"),
    ):
        env.reset()
    as_it_was(simulated)


def test_training_and_evaluation_take_turns_in_one_world(world):
    simulated, address = world
    shared = Server(*address)
    with CarlaEnv(shared, vehicles=2) as training, CarlaEnv(shared, vehicles=2) as judged:
        training.reset(seed=1)
        training.step(FORWARD)
        before = training.observation()
        assert training._steps == 1
        sensors = [actor for actor in simulated.actors.values() if actor not in simulated.cars()]
        judged.reset(seed=2)
        assert [sensor._callback for sensor in sensors] == 3 * [None]
        judged.step(FORWARD)
        assert len(simulated.cars()) == 3
        with pytest.raises(ResetNeeded):
            training.step(FORWARD)
        # The evaluation has taken the place of the episode.
        after = training.observation()
        assert training._steps == 0
        assert (after["vector"] != before["vector"]).any()
        assert (training.observation()["vector"] == after["vector"]).all()
        training.step(FORWARD)
    as_it_was(simulated)


def test_an_episode_cannot_be_kept_but_its_source_of_chance_can(world):
    _, address = world
    with CarlaEnv(Server(*address), vehicles=1) as env:
        env.reset(seed=1)
        state = env.state_dict()
        env.step(FORWARD)
        env.load_state_dict(state)
        first = env.observation()
        assert env._steps == 0
        env.load_state_dict(state)
        assert (env.observation()["vector"] == first["vector"]).all()


def test_crossed_lane_markings_are_told(world):
    _, address = world
    with CarlaEnv(Server(*address), vehicles=0, action_repeat=4) as env:
        env.reset(seed=1)
        assert env.step(FORWARD)[4]["crossed"] == []
        crossed = []
        while not crossed:
            crossed = env.step(np.array([0.5, 1.0], dtype=np.float32))[4]["crossed"]
        assert set(crossed) == {"Solid"}
