import algo  # algo.py, beside this file


def pisqrt(a: float) -> float:
    """The square root of a times pi."""
    return algo.pi_sqrt(a)
