"""temporary"""

from __future__ import annotations
import math
from dataclasses import dataclass
from statistics import NormalDist
import numpy as np
from passk_guard.statistics.alignment import weighted_alignment


@dataclass(frozen=True)
class FirstTest:
    inner: float
    z: float
    threshold: float
    prompts: int
    opposed: bool


def first_test(gramian, weights, false_alarms: float) -> FirstTest:
    found = weighted_alignment(gramian, weights)
    threshold = 1.15 * NormalDist().inv_cdf(1 - false_alarms)
    return FirstTest(found.inner, found.z, threshold, len(weights), found.z < -threshold)
