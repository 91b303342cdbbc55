"""The one warning class and the one error class of the package."""

__all__ = ["PassKGuardWarning", "ProbeError"]


class PassKGuardWarning(UserWarning):
    """A conflict between what is trained and pass@1, or a guard that cannot do its work."""


class ProbeError(RuntimeError):
    """A probe could not be completed. It is lost; training goes on."""
