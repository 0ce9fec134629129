import pytest

from examples.carla_td3.env.reward import TARGET_SPEED, Moment, collision_penalty, reward_terms


def terms(**changes):
    still = {
        "speed": TARGET_SPEED,
        "lateral": 0.0,
        "heading_error": 0.0,
        "jerk": 0.0,
        "progress": TARGET_SPEED * 0.05,
        "gap": float("inf"),
        "closing": 0.0,
        "seconds": 0.05,
    }
    return reward_terms(Moment(**{**still, **changes}))


def test_perfect_driving_earns_the_weights():
    assert terms() == pytest.approx(
        {
            "efficiency": 2.0,
            "lane_keeping": 2.0,
            "comfort": 0.0,
            "safety": 0.0,
            "progress": 3.0,
            "collision": 0.0,
            "off_road": 0.0,
            "goal": 0.0,
        }
    )


def test_standing_costs():
    assert sum(terms(speed=0.0, progress=0.0).values()) == -2.0


def test_creeping_in_the_middle_of_the_lane_costs_too_and_what_is_paid_rises_with_the_pace():
    paid = [sum(terms(speed=v, progress=v * 0.05).values()) for v in (0.5, 1.0, 4.0, TARGET_SPEED)]
    assert paid[1] < 0.0
    assert paid == sorted(paid)
    assert paid[-1] == 7.0


@pytest.mark.parametrize("speed", [TARGET_SPEED - 4, TARGET_SPEED + 4])
def test_both_sides_of_the_target_speed_cost_the_same(speed):
    assert terms(speed=speed)["efficiency"] == pytest.approx(2 * (1 - 2 * 4 / TARGET_SPEED))


def test_lane_keeping_falls_to_both_sides():
    assert terms(lateral=1.25)["lane_keeping"] == terms(lateral=-1.25)["lane_keeping"] == pytest.approx(1.0)
    assert terms(lateral=2.5, heading_error=2.0)["lane_keeping"] == pytest.approx(-2.0)


def test_driving_backwards_on_the_route_costs():
    assert terms(progress=-1.0)["progress"] == -3.0


def test_safety_is_lost_as_the_time_to_a_collision_shrinks():
    assert terms(gap=100.0, closing=5.0)["safety"] == 0.0
    assert terms(gap=10.0, closing=5.0)["safety"] == pytest.approx(-0.5)
    assert terms(gap=-1.0, closing=5.0)["safety"] == -1.0
    assert terms(gap=1.0, closing=-5.0)["safety"] == 0.0


def test_comfort_is_lost_by_jerk_of_either_sign():
    assert terms(jerk=50.0)["comfort"] == terms(jerk=-50.0)["comfort"] == -0.5
    assert terms(jerk=1e6)["comfort"] == -1.0


@pytest.mark.parametrize(("speed", "penalty"), [(0.5, -5.0), (4.0, -25.0), (15.0, -100.0)])
def test_a_collision_costs_by_speed(speed, penalty):
    assert collision_penalty(speed) == penalty
    assert terms(speed=speed, collided=True)["collision"] == penalty


@pytest.mark.parametrize(("lateral", "penalty"), [(2.5, 0.0), (2.51, -20.0), (-2.51, -20.0)])
def test_leaving_the_road_costs(lateral, penalty):
    assert terms(lateral=lateral)["off_road"] == penalty


def test_the_goal_pays():
    assert terms(finished=True)["goal"] == 100.0
