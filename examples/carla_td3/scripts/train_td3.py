"""The command of the seed report as it is written there, to be called from the folder above."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from examples.carla_td3.train import main

sys.exit(main())
