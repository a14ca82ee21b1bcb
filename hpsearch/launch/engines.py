"""The engines that workers can be launched on: name → launcher. To add one, write its file and add its line here."""

from __future__ import annotations

from hpsearch.launch.launcher import Launcher
from hpsearch.launch.local import Local
from hpsearch.launch.ray import Ray
from hpsearch.launch.slurm import Slurm

ENGINES: dict[str, type[Launcher]] = {
    "local": Local,
    "ray": Ray,
    "slurm": Slurm,
}
