"""From rewards to advantages: pass@k objectives with k and λ live."""

from passk_guard.objectives.estimators import ESTIMATORS, Estimator, register_estimator
from passk_guard.objectives.passk_objective import PassKObjective

__all__ = ["ESTIMATORS", "Estimator", "PassKObjective", "register_estimator"]
