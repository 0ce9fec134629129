"""Train a TD3 driving agent and watch its gradients: ``python -m examples.carla_td3.train --help``."""

from __future__ import annotations

import sys

import rich

import gradwatch
from examples.carla_td3.checkpoint import Checkpoints, open_folder
from examples.carla_td3.env.carla import ServerError, find_server
from examples.carla_td3.options import OptionError, Options, parse
from examples.carla_td3.record import check_film, record
from examples.carla_td3.reporting import Report
from examples.carla_td3.td3 import train

__all__ = ["main", "run"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Returns:
        0 where every line of the checklist holds, 3 where one does not, 2 where the command cannot be meant or
        the CARLA server is not there, or no more, 130 if it was stopped by hand; 1 is Python's own, for an error.
    """
    try:
        options = parse(arguments)
        if options.env == "carla":
            # Before a folder is made.
            find_server(options.host, options.port)
        report = run(options)
    except (OptionError, ServerError, gradwatch.errors.SinkError, gradwatch.errors.MissingExtraError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped by hand: what was logged up to here is in the run's folder.", file=sys.stderr)
        return 130
    rich.get_console().print(report.checklist.table())
    if report.questions is not None:
        report.say("\nthe questions of the gradient clipping report")
        for question, answer in report.questions.answers():
            report.say(f"- {question} {answer}")
    return 0 if report.checklist.holds else 3


def run(options: Options) -> Report:
    """Train as asked for and return what was told, with the checklist filled in.

    Raises:
        OptionError: the folder cannot be written or gone on with.
        SinkError: the Prometheus endpoint cannot be opened.
    """
    if options.record is not None:
        check_film(options.record)
    folder = open_folder(options)
    checkpoints = Checkpoints(folder)
    report = Report(options, folder, checkpoints.step)
    try:
        agent = train(options, checkpoints, report)
    finally:
        report.close()
    updates = agent.updates
    report.say(f"{updates} critic and {updates // options.policy_delay} actor updates; the run is in {folder}")
    if options.record is not None:
        report.say(record(folder, options.record))
    return report


if __name__ == "__main__":
    sys.exit(main())
