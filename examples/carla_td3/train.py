"""Train a TD3 driving agent and watch its gradients: ``python -m examples.carla_td3.train --help``."""

from __future__ import annotations

import sys

import rich

import gradwatch
from examples.carla_td3.checklist import Checklist
from examples.carla_td3.checkpoint import Checkpoints, open_folder
from examples.carla_td3.options import OptionError, Options, parse
from examples.carla_td3.reporting import Report
from examples.carla_td3.td3 import train

__all__ = ["main", "run"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Returns:
        0 where every line of the checklist holds, 1 where one does not, 2 where the command cannot be meant, 130
        if it was stopped by hand.
    """
    try:
        checklist = run(parse(arguments))
    except (OptionError, gradwatch.errors.SinkError, gradwatch.errors.MissingExtraError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped by hand: what was logged up to here is in the run's folder.", file=sys.stderr)
        return 130
    rich.get_console().print(checklist.table())
    return 0 if checklist.holds else 1


def run(options: Options) -> Checklist:
    """Train as asked for and return the checklist, filled in.

    Raises:
        OptionError: the folder cannot be written or gone on with.
        SinkError: the Prometheus endpoint cannot be opened.
    """
    folder = open_folder(options)
    checkpoints = Checkpoints(folder)
    report = Report(options, folder, checkpoints.step)
    try:
        agent = train(options, checkpoints, report)
    finally:
        report.close()
    updates = agent.updates
    report.say(f"{updates} critic and {updates // options.policy_delay} actor updates; the run is in {folder}")
    return report.checklist


if __name__ == "__main__":
    sys.exit(main())
