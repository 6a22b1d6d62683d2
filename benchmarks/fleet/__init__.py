"""
A thousand hosts of sixteen workers against a modelled Loki, in virtual time: ``python -m benchmarks.fleet``.

What is real: `Delivery` with its backlog, backoff and replay, and `LokiSink` with its terms, labels and judgement of answers, one
of each for every worker. What is modelled: the server with its limits (`server.py`), the events, the HTTP exchange, the clock.
"""
