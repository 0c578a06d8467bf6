"""An experiment for each fact of the register. A test compares the two."""

from __future__ import annotations

from typing import Any

from notebook_ssh_verify.experiments import (
    endpoint,
    events,
    laptop,
    maintenance,
    ngrok,
    notebook,
    permissions,
    rates,
    sagemaker_api,
)
from notebook_ssh_verify.experiments.base import Experiment, Need

ALL: tuple[Experiment[Any], ...] = (
    *sagemaker_api.EXPERIMENTS,
    *maintenance.EXPERIMENTS,
    *rates.EXPERIMENTS,
    *events.EXPERIMENTS,
    *permissions.EXPERIMENTS,
    *notebook.EXPERIMENTS,
    *ngrok.EXPERIMENTS,
    *endpoint.EXPERIMENTS,
    *laptop.EXPERIMENTS,
)

__all__ = ["ALL", "Experiment", "Need"]
