"""From evidence to alarm: detectors in a registry, and the episodes that they open."""

from passk_guard.detection.alarm import Alarm, AlarmKind
from passk_guard.detection.cause import Cause
from passk_guard.detection.cusum import AlignmentDetector
from passk_guard.detection.detector import (
    DETECTORS,
    Detector,
    DetectorSettings,
    LookEvidence,
    register_detector,
)
from passk_guard.detection.level import LevelDetector

__all__ = [
    "DETECTORS",
    "Alarm",
    "AlarmKind",
    "AlignmentDetector",
    "Cause",
    "Detector",
    "DetectorSettings",
    "LevelDetector",
    "LookEvidence",
    "register_detector",
]
