"""What makes a run void."""


class BenchError(Exception):
    """An event of fapilog's was lost, a line is wrong, or a contender failed: there is nothing to report."""
